"""The explaining tool, on networks from anywhere."""

import re
from pathlib import Path

import pytest

from tests import scripts
from tests.scripts import Done


def explain(*options: object) -> Done:
    return scripts.call("tools/explain.py", *options)


@pytest.mark.long
def test_a_network_of_torchvision() -> None:
    run = explain("-a", "torchvision/shufflenet_v2_x0_5", "--image-size", 64)
    assert run.returncode == 0, run.stderr
    line = next(line for line in run.stdout.splitlines() if line.startswith("stage2.0.branch2.0 "))
    assert line.endswith("yes")
    assert "1,000 units stay: a channel of the network's output" in run.stdout


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\n"
        "class Sizes(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.view(-1, 144)\n"
        "class Sums(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.cumsum(1)\n"
        "def counted():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), Sizes(), nn.Linear(144, 3), Sums(), nn.Linear(3, 2))\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))\n"
    )
    run = explain("-a", f"{path}:build", "--in-channels", 1, "--image-size", 8)
    assert run.returncode == 0, run.stderr
    assert "with --layers internal 4 of 7 units can go, and with them 75.0% of the MACs" in run.stdout
    run = explain("-a", f"{path}:counted", "--in-channels", 1, "--image-size", 8)
    assert "4 units stay: its forward fails with fewer channels" in run.stdout
    assert "units stay: passes through cumsum in 4, which computes over the channels" in run.stdout
    assert explain("-a", f"{path}:other").returncode == 2


@pytest.mark.slow
def test_what_can_go_is_said_for_each_choice_of_layers() -> None:
    internal, every = re.findall(r"with --layers (\w+) (\d+) of 459 units can go", explain("-a", "src20").stdout)
    assert internal[0] == "internal"
    assert every[0] == "all"
    assert int(internal[1]) < int(every[1])


def test_where_nothing_can_go_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n")
    run = explain("-a", f"{path}:build", "--image-size", 8)
    assert run.returncode == 0, run.stderr
    assert "with --layers all no unit can go" in run.stdout


@pytest.mark.slow
def test_a_function_that_needs_the_number_of_classes_gets_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from torch import nn\n"
        "def build(num_classes):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, num_classes))\n"
    )
    words = ("-a", f"{path}:build", "--image-size", 8)
    assert "1,000 units stay: a channel of the network's output" in explain(*words).stdout
    assert "7 units stay: a channel of the network's output" in explain(*words, "--num-classes", 7).stdout


@pytest.mark.parametrize("option", ["--in-channels", "--image-size", "--num-classes"])
def test_sizes_that_cant_be_are_refused(option: str) -> None:
    run = explain("-a", "src20", option, 0)
    assert run.returncode == 2
    assert f"{option} is 0: give at least 1" in run.stderr
