"""What a run's folder holds, and what to do with the run that is already in it."""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from rr.errors import InputError
from rr.whole_files import BESIDE_SUFFIX, write_errors_of
from training.checkpoint_files import LATEST, checkpoints, load
from training.json_files import read_json

RUN, LOG, METRICS, TENSORBOARD = "run.json", "log.txt", "metrics.jsonl", "tensorboard"
INIT_WEIGHTS, FINISH, FINISH_WEIGHTS = "init.hdf5", "finish.pth", "finish.hdf5"
TEACHER_WEIGHTS = "teacher.hdf5"  # where another network teaches than the one that the run starts from
RESULT, REPORT, PLOTS = "result.json", "report.html", "plots"
CONVERTED_WEIGHTS = "finish_converted.hdf5"
CONVERTED = ("finish_converted.safetensors", "finish_converted.pt2")  # beside its .hdf5 and .pth

# Fields that may change between two parts of one run: they don't alter what is computed. What a run that was stopped by
# a loss has computed is also what one that skips such steps has, up to there.
FREE_FIELDS = frozenset(
    {
        *("output_dir", "device", "workers", "log_interval", "checkpoint_interval", "keep", "signal_checkpoint"),
        *("compile", "compile_mode", "cuda_graph", "processes", "threads", "tune"),
        *("process_timeout", "non_finite_loss"),
    }
)
# Until the conversion is done: it alone asks for these, and may refuse one, after all of the training.
OF_CONVERSION = frozenset({"threshold"})
LOCK, LOCK_SECONDS = ".lock", 10  # a run that was just killed can leave workers behind for a moment

# A process's number before the last suffix; `.NAME.NUMBER.tmp` in older versions.
_LEFTOVER = re.compile(rf".+\.\d+{re.escape(BESIDE_SUFFIX)}|\..+\.(?:hdf5|pth)\.\d+\.tmp")
# Where no run.json says whose a folder is, the only one.
_LEFTOVER_OF_RUN = re.compile(rf"{re.escape(RUN)}\.\d+{re.escape(BESIDE_SUFFIX)}")

logger = logging.getLogger(__name__)

MOST_SHOWN = 5  # of the settings in which two runs differ


class RunState(Enum):
    """What is to be done in the folder."""

    START = "start"
    RESUME = "resume"
    FINISHED = "finished"


def prepare(
    folder: str | Path,
    recipe: dict[str, Any],
    conti_or_fs: str | None = None,
    defaults: dict[str, Any] | None = None,
    translate: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    options: Mapping[str, str] | None = None,
) -> RunState:
    """Decide what to do in `folder` with this recipe (all fields, plain values); start from scratch in a clean one.

    Nothing but a run's own files is ever deleted: what a kill left half-written, and the rest only for 'fs' or where
    the run had no checkpoint yet. Call it on rank 0 alone.

    Args:
        folder: the run's folder.
        recipe: all settings, as plain values.
        conti_or_fs: 'continue', 'fs' (from scratch) or None, as the user chose.
        defaults: what a setting was in a run that is older than the setting, so that such runs can be continued.
        translate: turns the settings of an older run into those of this version.
        options: how settings are typed, for messages; what isn't among them is named only where nothing else differs.

    Raises:
        InputError: if the folder holds an unfinished run and `conti_or_fs` doesn't say what to do with it, or if it
            holds a run of another recipe.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: choose another --output-dir")
    stored = stored_recipe(folder)
    finished = (folder / FINISH_WEIGHTS).exists()
    _clear_leftovers(folder, _LEFTOVER if stored is not None else _LEFTOVER_OF_RUN)
    if conti_or_fs == "fs":
        if finished and stored is None:
            raise InputError(
                f"{folder} holds {FINISH_WEIGHTS} but no {RUN}: move that file away, or choose another folder"
            )
        _clear(folder)
        return RunState.START
    if not finished and not checkpoints(folder):  # new, or stopped before there was anything to keep
        _clear(folder)
        return RunState.START
    if (folder / RUN).exists() and stored is not None and stored_run(folder) is None:
        logger.warning("%s is damaged: the settings are those in the checkpoint", folder / RUN)
    held = [stored] if finished else [stored, _recipe_in_checkpoint(folder)]  # the checkpoint's is what it was made by
    free = FREE_FIELDS if (folder / CONVERTED_WEIGHTS).exists() else FREE_FIELDS | OF_CONVERSION
    for one in held:
        if one is not None:
            differing = _differences({**(defaults or {}), **translate(one)}, recipe, options or {}, free)
            _refuse_another_recipe(folder, differing, conti_or_fs)
    if finished:
        return RunState.FINISHED
    if conti_or_fs is None:
        raise InputError(
            f"{folder} holds an unfinished run: add '-c continue' to go on with it, "
            "or '-c fs' to delete it and start from scratch"
        )
    return RunState.RESUME


def _refuse_another_recipe(folder: Path, differing: Sequence[str], conti_or_fs: str | None) -> None:
    """Raise where the folder's run has another recipe: `differing` says how."""
    if not differing:
        return
    shown = [*differing[:MOST_SHOWN], *[f"{len(differing) - MOST_SHOWN} more"] * (len(differing) > MOST_SHOWN)]
    goes_on = "leave these options out" if conti_or_fs == "continue" else "give '-c continue' and no other options"
    raise InputError(
        f"{folder} holds a run of another recipe ({'; '.join(shown)}): to go on with that one {goes_on}; or choose "
        "another --output-dir, or add '-c fs' to delete it and start from scratch"
    )


def is_new_run(folder: str | Path, conti_or_fs: str | None = None) -> bool:
    """Whether a run starts from its first weights: there is none to continue, or it is to start again."""
    return conti_or_fs == "fs" or not (checkpoints(folder) or (Path(folder) / FINISH_WEIGHTS).exists())


def what_lacks(folder: str | Path) -> str | None:
    """Why there is no run in the folder, in words; None where there is one, however far it has come."""
    path = Path(folder)
    if not path.is_dir():
        return f"there is no folder {folder}"
    if (path / RUN).exists() or (path / FINISH_WEIGHTS).exists() or checkpoints(path):
        return None
    return f"{folder} has no {RUN}, {LATEST} or {FINISH_WEIGHTS}"


def is_started_again() -> bool:
    """Whether a launcher has started this process again, after a failure or when its job was queued anew.

    What it does is to go on then: torchrun with --max-restarts, SLURM with --requeue.
    """
    return any(int(os.environ.get(f"{launcher}_RESTART_COUNT", 0)) > 0 for launcher in ("TORCHELASTIC", "SLURM"))


def stored_recipe(folder: str | Path) -> dict[str, Any] | None:
    """All settings of the run in a folder, as plain values; None where there is none.

    run.json has them; where it is lost or damaged, the newest whole checkpoint does.
    """
    run = stored_run(folder)
    return _recipe_in_checkpoint(folder) if run is None else run["recipe"]


def stored_run(folder: str | Path) -> dict[str, Any] | None:
    """What run.json says, its recipe at least; None where it is lost or damaged."""
    try:
        run = read_json(Path(folder) / RUN)
    except (OSError, InputError):
        return None
    return run if isinstance(run.get("recipe"), dict) else None


def stored_result(folder: str | Path) -> dict[str, Any]:
    """What result.json says so far; nothing where there is none.

    Raises:
        InputError: if it is broken.
    """
    path = Path(folder) / RESULT
    return read_json(path) if path.exists() else {}


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Within the context, no other process works in the folder, which is made if it isn't there.

    Raises:
        InputError: if another process is at work there.
        WriteError: if the folder can't be made.
    """
    from filelock import FileLock, Timeout  # comes with torch, and --help needs none of it

    if Path(folder).is_file():  # `prepare` says so
        yield
        return
    lock = FileLock(Path(folder) / LOCK)
    with write_errors_of(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise InputError(
                f"another process is at work in {folder}: wait for its end, or choose another --output-dir"
            ) from None
    try:
        yield
    finally:
        lock.release()


def _recipe_in_checkpoint(folder: str | Path) -> dict[str, Any] | None:
    for path in (*checkpoints(folder), Path(folder) / FINISH):
        try:
            return load(path)["recipe"]
        except InputError:  # `newest` tells of it
            continue
    return None


def _differences(
    stored: dict[str, Any], recipe: dict[str, Any], options: Mapping[str, str], free: frozenset[str]
) -> list[str]:
    def shown(fields: dict[str, Any], name: str) -> str:
        return json.dumps(fields[name]) if name in fields else "unset"

    names = [name for name in {**stored, **recipe} if name not in free]
    names = [name for name in names if shown(stored, name) != shown(recipe, name)]
    names = [name for name in names if name in options] or names
    return [f"{options.get(name, name)}: there {shown(stored, name)}, now {shown(recipe, name)}" for name in names]


def _clear(folder: Path) -> None:
    if not (folder / RUN).exists():  # no run is in it, so no files of one
        return
    for pattern in (LOG, METRICS, RESULT, REPORT, "*.hdf5", "*.pth", *CONVERTED):
        for path in folder.glob(pattern):
            path.unlink()
    for inner in (TENSORBOARD, PLOTS):
        shutil.rmtree(folder / inner, ignore_errors=True)
    (folder / RUN).unlink()  # last, so that an interrupted clearing is done again


def _clear_leftovers(folder: Path, pattern: re.Pattern[str]) -> None:
    """Remove what a kill left half-written, also by the name that such a file had in older versions."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)
