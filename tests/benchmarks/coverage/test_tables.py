"""The tables of coverage: families, series, networks, causes, and what is told of them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.coverage.tables import (
    CAUSE_HEAD,
    MODEL_HEAD,
    SERIES_HEAD,
    cause_rows,
    model_rows,
    page,
    random_table,
    series_rows,
    summary,
)
from tests.benchmarks.coverage.helpers import figures


def measured(**changes: Any) -> dict[str, Any]:
    """Figures of a model that was traced and proven, as the file has them, with changes."""
    traced = {
        "parameters": 1000,
        "kind": "cnn",
        "trace_cpu_seconds": 0.5,
        "layers": 10,
        "units": 1234,
        "prunable_units": 1000,
        "stays": [{"cause": "passes through pad in a layer", "units": 7, "example": "passes through pad in stem"}],
        "commit": "abc",
    }
    return figures(**{**traced, **changes})


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "models": {
            "torchvision/resnet18": measured(),
            "timm/resnet10t": measured(
                units=99,
                share_of_macs_that_can_go=0.25,
                float64_difference=3e-13,
                half={"macs_ratio": 0.75, "macs_ratio_counted": 0.75, "float64_difference": 0.0},
                stays=[
                    {"cause": "passes through pad in a layer", "units": 9, "example": "passes through pad in top"},
                    {"cause": "a channel of the output", "units": 1000, "example": "a channel of the output"},
                ],
            ),
            "torchvision/swin_t": measured(kind="transformer", trains="RuntimeError: no"),
            "torchvision/vit_h_14": {
                "parameters": 9,
                "kind": "transformer",
                "units": 5,
                "share_of_macs_that_can_go": 0.5,
                "not_run": "too | large",
            },
            "timm/dpn68": {"parameters": 8, "failed": "ValueError: no"},
        },
        "versions": {"torch": "2"},
        "hardware": {"cpu": "a CPU", "cores": 2},
        "threads": 1,
        "commit": "def",
    }


def test_series(results: dict[str, Any]) -> None:
    rows = series_rows(results["models"])
    assert {len(row) for row in rows} == {len(SERIES_HEAD)}
    assert rows == [
        ["DPN", "-", "1", "-", "-", "-", "-", "0 of 1"],
        ["ResNet", "CNN", "2", "99 to 1,234", "25.0% to 90.0%", "1 of 2", "3e-13", "2 of 2"],
        ["Swin", "attention", "1", "1,234", "90.0%", "1 of 1", "2e-15", "0 of 1"],
        ["ViT", "attention", "1", "5", "50.0%", "-", "-", "-"],
    ]


def test_networks(results: dict[str, Any]) -> None:
    rows = {row[0]: dict(zip(MODEL_HEAD, row, strict=True)) for row in model_rows(results["models"])}
    assert list(rows) == [
        "`timm/dpn68`",
        "`timm/resnet10t`",
        "`torchvision/resnet18`",
        "`torchvision/swin_t`",
        "`torchvision/vit_h_14`",
    ]
    missed = [row["bars missed"] for row in rows.values()]
    assert missed == ["failed", "reaches_half", "none", "trains", "not run"]
    assert rows["`timm/resnet10t`"]["MACs at the masks' half"] == "75.0%"
    assert rows["`timm/dpn68`"]["float64"] == "-"


def test_causes_are_added_up(results: dict[str, Any]) -> None:
    assert [dict(zip(CAUSE_HEAD, row, strict=True)) for row in cause_rows(results["models"])] == [
        {
            "units": "1,000",
            "networks": "1",
            "why they stay": "a channel of the output",
            "for example": "`timm/resnet10t`: a channel of the output",
        },
        {
            "units": "23",
            "networks": "3",
            "why they stay": "passes through pad in a layer",
            "for example": "`timm/resnet10t`: passes through pad in top",
        },
    ]


def totals(results: dict[str, Any]) -> list[str]:
    return [line for line in page(results).splitlines() if line.startswith("- ")]


def test_the_page_tells_kinds_apart_and_hides_no_failure(results: dict[str, Any]) -> None:
    lines = totals(results)
    assert lines[0].startswith("- 2 of 2 CNNs are proven: equal in float64 2 of 2,")
    assert lines[0].endswith("Largest difference in float64: 3e-13. Reach half of their MACs: 1 of 2.")
    assert lines[1].startswith("- 0 of 1 networks with attention are proven:")
    assert "trained for a step 0 of 1" in lines[1]
    assert "- `timm/dpn68` failed: ValueError: no" in lines
    assert "- `torchvision/vit_h_14` was not converted: too \\| large" in lines


def test_networks_of_which_nothing_can_go_show_nothing(results: dict[str, Any]) -> None:
    results["models"]["timm/resnet10t"]["dropped"] = 0
    assert totals(results)[0].startswith(
        "- 1 of 2 CNNs are proven (1 have no channel that could go, so nothing is shown of them):"
    )
    assert "can lose half of their MACs; 1 have no channel that can go." in summary(results)


def test_the_line_on_all_networks(results: dict[str, Any]) -> None:
    line = summary(results)
    assert line.startswith("4 classifiers were tried (1 more only traced: too large for that machine), a random half")
    assert "2 are proven, at most 3e-13 apart" in line
    assert "1 of them can lose half" in line
    del results["models"]["torchvision/vit_h_14"]
    assert summary(results).startswith("4 classifiers were tried, a random half")


def test_each_family_has_its_own_part_and_sentence(results: dict[str, Any]) -> None:
    classifiers_alone = page(results)
    assert "## Classifiers" in classifiers_alone
    assert "## Detection" not in classifiers_alone
    results["models"]["ultralytics/yolov8n"] = measured(family="detection", float64_difference=7e-12)
    results["models"]["own/unet_2d"] = {"family": "dense", "failed": "ValueError: no"}
    text = page(results)
    classifiers, detection = (
        text.partition("## Detection")[0],
        text.partition("## Detection")[2].partition("## Dense")[0],
    )
    assert classifiers.splitlines() == classifiers_alone.partition("## Which")[0].splitlines()
    assert "- 1 of 1 CNNs are proven: equal in float64 1 of 1" in detection
    assert "7e-12" in detection
    assert "`own/unet_2d` failed" not in detection
    assert "- `own/unet_2d` failed: ValueError: no" in text
    line = summary(results)
    assert line.startswith("4 classifiers were tried (1 more")
    assert "1 detectors were tried; 1 are proven, at most 7e-12 apart; 1 of them can lose half of their MACs." in line
    assert "1 networks with an output for each pixel were tried; 0 are proven" in line


def test_the_page_names_what_measured(results: dict[str, Any]) -> None:
    text = page(results)
    assert "on a CPU, 2 cores, 1 threads a network; torch 2; commit abc, def." in text
    assert text.count("\n| `") == 5


@pytest.mark.parametrize("failed", [False, True])
def test_random_networks_are_counted_and_a_failure_is_told(failed: bool) -> None:
    found = {
        "networks": 1200,
        "minutes": 30.4,
        "seeds": [0, 1000],
        "events": {"a conv|bn": 1100, "glu": 70},
        "hardware": {"cpu": "a CPU"},
        "versions": {"torch": "2.14"},
        "commit": "0123456789abcdef",
    }
    text = random_table(found | ({"failure": "E   assert"} if failed else {}))
    assert f"1,200 networks in 30 minutes. {'The run with seed 1000 failed' if failed else 'None failed'}." in text
    assert "| a conv\\|bn | 1,100 |\n| glu | 70 |" in text
    assert "a CPU, torch 2.14, commit 0123456789." in text


def test_each_machine_is_named(results: dict[str, Any]) -> None:
    results["models"]["timm/dpn68"]["cpu"] = "another CPU"
    assert "measured on a CPU and another CPU, 2 cores" in page(results)
