"""Where tests stand, and how long files may be: read from the files' names and their source, nothing is run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.sources import ROOT, imported, place, sources

LONGEST = 350
# Test files without a source of their name, and what they test.
OF_MORE_THAN_ONE = {
    "tests/base_model/test_build_model.py": "every network of base_model, by name",
    "tests/docs/test_blocks.py": "the code on all pages",
    "tests/docs/test_pages.py": "all pages in docs/, and README.md",
    "tests/experiments/test_distributed_runs.py": "whole runs in several processes",
    "tests/experiments/test_narrowed_runs.py": "whole runs that get narrower on the way",
    "tests/data/test_links.py": "folders of images from strangers",
    "tests/experiments/test_own_network.py": "whole runs of a network in a person's own file",
    "tests/experiments/test_stopped_runs.py": "whole runs that are stopped and go on",
    "tests/rr/conversion/test_random_networks.py": "from tracing to the proof, on networks that are made at random",
    "tests/test_imports.py": "what each package may import",
    "tests/test_on_device.py": "what another device could do differently",
    "tests/test_package.py": "the wheel, in an environment of its own",
    "tests/test_structure.py": "all files",
    "tests/training/test_golden_loss.py": "a whole training, against losses that were noted",
    "tests/training/test_resume.py": "a whole training that is stopped and goes on",
}

PATHS = {place(path): path for path in sources()}
TESTS = [name for name in PATHS if name.startswith("tests/") and Path(name).name.startswith("test_")]


def has_source(name: str, root: Path = ROOT) -> bool:
    """Whether tests/a/test_b.py has a/b.py, a package a/b, or another file a/b.* to test."""
    folder, stem = root / Path(name).relative_to("tests").parent, Path(name).stem.removeprefix("test_")
    return (folder / stem).is_dir() or any(folder.glob(f"{stem}.*"))


def imported_tests(tree: ast.Module) -> set[str]:
    """What a file imports from test modules."""
    return {name for name in imported(tree) if any(part.startswith("test_") for part in name.split("."))}


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_is_too_long() -> None:
    assert not {name: length(path) for name, path in PATHS.items() if length(path) > LONGEST}


@pytest.mark.parametrize("name", TESTS)
def test_a_test_file_is_named_for_the_source_that_it_tests(name: str) -> None:
    assert has_source(name) != (name in OF_MORE_THAN_ONE), "tests/a/test_b.py tests a/b.py"


def test_the_exceptions_are_there() -> None:
    assert set(OF_MORE_THAN_ONE) <= set(TESTS)


@pytest.mark.slow
def test_test_files_are_independent_of_each_other() -> None:
    """What several share stands in a module of its own (tests/rr/pruners.py)."""
    found = {name: imported_tests(ast.parse(path.read_text(encoding="utf-8"))) for name, path in PATHS.items()}
    assert not {name: names for name, names in found.items() if names}


def test_the_rules_see_what_they_forbid(tmp_path: Path) -> None:
    (tmp_path / "rr" / "graph").mkdir(parents=True)
    (tmp_path / "rr" / "pruner.py").write_text("x = 1\n" * 351)
    assert length(tmp_path / "rr" / "pruner.py") == LONGEST + 1
    assert has_source("tests/rr/test_pruner.py", tmp_path)
    assert has_source("tests/rr/test_graph.py", tmp_path)
    assert not has_source("tests/rr/test_prune.py", tmp_path)
    assert not has_source("tests/test_pruner.py", tmp_path)
    tree = ast.parse("from tests.rr.test_pruner import settle\nfrom tests.rr import test_flow, pruners\nimport rr")
    assert imported_tests(tree) == {"tests.rr.test_pruner", "tests.rr.test_pruner.settle", "tests.rr.test_flow"}
