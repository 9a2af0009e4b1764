"""Who may import whom, and what library code may not do: read from the source, nothing is run."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.sources import ROOT, imported, place, sources

PACKAGES = ("base_model", "data", "training", "rr", "experiments")
# Which of the project's packages a package may import, beside itself.
ALLOWED = {
    "base_model": set(),
    "data": set(),
    "rr": set(),
    "training": {"base_model", "data"},
    "experiments": {"base_model", "data", "rr", "training"},
}
GROUND = {
    "rr.errors",
    "rr.lazy",
    "rr.records",
    "rr.settings",
    "rr.version",
    "rr.whole_files",
}  # on these all stand; they import nothing but Python

SPEAKS_FOR_THE_SCRIPTS = "training/endings.py"  # its one line on stderr is what the scripts end with on bad input


def is_script(tree: ast.Module) -> bool:
    """A file that is run: it has `if __name__ == "__main__"`."""
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body)


def forbidden_imports(package: str, tree: ast.Module) -> set[str]:
    """What a library file imports from packages of the project that it may not know."""
    known = ALLOWED[package] | {package}
    foreign = {name for name in imported(tree) if name.split(".")[0] in set(PACKAGES) - known}
    return {name for name in foreign if name not in GROUND and name.rpartition(".")[0] not in GROUND}


def star_imports(tree: ast.Module) -> list[int]:
    """Lines with `from a import *`."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
    ]


def prints(tree: ast.Module) -> list[int]:
    """Lines that call print."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def module_name(path: Path) -> str:
    """`rr/exp_resrep.py` as it would be imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def arrows(found: Mapping[Path, ast.Module]) -> dict[str, set[str]]:
    """Module -> the project's modules that it imports, at any time; `from a import b` is a.b where that is a module."""
    names = {module_name(path): tree for path, tree in found.items()}

    def named(node: ast.AST) -> set[str]:
        if isinstance(node, ast.Import):
            return {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            full = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            return {one if one in names else str(node.module) for one in full.values()}
        return set()

    return {
        name: {one for node in ast.walk(tree) for one in named(node) if one in names} - {name}
        for name, tree in names.items()
    }


def between_rooms(found: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The same between the sub-packages of rr, and the modules directly in it."""
    rooms: dict[str, set[str]] = {}
    for name, others in found.items():
        if name.startswith("rr"):
            room = ".".join(name.split(".")[:2])
            rooms.setdefault(room, set()).update({".".join(other.split(".")[:2]) for other in others} - {room})
    return rooms


def circle(found: Mapping[str, set[str]]) -> list[str]:
    """Names that import each other in a circle, the first of them again at the end; empty where there is none."""
    try:
        graphlib.TopologicalSorter(found).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


@functools.cache
def trees() -> dict[Path, ast.Module]:
    """Every source file, read."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources()}


def scripts() -> set[str]:
    """The modules that are run."""
    return {module_name(path) for path, tree in trees().items() if is_script(tree)}


def library() -> dict[Path, ast.Module]:
    """The files of the packages that are imported."""
    found = scripts()
    return {
        path: tree
        for path, tree in trees().items()
        if path.relative_to(ROOT).parts[0] in PACKAGES and module_name(path) not in found and path.parent != ROOT
    }


@pytest.mark.slow
def test_the_packages_and_scripts_are_found() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in library()} == set(PACKAGES)
    assert {"rr.exp_resrep", "train_base_model", "transform_torchvision", "display_hdf5"} <= scripts()
    assert {"rr.pruner", "rr.conversion.converter", "training.loop", "data.memory", "base_model.registry"} <= {
        module_name(path) for path in library()
    }


@pytest.mark.slow
def test_packages_import_only_what_they_may_know() -> None:
    found = {place(path): forbidden_imports(path.relative_to(ROOT).parts[0], tree) for path, tree in library().items()}
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.slow
def test_imports_make_no_circle() -> None:
    """Nor with those that a type checker alone sees; nor do whole sub-packages of rr, so one is above the other."""
    found = arrows(trees())
    assert circle(found) == []
    assert circle(between_rooms(found)) == []


@pytest.mark.slow
def test_libraries_do_not_print() -> None:
    found = {place(path): len(prints(tree)) for path, tree in library().items()}
    assert {path: lines for path, lines in found.items() if lines} == {SPEAKS_FOR_THE_SCRIPTS: 1}


def test_nobody_imports_a_script() -> None:
    run = scripts()
    found = {place(path): imported(tree) & run for path, tree in trees().items() if "tests" not in path.parts}
    assert not {path: names for path, names in found.items() if names}


HELP = """
import contextlib, io, runpy, sys

for script in sys.argv[1:]:
    sys.argv = [script, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    assert "usage:" in shown.getvalue(), script
    assert "torch" not in sys.modules, script
"""


@pytest.mark.slow
def test_help_needs_no_torch() -> None:
    """Of what a user runs: importing torch takes seconds, and who mistyped an option waits for them."""
    folders = {"benchmarks", "examples", "tests"}
    paths = [place(path) for path, tree in trees().items() if is_script(tree)]
    of_users = [path for path in paths if path.split("/")[0] not in folders]
    assert {"rr/exp_resrep.py", "tools/evaluate.py", "display_hdf5.py"} <= set(of_users)
    done = subprocess.run([sys.executable, "-c", HELP, *of_users], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_nobody_imports_everything() -> None:
    assert not {place(path): star_imports(tree) for path, tree in trees().items() if star_imports(tree)}


@pytest.mark.parametrize(
    ("package", "source", "expected"),
    [
        ("rr", "import training", {"training"}),
        ("rr", "def f():\n    from data.registry import load_data", {"data.registry", "data.registry.load_data"}),
        ("data", "import base_model.vgg as v", {"base_model.vgg"}),
        ("training", "import rr", {"rr"}),
        ("training", "import data\nfrom base_model import build_model", set()),
        ("base_model", "import torch\nfrom base_model import conv_bn\nfrom . import vgg", set()),
        ("rr", "import database", set()),
        ("data", "from rr.errors import InputError", set()),
        ("data", "from rr import InputError", {"rr", "rr.InputError"}),
        ("rr", "from experiments.recipes import x", {"experiments.recipes", "experiments.recipes.x"}),
    ],
)
def test_the_rule_sees_through_every_form(package: str, source: str, expected: set[str]) -> None:
    assert forbidden_imports(package, ast.parse(source)) == expected


def test_the_other_rules_see_what_they_forbid() -> None:
    tree = ast.parse("from torch import *\n\ndef f():\n    print(1)\n\nlog.print(2)\n")
    assert star_imports(tree) == [1]
    assert prints(tree) == [4]
    assert is_script(ast.parse('if __name__ == "__main__":\n    main()'))
    assert imported(ast.parse("from rr import exp_resrep")) == {"rr", "rr.exp_resrep"}


def test_the_rule_sees_circles() -> None:
    seen_by_checkers = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rr.b import low"
    source = {"rr/a/high.py": "import rr.b.low", "rr/b/low.py": "x = 1", "rr/b/__init__.py": "from rr.b.low import x"}
    modules = {ROOT / place: ast.parse(text) for place, text in source.items()}
    assert circle(arrows(modules)) == circle(between_rooms(arrows(modules))) == []
    modules[ROOT / "rr/a/low.py"] = ast.parse("")
    modules[ROOT / "rr/b/high.py"] = ast.parse("from rr.a import low")
    assert circle(arrows(modules)) == []
    assert set(circle(between_rooms(arrows(modules)))) == {"rr.a", "rr.b"}
    modules[ROOT / "rr/b/low.py"] = ast.parse("from rr.a import high")
    assert set(circle(arrows(modules))) == {"rr.a.high", "rr.b.low"}
    modules[ROOT / "rr/b/low.py"], modules[ROOT / "rr/a/low.py"] = ast.parse(""), ast.parse(seen_by_checkers)
    assert circle(arrows(modules)) == []
    modules[ROOT / "rr/b/low.py"] = ast.parse("from rr.a.low import y")
    assert set(circle(arrows(modules))) == {"rr.a.low", "rr.b.low"}
    modules = {ROOT / "rr/__init__.py": ast.parse("from rr.low import x"), ROOT / "rr/errors.py": ast.parse("")}
    modules[ROOT / "rr/low.py"] = ast.parse("import rr\nfrom rr.errors import y")
    assert set(circle(arrows(modules))) == {"rr", "rr.low"}
