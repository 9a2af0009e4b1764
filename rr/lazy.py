"""Packages whose public names are imported when they are first used.

What needs no torch (settings, a script's --help) then doesn't wait the seconds that importing it takes. In a package's
`__init__` the names are written once, as imports under `if TYPE_CHECKING:`, which editors and type checkers read too:

    if TYPE_CHECKING:
        from rr.pruner import ResRepPruner

    __getattr__, __dir__ = lazy_exports(__name__, __file__)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def lazy_exports(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of the package whose `__init__` is `file` (PEP 562)."""
    homes = _homes(ast.parse(Path(file).read_text(encoding="utf-8")))

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *homes})


def _homes(tree: ast.Module) -> dict[str, str]:
    """Name -> the module it is imported from, under `if TYPE_CHECKING:`."""
    return {
        alias.name: statement.module
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom) and statement.module
        for alias in statement.names
    }
