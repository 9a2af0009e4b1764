"""Files of weights and of training state: what comes back, what is refused, and that nothing is half written."""

from __future__ import annotations

import argparse
import copy
import pickle
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from base_model import build_model
from rr.compactors import find_compactors
from rr.conversion import convert
from rr.graph import LiveModel
from rr.weights import (
    load_converted,
    load_network,
    load_start,
    load_strict,
    read_hdf5,
    read_pth,
    read_weights,
    save_converted,
    save_hdf5,
    save_pth,
)
from tests.rr.networks import Networks, insert_generic_compactors, random_alive


def small_model() -> nn.Sequential:
    """A conv, a batch norm with generic statistics and a linear layer."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    model(torch.randn(5, 3, 3, 3))
    return model


def test_hdf5_gives_back_what_was_saved(tmp_path: Path) -> None:
    state = small_model().state_dict()
    attributes = {"arch": "src20", "note": "Ä " * 100, "epochs": 480, "lr": 0.01, **{f"x{i}": i for i in range(20)}}
    save_hdf5(tmp_path / "new" / "a.hdf5", state, attributes)
    file = read_hdf5(tmp_path / "new" / "a.hdf5")
    assert file.kind == "base"
    assert file.deps is None
    assert file.attributes == attributes
    assert {type(value) for value in file.attributes.values()} == {str, int, float}
    assert list(file.arrays) == [name for name in state if not name.endswith("num_batches_tracked")]
    for name, array in file.arrays.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, state[name].numpy())


def test_hdf5_keeps_types_and_scalars(tmp_path: Path) -> None:
    arrays = {"a": np.float64(1.5), "b": torch.arange(3), "c": np.array([True, False]), "d": torch.zeros(0, 2)}
    save_hdf5(tmp_path / "a.hdf5", arrays, {})
    read = read_hdf5(tmp_path / "a.hdf5").arrays
    assert {name: (str(array.dtype), array.shape) for name, array in read.items()} == {
        "a": ("float64", ()),
        "b": ("int64", (3,)),
        "c": ("bool", (2,)),
        "d": ("float32", (0, 2)),
    }


def test_kinds_and_deps(tmp_path: Path) -> None:
    array = np.ones(2)
    save_hdf5(tmp_path / "training.hdf5", {"conv1.compactor.pwc.weight": array}, {})
    save_hdf5(tmp_path / "converted.hdf5", {"conv1.conv.weight": array}, {}, deps=[64, 3, 2])
    assert read_hdf5(tmp_path / "training.hdf5").kind == "training"
    file = read_hdf5(tmp_path / "converted.hdf5")
    assert (file.kind, file.deps, list(file.arrays)) == ("converted", [64, 3, 2], ["conv1.conv.weight"])
    with h5py.File(tmp_path / "converted.hdf5") as raw:
        assert raw["deps"].dtype == np.int64
        assert all(isinstance(raw[name], h5py.Dataset) for name in raw)


@pytest.mark.parametrize("name", ["a/b", "deps"])
def test_hdf5_refuses_names_of_its_own(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=name):
        save_hdf5(tmp_path / "a.hdf5", {name: np.ones(2)}, {})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    hdf5, pth = tmp_path / "a.hdf5", tmp_path / "a.pth"
    save_hdf5(hdf5, {"a": np.ones(2)}, {})
    save_pth(pth, {"a": 1})
    with pytest.raises(TypeError):
        save_hdf5(hdf5, {"a": np.zeros(2), "b": np.array([object()])}, {})
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_pth(pth, {"a": lambda: 0})
    assert read_hdf5(hdf5).arrays["a"].tolist() == [1, 1]
    assert read_pth(pth) == {"a": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "a.pth"]


def test_missing_and_truncated_files(tmp_path: Path) -> None:
    for read in (read_hdf5, read_pth):
        with pytest.raises(ValueError, match="there is no file"):
            read(tmp_path / "none")
        with pytest.raises(ValueError, match="there is no file"):
            read(tmp_path)
    save_hdf5(tmp_path / "whole.hdf5", small_model().state_dict(), {"arch": "src20"})
    save_pth(tmp_path / "whole.pth", small_model().state_dict())
    broken = tmp_path / "broken"
    for name, read in (("whole.hdf5", read_hdf5), ("whole.pth", read_pth)):
        whole = (tmp_path / name).read_bytes()
        for size in (0, 1, 7, 100, *range(200, len(whole), 331), len(whole) - 1):
            broken.write_bytes(whole[:size])
            with pytest.raises(ValueError, match="isn't a whole"):
                read(broken)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("group/array", np.ones(2), "isn't an array of numbers"),
        ("text", "hello", "isn't an array of numbers"),
        ("deps", np.ones(2), "whole numbers"),
        ("deps", 3, "whole numbers"),
    ],
)
def test_other_hdf5_files_are_refused(name: str, value: object, message: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file[name] = value
    with pytest.raises(ValueError, match=message):
        read_hdf5(tmp_path / "a.hdf5")


def test_pth_gives_back_what_was_saved(tmp_path: Path) -> None:
    payload = {"epoch": 3, "state": {"a": torch.arange(3.0)}, "losses": [0.5, None], "name": "src20"}
    save_pth(tmp_path / "new" / "a.pth", payload)
    read = read_pth(tmp_path / "new" / "a.pth")
    assert read.pop("state")["a"].tolist() == [0, 1, 2]
    assert read == {"epoch": 3, "losses": [0.5, None], "name": "src20"}


def test_pth_executes_nothing(tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"a": Call()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="plain values"):
        read_pth(tmp_path / "a.pth")
    assert not (tmp_path / "executed").exists()


def test_load_strict_loads_all(tmp_path: Path) -> None:
    source, target = small_model(), small_model().double()
    save_hdf5(tmp_path / "a.hdf5", source.state_dict(), {})
    target[1].num_batches_tracked.fill_(7)
    load_strict(target, read_hdf5(tmp_path / "a.hdf5").arrays, "a.hdf5")
    for name, tensor in target.state_dict().items():
        expected = torch.tensor(7) if name.endswith("num_batches_tracked") else source.state_dict()[name]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0, check_dtype=False)
    assert target[0].weight.dtype == torch.float64
    load_strict(target, source.state_dict(), "a state dict")
    assert target[1].num_batches_tracked == 7


def test_load_strict_loads_nothing_if_anything_does_not_fit() -> None:
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    arrays = {name: np.zeros(tensor.shape, np.float32) for name, tensor in before.items()}
    del arrays["1.running_var"]
    arrays["3.weight"] = np.zeros((2, 5), np.float32)
    arrays |= {f"extra{index}": np.zeros(1) for index in range(8)}
    with pytest.raises(ValueError, match=r"^my\.hdf5 ") as error:
        load_strict(model, arrays, "my.hdf5")
    message = str(error.value)
    assert "1 missing (1.running_var)" in message
    assert "8 unknown to the model (extra0, extra1, extra2, extra3, extra4, ...)" in message
    assert "1 of another shape (3.weight [2, 5] for [2, 4])" in message
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


BUILD = partial(build_model, "src20", num_classes=10)


def test_every_kind_of_network_comes_back(traced: Networks, tmp_path: Path) -> None:
    plain, images, graph = traced["src20"]
    trained = copy.deepcopy(plain)
    selected = graph.select("all")
    compactors = insert_generic_compactors(trained, graph, selected, random_alive(graph, selected, 0.5))
    next(iter(compactors.values())).mask[3] = 0
    slim, report = convert(LiveModel(trained, graph), images)
    attributes = {"arch": "src20", "num_classes": 10}
    save_hdf5(tmp_path / "base.hdf5", plain.state_dict(), attributes)
    save_hdf5(tmp_path / "training.hdf5", trained.state_dict(), attributes)
    save_converted(tmp_path / "new" / "converted.hdf5", slim, attributes)
    for path, kind, original in (
        ("base.hdf5", "base", plain),
        ("training.hdf5", "training", trained),
        ("new/converted.hdf5", "converted", slim),
        ("new/converted.pth", "converted", slim),
    ):
        model, file = load_network(tmp_path / path, BUILD)
        assert (file.kind, file.attributes) == (kind, attributes)
        assert file.deps == (list(report.widths) if kind == "converted" else None)
        assert list(find_compactors(model)) == (list(compactors) if kind == "training" else [])
        for name, tensor in original.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(model.state_dict()[name], tensor)
        with torch.no_grad():
            assert torch.equal(model.eval()(images), original.eval()(images))


def test_a_converted_network_comes_back_without_this_projects_scripts(traced: Networks, tmp_path: Path) -> None:
    plain, images, graph = traced["src20"]
    trained = copy.deepcopy(plain)
    insert_generic_compactors(trained, graph, graph.prunable, random_alive(graph, graph.prunable, 0.5))
    slim, _ = convert(LiveModel(trained, graph), images)
    save_converted(tmp_path / "a.hdf5", slim)
    torch.save(slim.state_dict(), tmp_path / "state.pt")
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    for name in ("a.hdf5", "a.pth", "state.pt"):
        for full in (build_model("src20", num_classes=10).train(), trained):
            loaded = load_converted(tmp_path / name, full)
            assert not loaded.training
            assert not find_compactors(loaded)
            with torch.no_grad():
                assert torch.equal(loaded(images), slim(images))
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    save_hdf5(tmp_path / "training.hdf5", trained.state_dict(), {})
    with pytest.raises(ValueError, match="convert it first"):
        load_converted(tmp_path / "training.hdf5", plain)
    with pytest.raises(ValueError, match="doesn't fit the model"):
        load_converted(tmp_path / "a.hdf5", build_model("src32", num_classes=10))


def written(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A state dict in the format and the wrapping that the file's name asks for."""
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}
    rounded = {name: tensor.bfloat16() for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    elif path.suffix == ".hdf5":
        save_hdf5(path, {"wrapped": wrapped, "bfloat16": rounded}.get(path.stem, state), {})
    else:
        payloads = {
            "plain": state,
            "state_dict": {"state_dict": state, "epoch": 3},
            "model": {"model": state, "args": argparse.Namespace(lr=0.1, name="resnet")},
            "wrapped": {"state_dict": wrapped},
            "bfloat16": rounded,
        }
        torch.save(payloads[path.stem], path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("plain.pth", "plain.pt", "state_dict.pth", "model.pth", "wrapped.pth", "bfloat16.pth"),
        *("plain.safetensors", "plain.hdf5", "wrapped.hdf5", "bfloat16.hdf5"),
    ],
)
def test_checkpoints_of_others_are_read(name: str, tmp_path: Path) -> None:
    source, target = small_model(), small_model()
    arrays = read_weights(written(tmp_path / name, source.state_dict())).arrays
    assert load_start(target, arrays, name, num_classes=2) == []
    for key, tensor in source.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            expected = tensor.bfloat16().float() if name.startswith("bfloat16") else tensor
            assert torch.equal(target.state_dict()[key], expected), key


def test_a_network_whose_own_names_begin_as_a_wrappers_do(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.ModuleDict({"module": small_model()})

    source = build()
    torch.save(source.state_dict(), tmp_path / "a.pth")
    loaded, _ = load_network(tmp_path / "a.pth", build)
    assert torch.equal(loaded["module"][0].weight, source["module"][0].weight)
    wrapped = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    with pytest.raises(ValueError, match=r"unknown to the model \(module\.module\."):
        load_strict(build(), wrapped, "wrapped twice")


@pytest.mark.parametrize("payload", [{}, {"state_dict": {"a": 1}}, {"a": torch.ones(1), "b": 2}, 3])
def test_what_holds_no_state_dict_is_refused(payload: object, tmp_path: Path) -> None:
    torch.save(payload, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds no weights: save a state dict"):
        read_weights(tmp_path / "a.pth")


def test_a_broken_safetensors_file(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"isn't a whole \.safetensors file"):
        read_weights(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="there is no file"):
        read_weights(tmp_path / "none.safetensors")


def test_a_classifier_of_another_size_is_left_out_only_where_asked() -> None:
    source, target = small_model(), small_model()
    source[3] = nn.Linear(4, 7)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"a\.pth has 7 classes, the data has 2: .*--new-classifier.*3\.weight, 3\.bias"
    ):
        load_start(target, source.state_dict(), "a.pth", num_classes=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())
    assert load_start(target, source.state_dict(), "a.pth", 2, new_classifier=True) == ["3.weight", "3.bias"]
    assert torch.equal(target[3].weight, before["3.weight"])
    assert torch.equal(target[0].weight, source[0].weight)
    source[0] = nn.Conv2d(3, 5, 3)  # no classifier: strict all the same
    with pytest.raises(ValueError, match=r"2 of another shape \(0\.weight"):
        load_start(small_model(), source.state_dict(), "a.pth", 2, new_classifier=True)
    with pytest.raises(ValueError, match=r"1 missing \(1\.running_var\)"):
        load_start(
            small_model(), {n: t for n, t in before.items() if n != "1.running_var"}, "a.pth", 2, new_classifier=True
        )


def test_a_converted_file_has_the_originals_names(traced: Networks, tmp_path: Path) -> None:
    plain, images, graph = traced["src20"]
    slim, report = convert(LiveModel(plain, graph), images)
    save_converted(tmp_path / "a.hdf5", slim)
    with h5py.File(tmp_path / "a.hdf5") as file:
        convolutions = [name for name in file if name.endswith(".conv.weight")]
        expected = {"deps", "linear.weight", "linear.bias", *convolutions}
        expected |= {name.replace("weight", "bias") for name in convolutions}
        assert set(file) == expected
        assert file["deps"].dtype == np.int64
        assert file["deps"][()].tolist() == list(report.widths)
        assert len(convolutions) == len(report.widths)
    payload = torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(payload) == ["state_dict", "deps", "attributes"]


def test_networks_of_other_models_are_refused(traced: Networks, tmp_path: Path) -> None:
    plain, images, graph = traced["src20"]
    slim, _ = convert(LiveModel(plain, graph), images)
    save_hdf5(tmp_path / "base.hdf5", plain.state_dict(), {})
    save_converted(tmp_path / "converted.hdf5", slim)
    save_pth(tmp_path / "other.pth", {"epoch": 3})
    save_pth(tmp_path / "list.pth", [1, 2])
    other = partial(build_model, "src32", num_classes=10)
    with pytest.raises(ValueError, match=r"base\.hdf5 doesn't fit the model: \d+ missing"):
        load_network(tmp_path / "base.hdf5", other)
    with pytest.raises(ValueError, match=r"converted\.hdf5 doesn't fit the model: \d+ missing"):
        load_network(tmp_path / "converted.hdf5", other)
    for name in ("other.pth", "list.pth"):
        with pytest.raises(ValueError, match="holds no weights"):
            load_network(tmp_path / name, BUILD)
    for name in ("none.pth", "none.hdf5"):
        with pytest.raises(ValueError, match="there is no file"):
            read_weights(tmp_path / name)


def test_a_training_file_for_other_places_is_refused(traced: Networks, tmp_path: Path) -> None:
    arrays = {name: tensor for name, tensor in traced["src20"][0].state_dict().items() if "stage1" not in name}
    arrays["stage9.conv.compactor.pwc.weight"] = torch.ones(4, 4, 1, 1)
    save_hdf5(tmp_path / "a.hdf5", arrays, {})
    with pytest.raises(ValueError, match="stage9"):
        load_network(tmp_path / "a.hdf5", BUILD)
    arrays = {**traced["src20"][0].state_dict(), "stage1.conv1.compactor.pwc.weight": torch.ones(4, 4, 1, 1)}
    save_hdf5(tmp_path / "b.hdf5", arrays, {})
    with pytest.raises(ValueError, match=r"1 missing \(stage1\.conv1\.compactor\.mask\)"):
        load_network(tmp_path / "b.hdf5", BUILD)
