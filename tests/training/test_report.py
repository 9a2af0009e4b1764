"""The comparison of base and pruned: MACs against known counts, and a table that holds the figures."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from base_model import build_model
from training import Evaluation, compare, count_macs


@pytest.mark.parametrize(("arch", "macs"), [("src20", 40_813_184), ("src56", 125_747_840)])
def test_macs_of_known_networks(arch: str, macs: int) -> None:
    model = build_model(arch)
    model.train()
    assert count_macs(model, torch.zeros(2, 3, 32, 32)) == macs
    assert model.training


def test_macs_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, padding=1), nn.Flatten(), nn.Linear(8 * 25, 3))
    assert count_macs(model, torch.zeros(3, 4, 5, 5)) == 25 * 8 * 2 * 9 + 200 * 3


def test_comparison(tmp_path: Path) -> None:
    def network(width: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, width, 3), nn.Flatten(), nn.Linear(width * 36, 4))

    base, pruned = network(8), network(2)
    (tmp_path / "pruned.hdf5").write_bytes(b"x" * 1234)
    found = compare(
        base,
        pruned,
        (3, 8, 8),
        folded_base=base,
        base_val=Evaluation(93.5, 99.0, 0.25, 100),
        pruned_val=Evaluation(93.25, 99.0, 0.2538, 100),
        pruned_file=tmp_path / "pruned.hdf5",
        batch_sizes=(1, 4),
        rounds=3,
        threads=(1, 2),
    )
    assert set(found.base.threads.values()) <= {1, 2}
    assert (found.base.macs, found.pruned.macs) == tuple(36 * w * 27 + w * 36 * 4 for w in (8, 2))
    assert (found.base.parameters, found.pruned.parameters) == tuple(w * 28 + w * 144 + 4 for w in (8, 2))
    assert found.pruned.bytes_on_disk == 1234
    assert found.base.bytes_on_disk > 4 * found.base.parameters
    assert set(found.speed_up) == set(found.base.ms_per_image) == {1, 4}
    assert min(found.base.ms_per_image.values()) > 0
    table = found.table()
    for words in (
        ("top-1 %", "93.50", "93.25", "-0.25"),
        ("loss", "0.2500", "0.2538", "+0.0038"),
        ("MACs", "8,928", "2,232", "-75.0%"),
        ("batch 4", "faster"),
    ):
        (line,) = [line for line in table.splitlines() if words[0] in line]
        assert all(word in line for word in words), line
    assert json.loads(json.dumps(found.to_dict()))["base"]["val"]["top1"] == 93.5
