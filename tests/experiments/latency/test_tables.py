"""What is written of the times: each figure in its column."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from experiments.latency.layers import LayerTimes, Run
from experiments.latency.tables import (
    Counted,
    Measured,
    as_csv,
    described,
    described_layers,
    figure_of,
    layer_rows,
    rows_of,
)
from rr.latency.rounds import Spread
from rr.latency.settings import Timing

BASE = Counted("base.hdf5", nn.Identity(), None, 2_000_000, 4000)
PRUNED = Counted("pruned.hdf5", nn.Identity(), None, 1_000_000, 1000)
FOUND = [
    Measured(
        Timing("eager", "float32", 2, 16),
        Spread(0.008, 0.007, 0.009),
        Spread(0.005, 0.004, 0.006),
        Spread(1.6, 1.5, 1.7),
    )
]


def test_the_csv_has_timms_columns_and_the_share_of_the_promise() -> None:
    base, pruned = csv.DictReader(as_csv(rows_of(FOUND, BASE, PRUNED, 32)).splitlines())
    assert (base["model"], pruned["model"]) == ("base.hdf5", "pruned.hdf5")
    assert float(base["infer_step_time"]) == 8  # ms
    assert float(pruned["infer_samples_per_sec"]) == pytest.approx(16 / 0.005)
    assert (pruned["infer_batch_size"], pruned["infer_img_size"], pruned["threads"]) == ("16", "32", "2")
    assert float(pruned["infer_gmacs"]) == 0.001
    assert float(pruned["param_count"]) == 0.001
    assert (base["times_faster"], float(pruned["times_faster"])) == ("", 1.6)
    assert float(pruned["share_of_promise"]) == pytest.approx(0.8)
    assert "8.000 -> 5.000" in described(FOUND, BASE, PRUNED)
    assert "80%" in described(FOUND, BASE, PRUNED)


def test_layers_are_named_by_the_time_that_they_lose() -> None:
    conv, images = nn.Conv2d(4, 4, 3), torch.Size([1, 4, 5, 5])
    full = Run(conv, images, 1e6, 0.004)
    layers = [
        LayerTimes("fair", full, Run(conv, images, 5e5, 0.002)),
        LayerTimes("slow", full, Run(conv, images, 5e5, 0.004), "makes: 4->3 as 4->8 takes 70% of the time"),
        LayerTimes("gone", full, None),
    ]
    fair, slow, gone = csv.DictReader(as_csv(layer_rows(layers)).splitlines())
    assert (fair["share_of_promise"], slow["share_of_promise"], gone["share_of_promise"]) == ("1.0", "0.5", "")
    assert (gone["pruned_widths"], gone["pruned_ms"]) == ("gone", "0")
    assert slow["slow"].startswith("makes")
    text = described_layers(layers)
    assert "slow: 4->4 to 4->4, 2.00 times fewer MACs, 1.00 times faster; makes: 4->3" in text
    assert "fair" not in text


def test_the_plot_has_a_bar_for_each_setting_and_the_promise() -> None:
    (axes,) = figure_of(FOUND, 2.0).axes
    assert [bar.get_width() for bar in axes.patches] == [1.6]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["eager, float32, 2 threads, batch 16"]
    assert 2.0 in [line.get_xdata()[0] for line in axes.lines]
