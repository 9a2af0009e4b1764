"""Scripts called in this process, which they leave as it was: what isn't about starting a process starts none."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """How a script ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def load(script: str | Path) -> ModuleType:
    """A script as a module: `load("tools/explain.py").main([...])`; `sys.path` stays as it was."""
    path = ROOT / script
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    with as_before():
        sys.modules[spec.name] = module  # where its dataclasses look their types up
        spec.loader.exec_module(module)
    return module


def call(script: str | Path, *options: object, cwd: Path | None = None) -> Done:
    """`python SCRIPT OPTIONS` in this process: its `main`, called with the options."""
    return call_main(load(script).main, *options, cwd=cwd)


def call_main(main: Callable[[Sequence[str]], None], *options: object, cwd: Path | None = None) -> Done:
    """A script's `main` with options; what it prints is caught, and its exit code isn't raised."""
    code, out, err = 0, io.StringIO(), io.StringIO()
    with as_before(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if cwd is not None:
            os.chdir(cwd)
        try:
            main([str(option) for option in options])
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """What a script may change of its process is put back; what it must put back itself is seen to be so."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    logs = list(root.handlers), root.level
    paths, folder, threads = list(sys.path), Path.cwd(), torch.get_num_threads()
    numbers = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
        assert {number: signal.getsignal(number) for number in handlers} == handlers, "a signal's handler stayed"
        assert (root.handlers, root.level) == logs, "a handler of the log stayed"
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        root.handlers[:] = logs[0]
        root.setLevel(logs[1])
        sys.path[:] = paths
        os.chdir(folder)
        torch.set_num_threads(threads)
        torch.set_rng_state(numbers[0])
        np.random.set_state(numbers[1])
        random.setstate(numbers[2])
