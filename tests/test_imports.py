"""Who may import whom, and what library code may not do: read from the source, nothing is run."""

from __future__ import annotations

import ast
import functools
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


def test_the_packages_and_scripts_are_found() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in library()} == set(PACKAGES)
    assert {"rr.exp_resrep", "train_base_model", "transform_torchvision", "display_hdf5"} <= scripts()
    assert {"rr.pruner", "rr.conversion.converter", "training.loop", "data.memory", "base_model.registry"} <= {
        module_name(path) for path in library()
    }


def test_packages_import_only_what_they_may_know() -> None:
    found = {place(path): forbidden_imports(path.relative_to(ROOT).parts[0], tree) for path, tree in library().items()}
    assert not {path: names for path, names in found.items() if names}


def test_libraries_do_not_print() -> None:
    found = {place(path): len(prints(tree)) for path, tree in library().items()}
    assert {path: lines for path, lines in found.items() if lines} == {SPEAKS_FOR_THE_SCRIPTS: 1}


def test_nobody_imports_a_script() -> None:
    run = scripts()
    found = {place(path): imported(tree) & run for path, tree in trees().items() if "tests" not in path.parts}
    assert not {path: names for path, names in found.items() if names}


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
