"""Every example, run in a process of its own, and held to what it promises."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import forked

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SHARED = "digits"  # no example, but what they train
TARGET = 0.5  # of the MACs, in every example
ONE_ROW = 0.05  # of the MACs, at most, that the next row would have taken


@dataclass(frozen=True)
class Output:
    """What an example printed."""

    text: str

    def numbers(self, pattern: str) -> list[float]:
        """The groups of the one place that fits the pattern, as numbers."""
        (found,) = re.findall(pattern, self.text)
        return [float(item.replace(",", "")) for item in ([found] if isinstance(found, str) else found)]

    @property
    def accuracies(self) -> list[float]:
        """Before, with compactors, pruned; in percent."""
        return self.numbers(r"accuracy: ([\d.]+)% before, ([\d.]+)% with compactors, ([\d.]+)% pruned")

    @property
    def ratio(self) -> float:
        """MACs that are left."""
        before, after, ratio = self.numbers(r"MACs: ([\d,]+) before, ([\d,]+) pruned, ratio ([\d.]+)")
        assert ratio == pytest.approx(after / before, abs=1e-4)
        return ratio

    @property
    def epochs(self) -> list[str]:
        """The lines of the epochs."""
        return [line for line in self.text.splitlines() if line.startswith("epoch")]

    def check_equal(self) -> None:
        """The narrow network is the one with compactors."""
        float64, float32 = self.numbers(r"difference: ([\d.e+-]+) in float64, ([\d.e+-]+) in float32")
        assert 0 < float64 <= 1e-10
        assert 0 < float32 <= 1e-5
        assert self.accuracies[1] == self.accuracies[2]

    def check_pruned(self) -> None:
        """The target is met, not far surpassed, and the digits are still known."""
        self.check_equal()
        assert TARGET - ONE_ROW < self.ratio <= TARGET
        assert self.accuracies[2] >= self.accuracies[0] - 1 > 90


@functools.cache
def run(name: str, *options: str | int) -> Output:
    """`python -m examples.NAME OPTIONS`; run once for the same options."""
    done = forked.run("-m", f"examples.{name}", *options, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return Output(done.stdout + done.stderr)


@functools.cache
def command(*words: str, folder: Path = ROOT) -> Output:
    """A command line, with nothing prepared; run once."""
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=forked.AMPLE)
    assert done.returncode == 0, done.stderr
    return Output(done.stdout)


def plain() -> Output:
    """The plain loop with its own settings."""
    return run("plain")


@pytest.mark.long
def test_a_plain_loop() -> None:
    plain().check_pruned()


@pytest.mark.long
def test_an_example_runs_by_its_path_from_anywhere(tmp_path: Path) -> None:
    output = command(sys.executable, str(ROOT / "examples" / "plain.py"), "--epochs", "3", folder=tmp_path)
    assert output.epochs == run("plain", "--epochs", 3).epochs


def test_a_file_to_run_that_is_not_there_is_a_line(tmp_path: Path) -> None:
    for words in ([], ["nowhere.pt2"]):
        script = [sys.executable, str(ROOT / "examples" / "run_exported.py"), *words]
        done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=forked.AMPLE)
        assert done.returncode == 1
        assert done.stderr == "give a file that examples/export.py wrote: python examples/run_exported.py slim.pt2\n"


@pytest.mark.long
def test_a_network_that_gets_narrower_while_it_trains() -> None:
    narrow = run("narrow")
    narrow.check_pruned()
    found = [re.search(r"(\d+) channels gone, ([\d,]+) parameters left", line).groups() for line in narrow.epochs]
    left = [int(parameters.replace(",", "")) for _, parameters in found]
    assert sum(int(gone) for gone, _ in found[: len(found) * 2 // 3]) > 10  # not only when the rate is at its end
    assert left == sorted(left, reverse=True)
    assert left[-1] < 0.8 * left[0]
    assert narrow.numbers(r"average: accuracy ([\d.]+)%")[0] > 90
    assert len(plain().epochs) == 20


def test_a_short_run() -> None:
    fast = run("fast")
    fast.check_pruned()
    found = [re.search(r"([\d.]+) of the MACs, ([\d,]+) parameters", line).groups() for line in fast.epochs]
    ratios = [float(ratio) for ratio, _ in found]
    left = [int(parameters.replace(",", "")) for _, parameters in found]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[len(found) // 3] == fast.ratio  # in good time for the narrow network to be trained
    assert left[len(found) // 2] == left[-1] < 0.7 * left[0]


@pytest.mark.long
def test_the_users_own_groups_and_adamw() -> None:
    run("adamw").check_pruned()


def test_a_closure_makes_the_steps_of_the_plain_loop() -> None:
    assert run("closure", "--epochs", 3).text == run("plain", "--epochs", 3).text


@pytest.mark.long
def test_a_gradient_scaler_changes_nothing() -> None:
    """bfloat16 and a scale that is a power of two: equal to the last digit, if the penalty is in true units."""
    scaled = run("amp", "--epochs", 3)
    scaled.check_equal()
    assert len(scaled.epochs) == 3
    assert scaled.epochs == run("amp", "--epochs", 3, "--init-scale", 1).epochs


@pytest.mark.long
def test_accumulated_steps_are_those_of_the_whole_batch() -> None:
    parts, whole = run("accumulate", "--epochs", 2), run("accumulate", "--epochs", 2, "--accumulate", 1)
    parts.check_equal()
    for part, other in zip(parts.epochs, whole.epochs, strict=True):
        pattern = r"(\d+) steps, rows' norms ([\d.]+) to ([\d.]+)"
        assert Output(part).numbers(pattern) == pytest.approx(Output(other).numbers(pattern), abs=5e-5)
    assert "44 steps" in parts.epochs[-1]
    run("accumulate").check_pruned()


@pytest.mark.long
def test_two_processes_have_the_same_masks() -> None:
    done = forked.run_ranks(2, "-m", "examples.ddp", "--epochs", "3", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    output = Output(done.stdout)
    output.check_equal()
    found = re.findall(r"rank (\d): loss ([\d.]+), masked units (\[[\d, ]*\])", output.text)
    assert sorted(rank for rank, _, _ in found) == ["0", "1"]
    assert found[0][1] != found[1][1]  # they have seen different images
    assert found[0][2] == found[1][2] != "[]"


@pytest.mark.long
def test_an_average_of_the_weights_becomes_as_narrow_as_the_model() -> None:
    output = run("ema")
    output.check_pruned()
    (lag,) = output.numbers(r"changes its outputs by ([\d.e-]+)")
    assert 0 < lag < 0.1
    assert output.ratio == plain().ratio
    assert output.epochs == plain().epochs


def test_a_compiled_model_makes_the_steps_of_the_plain_loop() -> None:
    output = run("compiled", "--epochs", 3, "--backend", "eager")
    output.check_equal()
    assert output.epochs == run("plain", "--epochs", 3).epochs


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    checkpoint = str(tmp_path / "checkpoint.pth")
    first = run("resume", checkpoint, "--epochs", 3, "--stop-after", 2)
    second = run("resume", checkpoint, "--epochs", 3)
    whole = run("plain", "--epochs", 3)
    assert len(first.epochs) == 2
    assert [*first.epochs, *second.epochs] == whole.epochs
    assert second.text.endswith(whole.text.partition("accuracy")[2])


@pytest.mark.long
def test_the_pruned_network_runs_without_the_project(tmp_path: Path) -> None:
    exported = run("export", str(tmp_path / "slim.pt2"))
    exported.check_pruned()
    elsewhere = command(sys.executable, str(ROOT / "examples" / "run_exported.py"), "slim.pt2", folder=tmp_path)
    assert f"accuracy: {exported.accuracies[2]:.2f}% of 359 images" in elsewhere.text
    source = (ROOT / "examples" / "run_exported.py").read_text()
    assert not re.search(r"(from|import) (rr|examples|base_model|data|training)\b", source)


@pytest.mark.long
def test_a_detector_is_pruned_saved_loaded_and_exported(tmp_path: Path) -> None:
    output = run("detect", str(tmp_path / "slim.hdf5"), "--network", "small")
    output.check_pruned()
    exported, loaded = output.numbers(r"exported: ([\d.]+)% of 50 pictures; loaded: ([\d.]+)%")
    assert exported == loaded > 90
    assert {"slim.hdf5", "slim.pt2"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.long
def test_frozen_layers_stay_as_they_are() -> None:
    output = run("frozen")
    output.check_pruned()
    assert output.numbers(r"frozen: (\d+) of (\d+) tensors") == [11, 11]  # stem 3; block 2 x 3, and 2 of the shortcut
    stem, first, second = output.numbers(r"widths: stem (\d+), blocks \[(\d+), (\d+)\]")
    assert stem == 8
    assert first < 16
    assert second < 32


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_every_example_is_run_here_and_told_of_in_the_readme(path: Path) -> None:
    if path.stem != SHARED:
        here = Path(__file__).read_text()
        assert re.search(rf'run\("{path.stem}"|examples\.{path.stem}\b|"{path.name}"', here)
        assert f"examples/{path.name}" in (ROOT / "docs" / "training_loop.md").read_text()
