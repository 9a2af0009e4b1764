"""Networks in files: base, in training or converted; what comes back, and what is refused."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from base_model import build_model
from rr.compactors import find_compactors
from rr.conversion import convert
from rr.graph import LiveModel
from rr.weights import load_converted, load_network, read_weights, save_converted, save_hdf5, save_pth
from tests.rr.networks import Networks, insert_generic_compactors, random_alive

BUILD = partial(build_model, "src20", num_classes=10)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
