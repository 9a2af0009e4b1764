"""One list of what is needed and one version: pyproject.toml, the requirements' files and the source agree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rr
import rr.version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
SCRIPT = "rr/exp_resrep.py"  # stays in the checkout


def requirements(name: str) -> list[str]:
    """A requirements file's lines, sorted."""
    return sorted((ROOT / name).read_text(encoding="utf-8").split("\n")[:-1])


def package(requirement: str) -> str:
    """What is asked for, without extras and range."""
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower()


def third_party(path: Path) -> set[str]:
    """The top-level modules that a file imports, anywhere in it, without Python's own."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module or "")
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)


def test_requirements_are_what_the_package_and_the_scripts_need() -> None:
    assert requirements("requirements.txt") == sorted(PROJECT["dependencies"] + EXTRAS["experiments"])


def test_development_requirements_are_the_extra_dev() -> None:
    everything = f"{PROJECT['name']}[experiments]"
    assert everything in EXTRAS["dev"]
    own = [requirement for requirement in EXTRAS["dev"] if requirement != everything]
    assert requirements("requirements-dev.txt") == sorted(["-r requirements.txt", *own])


def test_the_oldest_versions_are_the_lowest_that_are_asked_for() -> None:
    asked = {*PROJECT["dependencies"], *EXTRAS["experiments"], *EXTRAS["export"], *EXTRAS["dev"]}
    ours, theirs = (ROOT / "constraints-oldest.txt").read_text().split("\n\n# What these need")
    pinned = [line.replace("==", ">=") for line in ours.splitlines() if not line.startswith("#")]
    assert not {package(line.replace("==", ">=")) for line in theirs.splitlines()[1:]} & {package(one) for one in asked}
    assert set(pinned) <= asked
    assert {*PROJECT["dependencies"], *EXTRAS["experiments"], *EXTRAS["export"]} <= set(pinned)


def test_what_builds_the_package_is_a_development_requirement() -> None:
    assert set(PYPROJECT["build-system"]["requires"]) <= set(requirements("requirements-dev.txt"))


def test_a_package_has_one_range() -> None:
    ranges: dict[str, set[str]] = {}
    for requirement in [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]:
        ranges.setdefault(package(requirement), set()).add(requirement)
    assert not {name: found for name, found in ranges.items() if len(found) > 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    sorted(path for path in (ROOT / "rr").rglob("*.py") if path != ROOT / SCRIPT),
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_package_imports_only_what_it_depends_on(path: Path) -> None:
    needed = {package(requirement) for requirement in PROJECT["dependencies"]} | {"rr"}
    of_export = EXTRAS["export"] if path.is_relative_to(ROOT / "rr" / "export") else []
    optional = {package(requirement) for requirement in (*EXTRAS["report"], *of_export)}
    assert third_party(path) <= needed | optional
    at_once = ast.parse(path.read_text(encoding="utf-8")).body  # what importing the module imports: the optional not
    imports = ast.Module([node for node in at_once if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert (
        not {name.split(".")[0] for name in re.findall(r"(?m)^(?:from|import) (\S+)", ast.unparse(imports))} & optional
    )


def test_the_version_stands_in_the_source_alone() -> None:
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    assert ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"] == Path(rr.version.__file__)
    newest = re.search(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest
    assert newest[1] == rr.__version__


@pytest.mark.slow
def test_the_version_needs_no_torch() -> None:
    code = "import sys, rr; assert rr.__version__; print(*{'torch', 'numpy', 'h5py'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
