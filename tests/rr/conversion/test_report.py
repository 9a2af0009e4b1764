"""The report on a conversion."""

from __future__ import annotations

import io
import json
import sys

import pytest

from rr import InputError
from rr.conversion import convert
from rr.conversion.widths_plot import width_figure
from rr.graph import LiveModel
from tests.rr.networks import trained_tiny


def test_the_report_is_plain() -> None:
    model, graph, images, _ = trained_tiny()
    _, report = convert(LiveModel(model, graph), images)
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["widths"] == list(report.widths)
    assert plain["macs_ratio"] == report.macs_after / report.macs_before


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
