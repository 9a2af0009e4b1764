"""What a run says about itself: log.txt, metrics.jsonl, run.json, TensorBoard and the progress bar; rank 0 alone."""

import datetime
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from rr.whole_files import write_text_whole
from training import run_folder
from training.distributed import World
from training.evaluation import Evaluation


class RunLog:
    """The log of one run in `folder`; use it as a context manager around everything that the run does.

    Whatever any library logs at INFO or above goes to log.txt and to stderr, from rank 0 alone. On all other ranks
    every method does nothing.

    Args:
        folder: the run's folder, made if it isn't there.
        world: the processes.
        recipe: all settings, as plain values.
        resume: whether the run goes on; run.json then gets an entry for that.
    """

    def __init__(self, folder: str | Path, world: World, recipe: dict[str, Any], *, resume: bool = False) -> None:
        """Write run.json: recipe, seed, versions, commit, hardware, time."""
        self.folder = Path(folder)
        self.recipe = recipe
        self.active = world.is_first
        self._handlers: list[logging.Handler] = []
        self._writer: SummaryWriter | None = None
        if not self.active:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / run_folder.RUN
        if resume and path.exists():
            run = json.loads(path.read_text())
            run.setdefault("resumed", []).append(surroundings(world))
        else:
            run = {"recipe": recipe, "seed": recipe.get("seed"), **surroundings(world)}
        write_text_whole(path, json.dumps(run, indent=2) + "\n")

    def __enter__(self) -> "RunLog":
        if self.active:
            self._writer = SummaryWriter(str(self.folder / run_folder.TENSORBOARD))
            file = logging.FileHandler(self.folder / run_folder.LOG, encoding="utf-8")
            file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            root = logging.getLogger()
            self._handlers = [file]
            if not any(isinstance(handler, _TerminalHandler) for handler in root.handlers):
                self._handlers.append(_TerminalHandler())
            self._level = root.level
            root.setLevel(min(root.level, logging.INFO))
            for handler in self._handlers:
                root.addHandler(handler)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        root = logging.getLogger()
        if error is not None and self._handlers:  # for log.txt alone: on the terminal, whoever catches it tells
            self._handlers[0].emit(logging.makeLogRecord({"msg": f"stopped by {kind.__name__}: {error}"}))
        for handler in self._handlers:
            root.removeHandler(handler)
            handler.close()
        if self._writer is not None:
            self._writer.close()
            root.setLevel(self._level)

    def curves(self, kind: str, evaluation: Evaluation, step: int) -> None:
        """Add a point to the curves Top1-Acc, Top5-Acc and Loss, of kind 'Train' or 'Val', at a step."""
        if self._writer is not None:
            for tag, value in (
                ("Top1-Acc", evaluation.top1),
                ("Top5-Acc", evaluation.top5),
                ("Loss", evaluation.loss),
            ):
                self._writer.add_scalars(tag, {kind: value}, step)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add a point to each named curve, at a step."""
        if self._writer is not None:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)

    def epoch(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl; the record's `epoch` is how many are done."""
        if self._writer is not None:
            self._writer.flush()
            with open(self.folder / run_folder.METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    def rewind(self, epoch: int) -> None:
        """Drop the lines of metrics.jsonl after this epoch (and one torn by a kill): the run goes on from there."""
        path = self.folder / run_folder.METRICS
        if self.active and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["epoch"] <= epoch]
            write_text_whole(path, "".join(kept))

    def progress_bar(self, total: int, initial: int) -> tqdm:
        """A bar over the run's steps with the time left; nothing where stderr isn't a terminal."""
        quiet = not (self.active and sys.stderr.isatty())
        # A terminal that doesn't know its size (in a container, say) says 0, and tqdm would draw nothing.
        knows_size = not quiet and os.get_terminal_size(sys.stderr.fileno()).columns > 0
        size = {"dynamic_ncols": True} if knows_size else {"ncols": 120, "nrows": 20}
        return tqdm(total=total, initial=initial, unit="step", disable=quiet, smoothing=0.05, **size)


@contextmanager
def logged_on_terminal(world: World) -> Iterator[None]:
    """Within the context, whatever any library logs at INFO or above goes to stderr, from rank 0 alone.

    For what happens before there is a RunLog, which adds log.txt.
    """
    if not world.is_first:
        yield
        return
    root, handler = logging.getLogger(), _TerminalHandler()
    level = root.level
    root.setLevel(min(level, logging.INFO))
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


class _TerminalHandler(logging.Handler):
    """Writes to stderr past the progress bar.

    Lines that the bar already shows (`extra={'progress': True}`) are left out, as are those that were shown before
    (`extra={'shown': True}`).
    """

    def emit(self, record: logging.LogRecord) -> None:
        in_bar = getattr(record, "progress", False) and sys.stderr.isatty()
        if not in_bar and not getattr(record, "shown", False):
            tqdm.write(self.format(record), file=sys.stderr)


def surroundings(world: World) -> dict[str, Any]:
    """When and on what something runs: time, versions, commit, hardware, device, processes, threads."""
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__},
        "commit": _commit(),
        "hardware": {"cpu": _cpu_name(), "cores": os.cpu_count(), "gpus": gpus},
        "device": str(world.device),
        "processes": world.size,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    """The commit of the source, with '+' where files were changed since; None outside of git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed.strip() else "")


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
