"""The report on a conversion."""

from __future__ import annotations

import io
import json
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rr import InputError
from rr.conversion import convert
from rr.conversion.widths_plot import width_figure
from rr.graph import ChannelGraph, LiveModel
from tests.rr.networks import conv, trained_tiny


def test_the_report_is_plain() -> None:
    model, graph, images, _ = trained_tiny()
    _, report = convert(LiveModel(model, graph), images)
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["widths"] == list(report.widths)
    assert plain["macs_ratio"] == report.macs_after / report.macs_before


def test_a_report_says_for_which_arguments_alone_a_proof_is() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = conv(1, 4), conv(4, 3)

        def forward(self, x: Tensor, mode: str | None = None) -> Tensor:
            x = self.a(x)
            return self.b(F.pad(x, (1, 1, 1, 1), value=1.0) if mode == "wide" else x)

    model, images = Padded(), torch.randn(2, 1, 6, 6)
    for inputs, words in (({"x": images, "mode": "wide"}, "; with mode='wide' alone"), ({"x": images}, "")):
        graph = ChannelGraph(model, inputs)
        _, report = convert(LiveModel(model, graph), inputs)
        assert str(report).endswith(words)
        assert (" alone" in str(report)) == bool(words)
        assert report.as_dict()["fixed_arguments"] == ["mode='wide'"] * bool(words)


def test_the_plot_has_each_layer_before_and_after() -> None:
    model, graph, images, _ = trained_tiny()
    _, report = convert(LiveModel(model, graph), images)
    (axes,) = report.plot().axes
    before, after = ([bar.get_width() for bar in bars] for bars in axes.containers)
    assert [label.get_text() for label in axes.get_yticklabels()] == [layer.name for layer in report.layers]
    assert before == [layer.width_before for layer in report.layers]
    assert after == [layer.width_after for layer in report.layers]
    assert sum(after) < sum(before)


def test_names_that_look_like_formulas_are_drawn_as_they_are() -> None:
    figure = width_figure(["$\\frac{$", "<b>"], [4, 4], [2, 4])
    figure.savefig(io.BytesIO(), format="png")  # a formula that isn't one would raise
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["$\\frac{$", "<b>"]


def test_a_plot_without_matplotlib_names_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install .resrep\[report\]"):
        width_figure(["conv"], [4], [2])
