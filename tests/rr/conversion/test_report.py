"""The report on a conversion."""

from __future__ import annotations

import json

from rr.conversion import convert
from rr.graph import LiveModel
from tests.rr.networks import trained_tiny


def test_the_report_is_plain() -> None:
    model, graph, images, _ = trained_tiny()
    _, report = convert(LiveModel(model, graph), images)
    plain = json.loads(json.dumps(report.as_dict()))
    assert plain["widths"] == list(report.widths)
    assert plain["macs_ratio"] == report.macs_after / report.macs_before
