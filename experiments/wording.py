"""Messages of the library, which speak of settings as Python has them, in the words of a command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from experiments.asked_latency import AskedLatency
from experiments.starts import BaseStart, PruningStart
from rr import ResRepConfig
from training.options import option_names, read_ahead
from training.recipe import Recipe

_START = r"(?= (?:is|must|needs|has|and|can't|exclude)\b)"  # after a setting's name, where a message begins with it
_BESIDE = r"[\w./'\"-]"  # a name with one of these beside it is part of a path, or of another name


def in_options(arguments: Sequence[str], more: Sequence[str] = ()) -> Callable[[str], str]:
    """What puts a message into the words of this command line: `layers='all'` becomes `--layers all`.

    Args:
        arguments: the command line's.
        more: further settings that are options of the script, beside those of a run.
    """

    def reworded(message: str) -> str:
        arch = read_ahead(arguments, "-a", "--arch") or "NAME"
        message = message.replace("rr.explain(graph)", f"`python tools/explain.py -a {arch}`")
        names = option_names(Recipe("src20", "digits"), ResRepConfig(), BaseStart(), PruningStart(), AskedLatency())
        names |= {name: "--" + name.replace("_", "-") for name in more}
        for name, option in sorted(names.items(), key=lambda item: -len(item[0])):
            message = re.sub(
                rf"(?<!{_BESIDE}){name} ?= ?'?(True|False|[\w.%]*\w)'?",
                lambda found, option=option: _typed(option, found[1]),
                message,
            )
            anywhere = rf"(?<!{_BESIDE}){name}(?!{_BESIDE})" if "_" in name else rf"^{name}{_START}"
            message = re.sub(anywhere, option, message)
        return message

    return reworded


def _typed(option: str, value: str) -> str:
    if value in ("True", "False"):
        return option if value == "True" else f"--no-{option[2:]}"
    return f"{option} {value}"
