"""The wheel: the package rr alone, and it works where there is no checkout."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import rr

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = "rr/exp_resrep.py"
EXAMPLE = re.compile(r"<!-- library example -->\n```python\n(.*?)```", re.DOTALL)

BEFORE = """
from torch import nn
import torch

torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)),
)
example_inputs = torch.randn(2, 3, 12, 12)
loader = [(torch.randn(8, 3, 12, 12), torch.randint(4, (8,))) for _ in range(25)]
epochs = 4
"""

AFTER = """
import json
import rr

slim.eval()
again = rr.load_converted("slim.hdf5", model)
result = {
    "rr": rr.__file__,
    "ratio": pruner.report.macs_ratio,
    "difference": pruner.report.float64_difference,
    "widths": [layer.out_channels for layer in slim if isinstance(layer, nn.Conv2d)],
    "same": torch.equal(again(example_inputs), slim(example_inputs)),
    "equal": torch.allclose(model.eval()(example_inputs), slim(example_inputs), atol=1e-5),
}
with open("result.json", "w") as file:
    json.dump(result, file)
"""

EVERY_MODULE = """
import importlib, pkgutil, sys
import rr

for name in rr.__all__:
    getattr(rr, name)
print(rr.__file__)
for module in pkgutil.walk_packages(rr.__path__, "rr."):
    importlib.import_module(module.name)
    print(module.name)
"""


def run(*command: str | Path, folder: Path) -> str:
    """What a command prints, run in a folder of its own."""
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `make wheel` does."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, folder=ROOT)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel, and sees the installed torch but not the checkout."""
    folder = tmp_path_factory.mktemp("elsewhere") / "venv"
    builder = venv.EnvBuilder(symlinks=sys.platform != "win32", with_pip=False)
    builder.create(folder)
    python = Path(builder.ensure_directories(folder).env_exe)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-I", "-c", code, folder=folder).strip())
    installed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "installed.pth").write_text("\n".join(installed) + "\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--target", packages, wheel, folder=folder)
    return python


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    about = f"resrep-{rr.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"rr", about}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "rr").rglob("*.py")}
    assert {name for name in names if name.startswith("rr/")} == (sources - {SCRIPT}) | {"rr/py.typed"}
    assert wheel.stat().st_size < 300_000


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = Parser().parsestr(archive.read(f"resrep-{rr.__version__}.dist-info/METADATA").decode())
    assert (about["Name"], about["Version"]) == ("resrep", rr.__version__)
    plain = {re.split("[<>=]", line)[0] for line in about.get_all("Requires-Dist") if "extra ==" not in line}
    assert plain == {"torch", "numpy", "h5py", "tqdm", "safetensors"}
    assert set(about.get_all("Provides-Extra")) == {"experiments", "export", "report", "docs", "dev"}


def test_every_module_is_there_and_needs_no_checkout(python: Path, tmp_path: Path) -> None:
    place, *modules = run(python, "-I", "-c", EVERY_MODULE, folder=tmp_path).split()
    assert Path(place).is_relative_to(python.parent.parent)
    assert {"rr.pruner", "rr.graph.trace", "rr.weights.hdf5"} <= set(modules)
    assert "rr.exp_resrep" not in modules


def test_the_example_of_the_readme_works_where_the_wheel_is_installed(python: Path, tmp_path: Path) -> None:
    (example,) = EXAMPLE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    (tmp_path / "example.py").write_text(BEFORE + example + AFTER)
    run(python, "-I", "example.py", folder=tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert Path(result["rr"]).is_relative_to(python.parent.parent)
    assert result["ratio"] <= 0.5
    assert 0 < result["difference"] <= 1e-10
    assert result["widths"][0] < 16
    assert result["same"]
    assert result["equal"]
    assert (tmp_path / "slim.pth").is_file()
