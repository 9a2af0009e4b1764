"""A run's report: what it says, and that it needs nothing beside it."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.run_report import write_report
from rr import InputError
from tests.forked import AMPLE

LAYER = {"macs_before": 4000, "macs_after": 2000, "stays": "a <reason>"}


def a_run(folder: Path, *, converted: bool = True, rows: bool = True) -> Path:
    """A run's folder, its last line torn by a kill."""
    folder.mkdir()
    (folder / "run.json").write_text(
        json.dumps({"recipe": {"arch": "<script>alert(1)</script>"}, "command": "python <script>", "resumed": [{}]})
    )
    records = [
        {
            "epoch": epoch,
            "val": {"top1": 90.0 + epoch / 100, "loss": 0.1},
            "scalars": {"MACs/remaining": 1 - epoch / 4, "width/<b>$\\frac{$\x07": 16.0 - epoch},
            **({"row_norms": {str(epoch): {"<b>$\\frac{$\x07": ("yMj/", "AQD/", "AAD/")[epoch]}}} if rows else {}),
        }
        for epoch in range(3)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + '{"epo')
    if converted:
        conversion = {
            "layers": [{"name": "<b>\x07", "width_before": 16, "width_after": 7, **LAYER}],
            **{"macs_before": 4000, "macs_after": 2000, "parameters_before": 300, "parameters_after": 100},
            **{"float64_difference": 2.5e-16, "cut_difference": 3e-5, "proven_at": ["1 x 3 x 8 x 8"]},
            "one_way_branches": ["<b>net.py:12 (8 > 500)"],
        }
        times = {"images": 64, "threads": 2, "layers": {"<b>\x07": [1.5, 0.625]}}
        result = {"conversion": conversion, "base": {"top1": 91.25}, "converted": {"top1": 90.5}, "times": times}
        (folder / "finish_converted.pt2").write_bytes(bytes(12345))
        (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.mark.slow
def test_the_page_has_the_figures_of_the_files_and_needs_nothing_beside_it(tmp_path: Path) -> None:
    path = write_report([a_run(tmp_path / "one")])
    assert path == tmp_path / "one" / "report.html"
    page = path.read_text()
    for words in (
        "91.25%",
        "90.50%",
        "4,000 → 2,000",
        "300 → 100",
        "33.3%",
        "2.5e-16",
        "3.0e-05",
        "a &lt;reason&gt;",
        "net.py:12",
    ):
        assert words in page
    for words in ("1.500", "0.625", "64 images", "2 thread", "finish_converted.pt2", "12,345", "python &lt;script"):
        assert words in page
    sources = re.findall(r'(?:src|href|srcset)="([^"]*)"', page)
    assert len(sources) == 9  # three curves and the forgetting, light and dark, and the page's icon
    assert all(source.startswith("data:") for source in sources)
    plots = sorted((tmp_path / "one" / "plots").iterdir())
    assert [plot.name for plot in plots] == ["forgetting.png", "loss.png", "macs.png", "top1.png"]
    assert all(base64.b64encode(plot.read_bytes()).decode() in page for plot in plots)


@pytest.mark.slow
def test_names_and_settings_are_text(tmp_path: Path) -> None:
    page = write_report([a_run(tmp_path / "one")]).read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "\x07" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.slow
def test_runs_are_set_side_by_side_and_unfinished_ones_have_what_there_is(tmp_path: Path) -> None:
    folders = [a_run(tmp_path / "one"), a_run(tmp_path / "two", converted=False, rows=False)]
    page = write_report(folders, tmp_path / "both.html").read_text()
    assert page.count("<tr><td>" + str(folders[0])) == page.count("<tr><td>" + str(folders[1])) == 1
    assert "not converted" in page
    assert page.count("<h2>Forgetting") == 2
    assert write_report(folders) == folders[0] / "comparison.html"
    assert not (folders[0] / "report.html").exists()  # the first one's own


def test_a_run_before_its_first_epoch_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"recipe": {}}')
    assert "not yet" in write_report([tmp_path]).read_text()


def test_what_is_no_run_and_what_is_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no run"):
        write_report([tmp_path])
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"is broken"):
        write_report([tmp_path])


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"jinja2: pip install .resrep\[report\]"):
        write_report([a_run(tmp_path / "one")])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [390, pytest.param(1280, marks=pytest.mark.long)])
def test_a_browser_shows_it_without_errors_or_sideways_scrolling(tmp_path: Path, width: int) -> None:
    page = write_report([a_run(tmp_path / "one")]).read_text()
    measure = "<script>console.log('scrollWidth', document.documentElement.scrollWidth)</script>"
    frame = tmp_path / "frame.html"  # a window of Chromium's is never as narrow as a phone, a frame is
    held = html.escape(page + measure)
    frame.write_text(f'<meta charset="utf-8"><iframe style="border:0" width="{width}" srcdoc="{held}"></iframe>')
    words = ["chromium", "--headless", "--no-sandbox", "--enable-logging=stderr", "--dump-dom", frame.as_uri()]
    said = subprocess.run(words, capture_output=True, text=True, timeout=AMPLE, check=True).stderr
    console = [line for line in said.splitlines() if "CONSOLE" in line]
    assert len(console) == 1, console
    assert int(re.search(r"scrollWidth (\d+)", console[0])[1]) <= width
