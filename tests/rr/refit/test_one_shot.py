"""Pruning without training, whole: what may go, what it leaves, and what it must not touch."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import TMonitor

from rr import ConversionReport, InputError, RefitConfig, prune
from rr.refit.feed import Feed
from tests.long_cases import all_long_but, every_value_once
from tests.old_torch import fails_on_old_torch
from tests.rr.networks import Net, conv, generic, head


def images(count: int = 64, size: int = 8) -> list[Tensor]:
    """Batches of 16."""
    return list(torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1)).split(16))


def redundant() -> nn.Module:
    """Half of the channels of `a` are mixtures of the others, and each is read with weights of its own."""
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), conv(8, 6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    with torch.no_grad():
        mixture = torch.randn(4, 4)
        model[0].weight[4:] = (mixture @ model[0].weight[:4].flatten(1)).view_as(model[0].weight[4:])
        model[0].bias[4:] = mixture @ model[0].bias[:4]
    return model.eval()


def error(first: nn.Module, second: nn.Module, batches: list[Tensor]) -> float:
    """Of the outputs, over their variance."""
    with torch.no_grad():
        one, two = (torch.cat([model(batch) for batch in batches]) for model in (first, second))
    return float((one - two).square().sum() / (one - one.mean(0)).square().sum())


def rows_of(part: nn.Sequential) -> nn.Module:
    """The same with a row [channels] for each place of each image."""
    return nn.Sequential(*part, nn.Flatten(2), Rows())


class Rows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(0, 1)  # [N x places, D]


@pytest.mark.slow
def test_channels_that_others_can_stand_in_for_go_without_a_loss() -> None:
    model = redundant()
    slim = prune(
        model, images()[0], images(256), include=("0",), flops_target=0.56, refitting=RefitConfig(ridge=1e-7, places=64)
    )
    assert slim[0].out_channels == 4
    assert error(model, slim, [torch.randn(32, 3, 8, 8), torch.randn(9, 3, 11, 13)]) < 1e-8
    assert slim.refit_report.layers["1"].after < 1e-8 < 1e-2 < slim.refit_report.layers["1"].before


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("norm", [False, True])
def test_each_round_adds_to_the_outputs_only_what_the_last_one_has_not(rounds: int, norm: bool) -> None:
    """Channels that are others and a constant: the constant goes into the next layer's bias, or its BN, once."""
    model = redundant()
    model[1] = generic(nn.Sequential(conv(8, 6, 1), *([nn.BatchNorm2d(6)] if norm else [])))
    with torch.no_grad():
        model[0].bias[4:] += torch.tensor([1.0, -2.0, 3.0, -4.0])
    way = RefitConfig(ridge=1e-7, places=64, rounds=rounds)
    slim = prune(model.eval(), images()[0], images(256), include=("0",), flops_target=0.58, refitting=way)
    assert slim[0].out_channels == 4
    assert error(model, slim, [torch.randn(32, 3, 8, 8)]) < 1e-8


def residual() -> nn.Module:
    """Two blocks that add into a stream of 8 channels, each 16 wide inside."""
    modules = {"stem": conv(3, 8), "fc": nn.Linear(8, 4)}
    for block in ("a", "b"):
        modules |= {f"{block}1": conv(8, 16), f"{block}2": conv(16, 8), f"{block}n": nn.BatchNorm2d(8)}

    def forward(net: Net, x: Tensor) -> Tensor:
        x = net.stem(x)
        for block in ("a", "b"):
            first, second, norm = (getattr(net, f"{block}{part}") for part in "12n")
            x = x + norm(second(F.relu(first(x))))
        return head(net, x)

    return generic(Net(forward, **modules))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: residual(),
    "mobile": lambda: generic(
        nn.Sequential(
            *(conv(3, 16), nn.BatchNorm2d(16), nn.ReLU6()),
            *(conv(16, 16, groups=16), nn.BatchNorm2d(16), nn.ReLU6(), conv(16, 12, 1), nn.BatchNorm2d(12)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)),
        )
    ),
    "weight norm": lambda: nn.Sequential(
        *(conv(3, 16), nn.ReLU(), nn.utils.parametrizations.weight_norm(conv(16, 12)), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(12 * 64, 8), nn.ReLU(), nn.Linear(8, 4)),
    ),
    "transposed": lambda: generic(
        nn.Sequential(
            *(conv(3, 16), nn.ReLU(), nn.ConvTranspose2d(16, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU()),
            *(conv(12, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)),
        )
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(*every_value_once({"name": NETWORKS, "layers": ("internal", "all")}))
def test_the_target_is_met_and_the_refit_helps(name: str, layers: str) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    before = copy.deepcopy(model).state_dict()
    batches = images(192)
    way = RefitConfig(held_out=0.0)
    slim = prune(model, batches[0], batches, flops_target=0.5, layers=layers, refitting=way)
    report = slim.refit_report.conversion
    assert isinstance(report, ConversionReport)
    assert report.macs_after <= 0.5 * report.macs_before
    assert report.float64_difference <= 1e-10
    assert all(layer.after <= layer.before * 1.01 for layer in slim.refit_report.layers.values())
    assert sum(layer.after - layer.before for layer in slim.refit_report.layers.values()) < 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())  # it is as it was
    assert not any(module._forward_hooks for module in slim.modules())


@pytest.mark.slow
def test_the_same_images_give_the_same_network() -> None:
    torch.manual_seed(0)
    model, batches = residual().eval(), images()
    first, second = (prune(model, batches[0], batches, flops_target=0.5, layers="all").state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


class Keeps(nn.Module):
    """Keeps what it has seen on itself until later, and calls one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.last = conv(3, 12), conv(12, 12), conv(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = F.relu(self.first(x))
        again = F.relu(self.shared(F.relu(self.shared(self.kept))))
        return self.last(again + 0.5 * self.kept).mean((2, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *all_long_but(NETWORKS, "residual"),
        pytest.param("keeps", marks=fails_on_old_torch("a tensor kept on a module can't be exported")),
    ],
)
def test_side_by_side_is_as_one_after_the_other(name: str) -> None:
    """With too little memory for all images at a time each layer has all images run again: the same fit."""
    torch.manual_seed(0)
    model, batches = (Keeps() if name == "keeps" else NETWORKS[name]()).eval(), images(96)
    ways = [RefitConfig(memory=memory, ridge=0.1) for memory in (4.0, 1e-9)]
    slims = [prune(model, batches[0], batches, flops_target=0.6, layers="all", refitting=way) for way in ways]
    assert slims[0].refit_report.layers.keys() == slims[1].refit_report.layers.keys()
    for one, two in zip(*(slim.state_dict().values() for slim in slims), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


class Failing(nn.Module):
    """Fails for a batch that comes late, at a layer behind one that is refitted."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 8), conv(8, 8), conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.b(F.relu(self.a(x))))
        if not torch.is_grad_enabled() and len(x) == 7:
            raise KeyError("seven")
        return self.c(x).mean((2, 3))


def test_what_a_forward_raises_ends_all_batches() -> None:
    before = set(threading.enumerate())
    with pytest.raises(KeyError, match="seven"):
        prune(Failing().eval(), images()[0], [*images(), images()[0][:7]], flops_target=0.6)
    after = {thread for thread in threading.enumerate() if not isinstance(thread, TMonitor)}  # which bars begin
    assert after <= before


@pytest.mark.slow
def test_the_report_is_of_batches_that_the_fit_has_not_seen() -> None:
    """Its figures are those of the last batch, which changes nothing else; by hand, with plain torch."""
    model, batches = redundant(), images(64)
    targets = [torch.arange(len(batch)) % 4 for batch in batches]

    def loss_fn(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(net(batch[0]), batch[1])

    settings = {"include": ("0",), "flops_target": 0.35, "refitting": RefitConfig(places=64), "loss_fn": loss_fn}
    slim = prune(model, batches[0], zip(batches, targets, strict=True), **settings)
    report = slim.refit_report
    assert (report.fitted, report.held_out) == (48, 16)
    assert "refitted on 48 inputs, and measured on 16 others, which were kept out of it" in str(report)
    assert report.outputs.after == pytest.approx(error(model, slim, batches[-1:]), rel=1e-4)
    assert report.outputs.after < report.outputs.before
    assert report.layers["1"].after == pytest.approx(
        error(rows_of(model[:2]), rows_of(slim[:2]), batches[-1:]), rel=1e-4
    )
    assert report.layers["1"].after_on_fitted != report.layers["1"].after < report.layers["1"].before
    for network, found in ((model, report.loss.full), (slim, report.loss.after)):
        assert found == pytest.approx(loss_fn(network, (batches[-1], targets[-1])).item(), rel=1e-4)

    others = prune(model, batches[0], zip([*batches[:-1], 3 * batches[0]], targets, strict=True), **settings)
    assert all(torch.equal(one, other) for one, other in zip(slim.parameters(), others.parameters(), strict=True))
    assert others.refit_report.outputs != report.outputs


def test_of_a_single_batch_nothing_is_held_out_and_the_report_says_so() -> None:
    report = prune(redundant(), images()[0], images()[:1], flops_target=0.7).refit_report
    assert (report.fitted, report.held_out) == (16, 0)
    assert "measured on the same ones, since none were held out" in str(report)
    assert report.layers["1"].after == report.layers["1"].after_on_fitted


@pytest.mark.parametrize(
    ("sizes", "share", "held_out"),
    [((96, 96, 8), 0.1, 1), ((20, 20, 20, 20, 20, 1), 0.4, 3), ((9, 9), 0.1, 1), ((9, 9), 0.9, 1), ((9, 9), 0.0, 0)],
)
def test_the_last_batches_nearest_to_the_share_are_held_out(sizes: tuple[int], share: float, held_out: int) -> None:
    feed = Feed.of(nn.Linear(2, 2), [torch.zeros(size, 2) for size in sizes], None, share)
    assert feed.held_out == held_out
    assert [*feed.fitted, *feed.unseen] == list(range(len(sizes)))


@pytest.mark.slow
def test_what_the_stream_has_lost_is_mended_by_the_blocks_behind() -> None:
    """The first block's error is added to the second one's target: the sum is nearer than the block's own part."""
    torch.manual_seed(0)
    model = residual().eval()
    batches = images(256)
    both = prune(model, batches[0], batches, flops_target=0.5, include=("a1", "b1"))
    assert both.refit_report.layers["b2"].after < both.refit_report.layers["b2"].before
    assert error(model, both, batches) < 0.5


@pytest.mark.slow
def test_rounds_multiples_and_the_least_width() -> None:
    torch.manual_seed(0)
    model, batches = NETWORKS["residual"]().eval(), images(64)
    slim = prune(
        model, batches[0], batches, flops_target=0.7, width_multiple=4, min_width=8, refitting=RefitConfig(rounds=2)
    )
    widths = slim.refit_report.conversion.widths
    assert all(width % 4 == 0 and width >= 8 for width in widths)
    assert slim.refit_report.conversion.macs_after <= 0.7 * slim.refit_report.conversion.macs_before


@pytest.mark.slow
def test_a_target_for_parameters() -> None:
    torch.manual_seed(0)
    model, batches = NETWORKS["residual"]().eval(), images(32)
    report = prune(model, batches[0], batches, flops_target=None, params_target=0.5).refit_report.conversion
    assert report.parameters_after <= 0.5 * report.parameters_before


@pytest.mark.slow
def test_the_tasks_own_loss_says_what_matters() -> None:
    """A loss that sees one class alone: nothing that only the others read is worth anything."""

    def forward(net: Net, x: Tensor) -> Tensor:
        parts = [getattr(net, f"{name}2")(F.relu(getattr(net, f"{name}1")(x))).mean((2, 3)) for name in "ab"]
        return torch.cat(parts, 1)

    torch.manual_seed(0)
    modules = {f"{name}{part}": conv(*((3, 8) if part == 1 else (8, 1))) for name in "ab" for part in (1, 2)}
    model, batches = Net(forward, **modules).eval(), images(64)
    labelled = [(batch, batch.mean((1, 2, 3))) for batch in batches]

    def loss_fn(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (net(batch[0])[:, 0] - batch[1]).square().mean()

    slim = prune(model, batches[0], labelled, loss_fn=loss_fn, flops_target=0.57)
    assert slim.a1.out_channels == 8
    assert slim.b1.out_channels == 1


def test_frozen_parameters_stay_frozen() -> None:
    model = redundant().requires_grad_(False)
    slim = prune(model, images()[0], images(), flops_target=0.7)
    assert not any(parameter.requires_grad for parameter in slim.parameters())


def test_values_that_are_not_finite_are_named() -> None:
    model = redundant()
    with pytest.raises(InputError, match="aren't finite"):
        prune(model, images()[0], [torch.full((2, 3, 8, 8), float("nan"))])


def test_no_images() -> None:
    with pytest.raises(InputError, match="no batches"):
        prune(redundant(), images()[0], [])


def test_batches_with_labels_are_told_of() -> None:
    pairs = [(batch, torch.zeros(len(batch), dtype=torch.long)) for batch in images()]
    with pytest.raises(InputError, match="leave labels out"):
        prune(redundant(), images()[0], pairs)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("count", [1, 3])
def test_a_few_images_are_enough_to_run(count: int, outputs: int) -> None:
    """Of one class there is one output, and of one image a single number: it has no deviation."""
    batches, model = [torch.randn(count, 3, 8, 8)], redundant()
    model[-1] = nn.Linear(6, outputs)
    slim = prune(model, batches[0], batches, flops_target=0.7)
    assert all(parameter.isfinite().all() for parameter in slim.parameters())


@pytest.mark.parametrize(
    "settings", [{"rounds": 0}, {"places": 0}, {"ridge": 0.0}, {"ridge": 1.5}, {"memory": 0.0}, {"held_out": 1.0}]
)
def test_wrong_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        RefitConfig(**settings)


@pytest.mark.slow
def test_a_target_that_cannot_be_reached() -> None:
    with pytest.raises(InputError, match="can't be reached"):
        prune(redundant(), images()[0], images(), include=("0",), flops_target=0.01)
