"""Every block of code on the pages: Python runs, and the scripts' own parsers take the options of each command."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.run as torchrun

from base_model import build_model
from rr import InputError
from tests import scripts
from tests.docs.pages import BLOCKS, Block, commands
from tests.docs.prepared import PREPARED
from tests.scripts import ROOT

PYTHON = [block for block in BLOCKS if block.language == "python"]
SHELL = [block for block in BLOCKS if block.language in ("sh", "")]
DRAWN = {"math": "docs/hooks", "mermaid": "GitHub's and the site's script"}  # by whom
# Pages whose Python blocks don't run here.
ELSEWHERE = {
    "README.md": "runs where the wheel is installed: tests/test_package.py",
    "docs/tutorial.md": "the whole page runs, shell and Python: tests/benchmarks/test_tutorial.py",
}


# Blocks that don't run, by words in them.
SHOWN_ALONE = {
    "latency_target=0.5": "it takes minutes of a quiet machine; tests/rr/refit/test_one_shot.py has its call"
}

DEAR = ("docs/detectors.md", "docs/export.md", "docs/first_steps.md")  # several rehearsals, exports for torch alone
# What is to be seen of the names that a page's blocks leave behind.
SHOWN: dict[str, Callable[[dict[str, Any]], bool]] = {
    "docs/prune_your_own_model.md": lambda names: (
        names["pruner"].report.macs_ratio <= 0.5
        and names["pruner"].report.widths[-1] == 32  # the hidden layer is whole
        and (names["report"].float64_difference, names["report"].macs_ratio) == (pytest.approx(0, abs=1e-10), 1.0)
    ),
    "docs/detectors.md": lambda names: (
        names["pruner"].report.macs_ratio <= 0.5
        and names["scores"].shape == names["boxes"].shape == (8, 4, 8, 8)
        and names["slim"].refit_report.conversion.macs_ratio <= 0.7
    ),
    "docs/export.md": lambda names: names["card"]["classes"] == ["cat", "dog", "fish"] and names["slim"].card.widths,
    "docs/files.md": lambda names: (
        names["again"].card.classes == tuple("0123456789") and (names["step"], names["left"]) == ("9", {"conv": 1})
    ),
    "docs/training_loop.md": lambda names: (
        names["run"]["pruner"].steps == len(names["loader"]) and names["pruner"].unmasked.macs_ratio <= 0.5
    ),
}


SETTINGS = ("train_base_model.py", "rr/exp_resrep.py")  # whose options must make a run's settings, too


class Parsed(BaseException):
    """A script has come past its parser, which is as far as it is to go."""


def test_the_blocks_are_found() -> None:
    assert {"README.md", "docs/targets.md"} <= {block.page for block in PYTHON}
    assert {"README.md", "CONTRIBUTING.md", "docs/clusters.md"} <= {block.page for block in SHELL}
    assert {"serve.py"} == KEPT
    assert set(ELSEWHERE) <= {block.page for block in PYTHON}
    assert all(any(words in block.text for block in PYTHON) for words in SHOWN_ALONE)


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert not [str(block) for block in BLOCKS if block not in PYTHON + SHELL and block.language not in DRAWN]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.long if page in DEAR else ())
        for page in sorted({block.page for block in PYTHON} - set(ELSEWHERE))
    ],
)
def test_the_python_on_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From top to bottom, in one namespace."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"} | (PREPARED[page]() if page in PREPARED else {})
    for block in (block for block in PYTHON if block.page == page):
        if any(words in block.text for words in SHOWN_ALONE):
            continue
        exec(compile("\n" * block.line + block.text, page, "exec"), names)
    assert SHOWN.get(page, lambda names: True)(names)


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a command's script parse its options.

    Raises:
        SystemExit: if it refuses them.
    """
    program, *words = words
    if program == "torchrun" or words[:2] == ["-m", "torch.distributed.launch"]:
        taken = torchrun.parse_args(words if program == "torchrun" else words[2:])
        words = ["-m"] * taken.module + [taken.training_script, *taken.training_script_args]
    if words[0] == "-m":
        if not words[1].startswith("examples."):
            assert importlib.util.find_spec(words[1]), words
            return
        words = [words[1].replace(".", "/") + ".py", *words[2:]]
    script, *options = words
    assert (ROOT / script).is_file(), script
    take = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *arguments: object) -> None:
        take(parser, *arguments)
        raise Parsed

    monkeypatch.setattr(sys, "argv", [script, *options])
    if script in SETTINGS:
        scripts.load(script).parse_arguments(options)
        return
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with contextlib.suppress(Parsed):
        runpy.run_path(str(ROOT / script), run_name="__main__")
        pytest.fail(f"{script} has no parser")


KEPT = {block.text.split()[1].strip(":") for block in PYTHON if block.text.startswith("# ")}  # a page's own files
COMMANDS = sorted(
    {" ".join(words): words for block in SHELL for words in commands(block) if words[1] not in KEPT}.items()
)


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[line for line, _ in COMMANDS])
def test_a_command_on_a_page_is_taken(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with scripts.as_before():
        parse(words, monkeypatch)


def test_a_wrong_command_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for line in (
        "python tools/export.py a.hdf5 --formats onnx",
        "python train_base_model.py -a src20 --dataset digitz",
        "torchrun --nproc_per_node=2 -m examples.ddp --epoch 3",
        "python benchmarks/formats.py --no-such-option",
    ):
        with scripts.as_before(), monkeypatch.context() as patched, pytest.raises((SystemExit, InputError)):
            parse(line.split(), patched)
    with pytest.raises(AssertionError):
        parse(["python", "tools/no_such.py"], monkeypatch)
    capsys.readouterr()


def test_what_make_is_asked_for_is_there() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = {name for block in SHELL for name in re.findall(r"^make ([\w-]+)", block.text, re.MULTILINE)}
    assert asked <= targets
    assert {"test", "docs"} <= asked


@pytest.mark.parametrize("block", [block for block in SHELL if block.text.startswith("#!/bin/bash")], ids=str)
def test_a_script_on_a_page_is_one(block: Block) -> None:
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


SRUN = """#!/bin/bash
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
    tasks+=($!)
done
if [ "$SLURM_RESTART_COUNT" = 0 ]; then
    until grep -q ' step 2 of' resrep_models/src8_train/log.txt; do sleep 0.1; done
    kill -USR1 "${tasks[@]}"
fi
status=0
for task in "${tasks[@]}"; do
    wait "$task"
    ended=$?
    ((ended > status)) && status=$ended
done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$*" >> asked.txt; fi
"""


@pytest.mark.long
def test_a_job_of_slurm_is_queued_anew_and_goes_on(tmp_path: Path) -> None:
    """The page's script as it stands, of a smaller run, with stand-ins for SLURM's two commands."""
    (script,) = (block.text for block in SHELL if "#SBATCH --nodes=2" in block.text and "requeue " in block.text)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        script = script.replace("29500", str(free.getsockname()[1]))
    small = "-a src8 --dataset synthetic --weights base.pth --epochs 1 --max-steps 6"
    script = script.replace("-a sres50", f"{small} --log-interval 1 --no-tune --device cpu")
    (tmp_path / "rr").symlink_to(ROOT / "rr")
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    torch.save(build_model("src8", num_classes=10).state_dict(), tmp_path / "base.pth")
    ends = []
    for count in ("0", "1"):
        given = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n", "SLURM_NTASKS": "2", "SLURM_RESTART_COUNT": count}
        path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, **given, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        ends.append(done.returncode)
    assert ends[0] == 128 + signal.SIGUSR1, done.stderr
    assert ends[1] in (0, 3), done.stderr  # 3: so short a run may miss its target
    assert (tmp_path / "asked.txt").read_text() == "requeue 7\n"
    assert (tmp_path / "resrep_models/src8_train/finish_converted.hdf5").is_file()
