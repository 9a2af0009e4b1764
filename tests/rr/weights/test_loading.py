"""Loading into a model: all or nothing, and a classifier of another size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rr.weights import load_start, load_strict, read_hdf5, save_hdf5
from tests.rr.networks import small_model


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
