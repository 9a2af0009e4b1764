"""Compactors in a model: nothing changes when they come, and their own checkpoints stay strict."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from base_model import build_model
from rr.compactors import Compactor, compactors_bypassed, find_compactors, insert_compactors, remove_compactors
from tests.rr.networks import Net, conv, generic, head, tiny

HOSTS = {"1": 6, "4": 8}


def with_compactors(seed: int = 0) -> nn.Sequential:
    """The tiny network with compactors that are no identity."""
    torch.manual_seed(seed)
    model = generic(tiny())
    for compactor in insert_compactors(model, HOSTS).values():
        nn.init.normal_(compactor.pwc.weight)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_insertion_changes_no_bit_of_the_output_and_no_name(training: bool) -> None:
    torch.manual_seed(0)
    model = generic(build_model("src20")).train(training)
    names = list(model.state_dict())
    images = torch.randn(3, 3, 32, 32)
    expected = copy.deepcopy(model)(images)
    hosts = {name: module.conv.out_channels for name, module in model.named_modules() if hasattr(module, "conv")}
    compactors = insert_compactors(model, hosts)
    assert list(compactors) == list(hosts)
    assert compactors == find_compactors(model)
    assert torch.equal(model(images), expected)
    added = [f"{host}.compactor.{part}" for host in hosts for part in ("mask", "pwc.weight")]
    assert sorted(model.state_dict()) == sorted([*names, *added])
    assert [name for name in model.state_dict() if name not in added] == names


def test_a_compactor_multiplies_the_channels_by_its_matrix() -> None:
    compactor = Compactor(4)
    nn.init.normal_(compactor.pwc.weight)
    x = torch.randn(2, 4, 3, 5)
    torch.testing.assert_close(compactor(x), torch.einsum("ij,njhw->nihw", compactor.matrix, x))


@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (2, 6, 3, 5), (2, 6, 2, 3, 5)])
def test_block_diagonal_and_diagonal_compactors_mix_channels_of_a_group(groups: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    compactor = Compactor(6, groups=groups)
    x = torch.randn(shape)
    torch.testing.assert_close(compactor(x), x)
    nn.init.normal_(compactor.pwc.weight)
    dense = torch.block_diag(*compactor.matrix.view(groups, 6 // groups, 6 // groups))
    torch.testing.assert_close(compactor(x), torch.einsum("ij,nj...->ni...", dense, x))


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 6), (2, 3, 5, 6)])
def test_a_diagonal_compactor_behind_a_linear_layer(shape: tuple[int, ...]) -> None:
    compactor = Compactor(6, channel_dim=-1, groups=6)
    nn.init.normal_(compactor.pwc.weight)
    x = torch.randn(shape)
    torch.testing.assert_close(compactor(x), x @ torch.diag(compactor.matrix[:, 0]))


@pytest.mark.parametrize(
    ("host", "shape"),
    [
        (nn.Linear(5, 4), (2, 5)),
        (nn.Linear(5, 4), (2, 3, 5)),
        (nn.Linear(5, 4), (2, 4, 4, 5)),  # [N, H, W, C] with as many rows as channels
        (nn.Conv1d(5, 4, 1), (2, 5, 4)),  # [N, C, L] as long as wide
        (nn.Conv2d(5, 4, 1), (2, 5, 4, 4)),
        (nn.Conv3d(5, 4, 1), (2, 5, 3, 4, 4)),
        (nn.BatchNorm1d(4), (3, 4)),
        (nn.BatchNorm2d(4, affine=False), (3, 4, 4, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else f"{len(value)}d",
)
def test_compactors_act_on_the_channels_of_their_host(host: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    channel_dim = -1 if isinstance(host, nn.Linear) else 1
    model = nn.Sequential(host, nn.Linear(shape[-1] if channel_dim == 1 else 4, 2))
    x = torch.randn(shape)
    before, behind_host = model(x), host(x)
    compactor = insert_compactors(model, {"0": 4})["0"]
    assert torch.equal(model(x), before)
    nn.init.normal_(compactor.pwc.weight)
    expected = (behind_host.movedim(channel_dim, -1) @ compactor.matrix.T).movedim(-1, channel_dim)
    torch.testing.assert_close(model[0](x), expected)


def test_plain_checkpoints_load_strictly_before_and_after() -> None:
    plain = generic(tiny())
    checkpoint = plain.state_dict()
    names = list(checkpoint)
    model = with_compactors()
    find_compactors(model)["1"].mask.zero_()
    model.load_state_dict(checkpoint)
    assert list(checkpoint) == names
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(model.eval()(images), plain.eval()(images))
    assert all(compactor.mask.eq(1).all() for compactor in find_compactors(model).values())
    trained = model.state_dict()
    remove_compactors(model)
    model.load_state_dict(checkpoint)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*compactor"):
        model.load_state_dict(trained)


def test_plain_checkpoints_load_in_a_wrapped_model() -> None:
    plain, model = generic(tiny()), with_compactors()
    wrapper = nn.ModuleDict({"module": model})
    wrapper.load_state_dict({f"module.{name}": tensor for name, tensor in plain.state_dict().items()})
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(model.eval()(images), plain.eval()(images))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_plain_checkpoints_make_compactors_of_any_groups_the_identity(groups: int) -> None:
    plain, model = generic(tiny()).eval(), tiny().eval()
    compactor = insert_compactors(model, {"1": 6}, {"1": groups})["1"]
    nn.init.normal_(compactor.pwc.weight)
    model.load_state_dict(plain.state_dict())
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(model(images), plain(images))


def test_checkpoints_with_compactors_stay_strict() -> None:
    source, target = with_compactors(), with_compactors(seed=1)
    target.load_state_dict(source.state_dict())
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(target.eval()(images), source.eval()(images))
    for lost in ("4.compactor.pwc.weight", "4.compactor.mask", "0.weight"):
        checkpoint = {name: tensor for name, tensor in source.state_dict().items() if name != lost}
        with pytest.raises(RuntimeError, match=rf"Missing key.*{lost}"):
            target.load_state_dict(checkpoint)
    checkpoint = {name: tensor for name, tensor in generic(tiny()).state_dict().items() if name != "0.weight"}
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.weight"):
        target.load_state_dict(checkpoint)


def test_removal_leaves_the_plain_model() -> None:
    model = with_compactors()
    plain = tiny()
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if "compactor" not in name})
    remove_compactors(model)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(model.eval()(images), plain.eval()(images))
    assert not find_compactors(model)
    assert not any(module._forward_hooks for module in model.modules())
    assert not model._load_state_dict_pre_hooks
    insert_compactors(model, HOSTS)  # and again
    assert torch.equal(model(images), plain(images))
    assert sum(len(module._forward_hooks) for module in model.modules()) == len(HOSTS)


def test_removal_keeps_the_users_hooks() -> None:
    model, seen = with_compactors(), []
    model[1].register_forward_hook(lambda *_: seen.append(True))
    remove_compactors(model)
    model(torch.randn(2, 1, 8, 8))
    assert seen == [True]


def test_bypassed_compactors_do_nothing() -> None:
    model = with_compactors().eval()
    images = torch.randn(2, 1, 8, 8)
    behind = model(images)
    plain = copy.deepcopy(model)
    remove_compactors(plain)
    with compactors_bypassed(model):
        assert torch.equal(model(images), plain(images))
    assert torch.equal(model(images), behind)
    assert not torch.allclose(behind, plain(images))


def test_one_that_was_bypassed_before_stays_so() -> None:
    """A retired compactor in a model that is traced once more."""
    model = with_compactors()
    retired, other = find_compactors(model).values()
    retired.bypassed = True
    with compactors_bypassed(model):
        assert other.bypassed
    assert retired.bypassed
    assert not other.bypassed


def test_double_insertion_and_unknown_hosts_are_refused() -> None:
    model = with_compactors()
    with pytest.raises(ValueError, match="'4' has a compactor already"):
        insert_compactors(model, {"0": 6, "4": 8})
    with pytest.raises(ValueError, match="no module 'conv9'"):
        insert_compactors(model, {"0": 6, "conv9": 8})
    assert list(find_compactors(model)) == list(HOSTS)  # all or nothing


def test_a_deep_copy_is_independent() -> None:
    model = with_compactors().eval()
    images = torch.randn(2, 1, 8, 8)
    expected = model(images)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(images), expected)
    twin.load_state_dict(generic(tiny()).state_dict())  # its hook for plain checkpoints acts on itself
    assert torch.equal(model(images), expected)
    assert not torch.equal(find_compactors(model)["1"].matrix, torch.eye(6))
    assert torch.equal(find_compactors(twin)["1"].matrix, torch.eye(6))
    with torch.no_grad():
        find_compactors(twin)["1"].pwc.weight.zero_()
    assert torch.equal(model(images), expected)
    remove_compactors(twin)
    assert torch.equal(model(images), expected)


def test_compactors_take_their_hosts_type() -> None:
    model = tiny().double()
    compactors = insert_compactors(model, HOSTS)
    assert {tensor.dtype for compactor in compactors.values() for tensor in compactor.state_dict().values()} == {
        torch.float64
    }
    assert model(torch.randn(2, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_a_host_of_two_modules_is_acted_on_behind_both() -> None:
    torch.manual_seed(0)
    block = Net(lambda net, x: net.bn(net.conv(x)), conv=conv(3, 4), bn=nn.BatchNorm2d(4))
    model = generic(Net(lambda net, x: head(net, F.relu(net.block(x))), block=block, fc=nn.Linear(4, 2))).eval()
    images = torch.randn(2, 3, 5, 5)
    behind = block(images)
    compactor = insert_compactors(model, {"block": 4})["block"]
    nn.init.normal_(compactor.pwc.weight)
    torch.testing.assert_close(block(images), compactor.pwc(behind))


@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 5), (3, 6, 4, 5), (3, 6, 2, 4, 5)])
def test_a_narrowed_one_has_fewer_rows_than_columns(shape: tuple[int, ...]) -> None:
    compactor = Compactor(6)
    compactor.pwc.weight.data = torch.randn(4, 6, 1, 1)
    x = torch.randn(shape)
    expected = torch.einsum("ij,nj...->ni...", compactor.matrix, x)
    torch.testing.assert_close(compactor(x), expected)


@pytest.mark.parametrize("groups", [1, 6])
def test_a_single_image_without_a_batch(groups: int) -> None:
    """[C, H, W] behind a 2-D convolution is not [N, C, L]."""
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1))
    compactor = insert_compactors(model, {"0": 6}, {"0": groups})["0"]
    nn.init.normal_(compactor.pwc.weight)
    image = torch.randn(3, 6, 6)
    torch.testing.assert_close(model(image), model(image[None])[0])
