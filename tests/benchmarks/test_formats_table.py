"""The table of formats: each cell from its own figure, and what isn't equal is marked."""

from __future__ import annotations

from typing import Any

from benchmarks.formats_table import FORMATS, PACKAGES, formats_table


def figures(difference: float, is_equal: bool = True) -> dict[str, Any]:
    return {"difference": difference, "is_equal": is_equal, "outputs": [{"own_error": 2e-7}, {"own_error": 3e-7}]}


def test_each_cell_is_its_formats_figure() -> None:
    formats = {form: figures(place * 1e-7) for place, form in enumerate(FORMATS, start=1)}
    formats["onnx"] = figures(0.5, is_equal=False)
    results = {
        "networks": {"src56": {"macs_ratio": 0.5, "any_size": False, "image_size": 32, "formats": formats}},
        "versions": {package: f"{package}'s" for package in PACKAGES},
        "hardware": {"cpu": "a CPU"},
        "commit": "0123456789abcdef",
    }
    row, made = formats_table(results).splitlines()[2], formats_table(results).splitlines()[-1]
    assert row == "| `src56` | 50.0% | 32 alone | 3.0e-07 | 1.0e-07 | 2.0e-07 | 5.0e-01 (NOT equal) | 4.0e-07 |"
    assert "a CPU" in made
    assert "openvino openvino's" in made
    assert "0123456789" in made
