"""What a run says about itself: log.txt, metrics.jsonl, run.json, TensorBoard and the progress bar; rank 0 alone."""

from __future__ import annotations

import datetime
import logging
import os
import platform
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from rr.errors import printable
from rr.whole_files import append_line, write_errors_of, write_text_whole
from training import run_folder
from training.distributed import World
from training.evaluation import Evaluation
from training.json_files import as_line, from_line, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)
CPP_EXTENSION, ONNX_PASSES = "torch.utils.cpp_extension", ("onnxscript", "onnx_ir")  # loggers
HPARAMS_METRICS = ("Top1-Acc/Val", "Loss/Val")  # the curves whose last value TensorBoard shows beside the settings


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
        self._entered = ExitStack()
        self._writer: SummaryWriter | None = None
        if not self.active:
            return
        run = run_folder.stored_run(self.folder) if resume else None
        if run is not None:
            run.setdefault("resumed", []).append({**surroundings(world), "command": _command()})
            run["recipe"] |= {name: recipe[name] for name in run_folder.OF_CONVERSION if name in recipe}
        else:
            run = {"recipe": recipe, "seed": recipe.get("seed"), **surroundings(world), "command": _command()}
        write_json(self.folder / run_folder.RUN, run)

    def __enter__(self) -> RunLog:
        if self.active:
            with ExitStack() as entered:
                entered.enter_context(_quiet_while_it_writes_curves())
                with self._curve_errors():
                    self._writer = SummaryWriter(str(self.folder / run_folder.TENSORBOARD))
                    self._write_settings()
                self._handlers = entered.enter_context(self._logged())
                self._entered = entered.pop_all()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        with self._entered, suppress(OSError) if error is not None else self._curve_errors():
            # An error that is on its way mustn't be hidden by a disk that is full.
            if error is not None and self._handlers:  # for log.txt alone: on the terminal, whoever catches it tells
                self._handlers[0].emit(logging.makeLogRecord({"msg": f"stopped by {kind.__name__}: {error}"}))
            if self._writer is not None:
                self._writer.close()

    @contextmanager
    def _logged(self) -> Iterator[list[logging.Handler]]:
        """Within the context, what is logged goes to log.txt, the first of these handlers, and to the terminal."""
        root = logging.getLogger()
        with write_errors_of(self.folder / run_folder.LOG):
            file = _FileHandler(self.folder / run_folder.LOG, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        handlers: list[logging.Handler] = [file]
        if not any(isinstance(handler, _TerminalHandler) for handler in root.handlers):
            handlers.append(_TerminalHandler())
        level = root.level
        root.setLevel(min(level, logging.INFO))
        for handler in handlers:
            root.addHandler(handler)
        try:
            yield handlers
        finally:
            root.setLevel(level)
            for handler in handlers:
                root.removeHandler(handler)
                with suppress(OSError):  # each line was flushed when it was written
                    handler.close()

    def _curve_errors(self) -> AbstractContextManager[None]:
        return write_errors_of(self.folder / run_folder.TENSORBOARD)

    def _write_settings(self) -> None:
        """The recipe as hyperparameters, in the run's own event file: `add_hparams` would begin a run for them."""
        settings = {name: _plain(value) for name, value in self.recipe.items() if value is not None}
        for summary in hparams(settings, {tag: None for tag in HPARAMS_METRICS}):
            self._writer.file_writer.add_summary(summary)

    def curves(self, kind: str, evaluation: Evaluation, step: int) -> None:
        """Add a point to the curves Top1-Acc, Top5-Acc and Loss, of kind 'Train' or 'Val', at a step.

        Their tags are Top1-Acc/Train and so on: all in one run, where `add_scalars` would begin one for each curve.
        """
        values = {"Top1-Acc": evaluation.top1, "Top5-Acc": evaluation.top5, "Loss": evaluation.loss}
        self.scalars({f"{tag}/{kind}": value for tag, value in values.items()}, step)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """Add a point to each named curve, at a step."""
        if self._writer is not None:
            with self._curve_errors():
                for tag, value in values.items():
                    self._writer.add_scalar(tag, value, step)

    def figure(self, tag: str, figure: Figure, step: int) -> None:
        """Add a matplotlib figure to TensorBoard's images, at a step."""
        if self._writer is not None:
            with self._curve_errors():
                self._writer.add_figure(tag, figure, step)

    def epoch(self, record: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl; the record's `epoch` is how many are done."""
        if self._writer is not None:
            with self._curve_errors():
                self._writer.flush()
            append_line(self.folder / run_folder.METRICS, as_line(record))

    def rewind(self, epoch: int) -> None:
        """Drop the lines of metrics.jsonl after this epoch (and one torn by a kill): the run goes on from there."""
        path = self.folder / run_folder.METRICS
        if self.active and path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            epochs = [_epoch_of(line) for line in lines]
            kept = [line for line, done in zip(lines, epochs, strict=True) if done is not None and done <= epoch]
            write_text_whole(path, "".join(kept))
            if lost := sorted(set(range(epoch + 1)) - set(epochs)):
                logger.warning("%s lacks %d epochs, from %d on: their curves are lost", path, len(lost), lost[0])

    def progress_bar(self, total: int, initial: int) -> tqdm:
        """A bar over the run's steps with the time left; nothing where stderr isn't a terminal."""
        quiet = not (self.active and sys.stderr.isatty())
        # A terminal that doesn't know its size (in a container, say) says 0, and tqdm would draw nothing.
        knows_size = not quiet and os.get_terminal_size(sys.stderr.fileno()).columns > 0
        size = {"dynamic_ncols": True} if knows_size else {"ncols": 120, "nrows": 20}
        return tqdm(total=total, initial=initial, unit="step", disable=quiet, smoothing=0.05, **size)


def _epoch_of(line: str) -> int | None:
    """The epoch of a line of metrics.jsonl; None for one that a kill tore, or that is damaged."""
    try:
        return int(from_line(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return None


@contextmanager
def logged_on_terminal(world: World | None = None) -> Iterator[None]:
    """Within the context, whatever any library logs at INFO or above goes to stderr, from rank 0 alone.

    For what happens before there is a RunLog, which adds log.txt, and for scripts that have none.

    Args:
        world: the processes; None for one alone.
    """
    is_first = world is None or world.is_first
    # Without any handler Python prints warnings itself: what rank 0 says would come once more from every other rank.
    root, handler = logging.getLogger(), _TerminalHandler() if is_first else logging.NullHandler()
    level = root.level
    root.setLevel(min(level, logging.INFO))
    root.addHandler(handler)
    logging.getLogger(CPP_EXTENSION).addFilter(_is_worth_telling)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        logging.getLogger(CPP_EXTENSION).removeFilter(_is_worth_telling)


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Not that a machine without a GPU has no CUDA, which torch warns of where it compiles for the CPU."""
    return not str(record.msg).startswith("No CUDA runtime is found")


class _FileHandler(logging.FileHandler):
    """Writes to log.txt; a line that can't be written ends the run, in one line and not in a traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:
        with write_errors_of(self.baseFilename):
            raise


class _TerminalHandler(logging.Handler):
    """Writes to stderr past the progress bar.

    Lines that the bar already shows (`extra={'progress': True}`) are left out, as are those that were shown before
    (`extra={'shown': True}`), and what an export says of every pass over its graph.
    """

    def emit(self, record: logging.LogRecord) -> None:
        in_bar = getattr(record, "progress", False) and sys.stderr.isatty()
        of_pass = record.levelno < logging.WARNING and record.name.partition(".")[0] in ONNX_PASSES
        if not in_bar and not of_pass and not getattr(record, "shown", False):
            tqdm.write(printable(self.format(record)), file=sys.stderr)


@contextmanager
def _quiet_while_it_writes_curves() -> Iterator[None]:
    """Within the context, the thread in which TensorBoard writes shows no traceback of a folder that is gone.

    Such an error is raised again where the next point is added, and ends the run in one line.
    """
    before = threading.excepthook

    def told(args: threading.ExceptHookArgs) -> None:
        of_curves = type(args.thread).__module__.startswith("tensorboard.")
        if not (of_curves and issubclass(args.exc_type, OSError)):
            before(args)

    threading.excepthook = told
    try:
        yield
    finally:
        threading.excepthook = before


def _plain(value: Any) -> bool | int | float | str:
    """A setting as TensorBoard takes it: tuples and the like as text."""
    return value if isinstance(value, bool | int | float | str) else str(value)


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


def _command() -> str:
    """The command line of this process, to be typed again."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def _commit() -> str | None:
    """The commit of the source, with '+' where files were changed since; outside of git what RESREP_COMMIT says."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("RESREP_COMMIT")
    return commit + ("+" if changed.strip() else "")


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
