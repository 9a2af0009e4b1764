"""The networks: cost, order and names of the layers, any widths, folded layers, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from base_model import ConvBN, build_model, full_widths, model_info, model_names

SMALL = ("src20", "vc", "smi1_cifar", "lenet5bn")
# The widths at the end of the published log of the pruned ResNet-50.
# fmt: off
PRUNED_SRES50 = [
    64, 256,
    22, 22, 256, 23, 36, 256, 1, 1, 256,
    512,
    62, 97, 512, 16, 49, 512, 38, 68, 512, 41, 92, 512,
    1024,
    189, 204, 1024, 69, 145, 1024, 65, 139, 1024, 64, 94, 1024, 67, 89, 1024, 86, 95, 1024,
    2048,
    473, 488, 2048, 171, 281, 2048, 511, 512, 2048,
]
# fmt: on


def meta_model(name: str, **options: object) -> nn.Module:
    """A network without memory for its weights, in eval mode."""
    with torch.device("meta"):
        return build_model(name, **options).eval()


def macs(model: nn.Module, name: str) -> int:
    """Multiply-accumulates for one image, by torch's own counter."""
    info = model_info(name)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, info.in_channels, info.image_size, info.image_size, device="meta"))
    return counter.get_total_flops() // 2


def layers(model: nn.Module) -> dict[str, int]:
    """Width of every ConvBN and linear layer in the order of the modules."""
    widths = {}
    for name, module in model.named_modules():
        if isinstance(module, ConvBN):
            widths[name] = module.conv.out_channels
        elif isinstance(module, nn.Linear):
            widths[name] = module.out_features
    return widths


def tied_to(name: str, layer: str) -> str:
    """The earlier layer whose width this one must have, or itself."""
    stage = layer.partition(".")[0]
    if name.startswith("src") and layer.endswith(".conv2"):
        return "stage1.conv1" if stage == "stage1" else f"{stage}.projection"
    if name.startswith("sres") and layer.endswith(".conv3"):
        return f"{stage}.projection"
    if layer.endswith(".depthwise"):
        block = int(stage.removeprefix("block"))
        return "conv1" if block == 0 else f"block{block - 1}.pointwise"
    return layer


def odd_widths(name: str) -> list[int]:
    """Valid widths, all different but for those that must be the same."""
    own = {layer: 3 + index for index, layer in enumerate(layers(meta_model(name)))}
    return [own[tied_to(name, layer)] for layer in own][:-1]


def randomise_batch_norms(model: nn.Module) -> None:
    """Statistics and weights as a trained network could have them, not the identity."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def images(name: str, size: int | None = None) -> Tensor:
    """Two random float64 images for the network."""
    info = model_info(name)
    size = size or info.image_size
    return torch.randn(2, info.in_channels, size, size, dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("src20", 40_813_184),
        ("src56", 125_747_840),
        ("src110", 253_149_824),
        ("sres50", 4_089_184_256),
        ("smi1", 568_740_352),
        # By hand: stem 884,736; depthwise 1,585,152; pointwise 62,914,560; classifier 10,240.
        ("smi1_cifar", 65_394_688),
        # By hand: 20*25*24*24 + 50*20*25*8*8 + 800*500 + 500*10.
        ("lenet5bn", 2_293_000),
    ],
)
def test_macs_of_full_networks(name: str, expected: int) -> None:
    assert macs(meta_model(name), name) == expected


@pytest.mark.slow
def test_published_widths_of_the_pruned_resnet50() -> None:
    model = meta_model("sres50", widths=PRUNED_SRES50)
    assert macs(model, "sres50") == 1_858_866_887
    folded = meta_model("sres50", widths=PRUNED_SRES50, folded=True)
    assert macs(folded, "sres50") == 1_858_866_887
    # The published 16.53M counts a bias per channel and no batch norm.
    assert round(sum(p.numel() for p in folded.parameters()) / 1e6, 2) == 16.53
    assert round(sum(p.numel() for p in meta_model("sres50").parameters()) / 1e6, 2) == 25.56


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_widths_are_in_the_order_of_the_modules(name: str) -> None:
    *hidden, classifier = layers(meta_model(name)).values()
    assert hidden == full_widths(name)
    assert classifier == model_info(name).num_classes


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALL, "smi1", "sres50"])
def test_any_valid_widths(name: str) -> None:
    widths = odd_widths(name)
    model = meta_model(name, widths=widths, num_classes=7)
    assert list(layers(model).values()) == [*widths, 7]
    info = model_info(name)
    assert model(torch.zeros(2, info.in_channels, info.image_size, info.image_size, device="meta")).shape == (2, 7)


def test_known_orders() -> None:
    assert full_widths("sres50")[:12] == [64, 256, 64, 64, 256, 64, 64, 256, 64, 64, 256, 512]
    assert len(full_widths("sres50")) == 53
    assert len(full_widths("src56")) == 57
    names = list(layers(meta_model("src56")))
    assert (names[0], names[1], names[19], names[20], names[38]) == (
        "stage1.conv1",
        "stage1.block0.conv1",
        "stage2.projection",
        "stage2.block0.conv1",
        "stage3.projection",
    )
    assert full_widths("vc")[-1] == 512
    assert full_widths("lenet5bn") == [20, 50, 500]


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("src20", ["stage1.conv1.conv.weight", "stage2.block0.conv2.bn.running_var", "linear.bias"]),
        ("sres50", ["conv1.bn.weight", "stage1.projection.conv.weight", "stage4.block2.conv3.bn.bias", "fc.weight"]),
        ("vc", ["stage1.conv1.conv.weight", "stage5.conv3.bn.weight", "linear1.weight", "linear2.weight"]),
        ("smi1", ["conv1.conv.weight", "block0.depthwise.bn.weight", "block12.pointwise.conv.weight", "fc.weight"]),
        ("smi1_cifar", ["block12.pointwise.conv.weight", "linear.weight"]),
        ("lenet5bn", ["conv1.conv.weight", "conv2.bn.bias", "linear1.weight", "linear2.bias"]),
    ],
)
def test_names(name: str, some: list[str]) -> None:
    assert set(some) <= set(meta_model(name).state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_conv_bn_has_exactly_its_children(name: str) -> None:
    for folded, children in ((False, ["conv", "bn"]), (True, ["conv"])):
        model = meta_model(name, folded=folded)
        units = [module for module in model.modules() if isinstance(module, ConvBN)]
        assert len(units) == sum(isinstance(module, nn.Conv2d) for module in model.modules())
        assert all([child for child, _ in unit.named_children()] == children for unit in units)
        assert all((unit.conv.bias is not None) == folded for unit in units)


def test_conv_bn_has_no_relu_inside() -> None:
    assert ConvBN(3, 8, 3)(torch.randn(2, 3, 8, 8)).min() < 0


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_folded_network_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name).double().eval()
    randomise_batch_norms(model)
    folded = build_model(name, folded=True).double().eval()
    for layer, module in model.named_modules():
        if isinstance(module, ConvBN):
            scale = module.bn.weight / torch.sqrt(module.bn.running_var + module.bn.eps)
            target = folded.get_submodule(layer).conv
            target.weight.data = module.conv.weight * scale[:, None, None, None]
            target.bias.data = module.bn.bias - module.bn.running_mean * scale
        elif isinstance(module, nn.Linear):
            folded.get_submodule(layer).load_state_dict(module.state_dict())
    x = images(name)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)


def test_src20_against_plain_functions() -> None:
    torch.manual_seed(0)
    model = build_model("src20").double().eval()
    randomise_batch_norms(model)
    state = model.state_dict()

    def layer(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        bn = [state[f"{name}.bn.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *bn)

    x = images("src20")
    expected = F.relu(layer(x, "stage1.conv1"))
    for stage in (1, 2, 3):
        for block in range(3):
            stride = 2 if stage > 1 and block == 0 else 1
            shortcut = layer(expected, f"stage{stage}.projection", 2) if stride == 2 else expected
            inner = F.relu(layer(expected, f"stage{stage}.block{block}.conv1", stride))
            expected = F.relu(layer(inner, f"stage{stage}.block{block}.conv2") + shortcut)
    expected = F.linear(expected.mean(dim=(2, 3)), state["linear.weight"], state["linear.bias"])
    torch.testing.assert_close(model(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "relus", "adds"), [("src20", 19, 9), ("vc", 14, 0), ("smi1_cifar", 27, 0), ("lenet5bn", 3, 0)]
)
def test_exports_to_few_operations(name: str, relus: int, adds: int) -> None:
    program = torch.export.export(build_model(name).eval(), (images(name).float(),))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called.count("aten.relu_.default") == relus
    assert called.count("aten.add.Tensor") == adds
    assert {target.split(".")[1] for target in called} <= {
        "conv2d",
        "batch_norm",
        "relu_",
        "add",
        "max_pool2d",
        "adaptive_avg_pool2d",
        "flatten",
        "linear",
    }


@pytest.mark.parametrize("name", ["src20", "smi1_cifar"])
def test_every_weight_gets_a_gradient(name: str) -> None:
    model = build_model(name)
    model(images(name).float()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("name", "size"), [("vc", 64), ("lenet5bn", 32), ("lenet5bn", 16), ("lenet5bn", 17)])
def test_image_size(name: str, size: int) -> None:
    model = build_model(name, image_size=size, in_channels=2).eval()
    assert model(torch.zeros(1, 2, size, size)).shape == (1, 10)


def test_convolutions_start_with_kaiming_fan_out() -> None:
    conv = ConvBN(256, 128, 3).conv
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "src21"}, "src21.*choose one of src8, src20, .*lenet5bn"),
        ({"name": "src20", "widths": [16] * 20}, r"takes 21 widths, got 20.*stage1\.conv1, stage1\.block0\.conv1"),
        ({"name": "lenet5bn", "widths": [20, 0, 500]}, "width of conv2 is 0"),
        ({"name": "src20", "num_classes": 0}, "num_classes is 0"),
        ({"name": "src20", "in_channels": 0}, "in_channels is 0"),
        ({"name": "vc", "image_size": 31}, "image_size is 31.*at least 32"),
        ({"name": "lenet5bn", "image_size": 15}, "image_size is 15.*at least 16"),
    ],
)
def test_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(**arguments)


@pytest.mark.parametrize(
    ("name", "layer", "other"),
    [
        ("src20", "stage1.block1.conv2", "stage1.conv1"),
        ("src20", "stage3.block0.conv2", "stage3.projection"),
        ("sres50", "stage2.block3.conv3", "stage2.projection"),
        ("smi1", "block3.depthwise", "block2.pointwise"),
        ("smi1_cifar", "block0.depthwise", "conv1"),
    ],
)
def test_refuses_widths_that_do_not_fit_together(name: str, layer: str, other: str) -> None:
    names = list(layers(meta_model(name)))
    widths = full_widths(name)
    widths[names.index(layer)] -= 1
    with pytest.raises(ValueError, match="same width") as error:
        build_model(name, widths=widths)
    assert f"{layer} " in str(error.value)
    assert f"{other} " in str(error.value)


def test_full_widths_is_the_callers_own_list() -> None:
    full_widths("src20")[0] = 1
    assert full_widths("src20")[0] == 16
