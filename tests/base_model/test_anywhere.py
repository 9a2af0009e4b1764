"""Networks by name from anywhere: sizes arrive, names that can't be are refused, a person's file runs as a script."""

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from base_model import build_any, check_name, folder_name, pretrained_weights

MINE = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn
from beside import CHANNELS

@dataclass
class Config:
    depth: int

def build(num_classes=7, in_channels=2):
    return nn.Sequential(nn.Conv2d(in_channels, CHANNELS, 3), nn.Flatten(), nn.LazyLinear(num_classes))

def bare():
    return nn.Linear(1, 1)

class OfSize(nn.Linear):
    def __init__(self, image_size=4):
        super().__init__(image_size**2, 1)

def nothing():
    return 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of somebody's, which imports what lies beside it."""
    (tmp_path / "beside.py").write_text("CHANNELS = 5\n")
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_sizes_reach_every_kind_of_network(mine: Path) -> None:
    assert build_any("src20", 4, 1)(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    assert build_any("lenet5bn", 4, 1, 40)(torch.zeros(2, 1, 40, 40)).shape == (2, 4)
    assert build_any("torchvision/mobilenet_v2", 4, 3)(torch.zeros(2, 3, 32, 32)).shape == (2, 4)
    assert build_any(f"{mine}:build", 4, 1)(torch.zeros(2, 1, 9, 9)).shape == (2, 4)
    assert build_any(f"{mine}:build")(torch.zeros(2, 2, 9, 9)).shape == (2, 7)
    assert build_any(f"{mine}:OfSize", 4, 1, 3).in_features == 9
    assert build_any(f"{mine}:bare", 4, 1).out_features == 1  # takes no sizes, so it gets none


def test_sizes_reach_timm() -> None:
    pytest.importorskip("timm")
    assert build_any("timm/test_resnet", 4, 1)(torch.zeros(2, 1, 32, 32)).shape == (2, 4)
    assert build_any("timm/test_resnet").get_classifier().out_features == 1000


def test_a_persons_file_takes_no_other_modules_place(mine: Path) -> None:
    path, paths = mine.with_name("data.py"), list(sys.path)
    path.write_text(MINE)
    import data

    build_any(f"{path}:bare")
    assert sys.modules["data"] is data
    assert sys.path == paths


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("src21", "src20, src32"),
        ("torchvision/resnet19", "resnet18"),
        ("timm/", "no network is called"),
        ("nowhere.py:build", "no file"),
        ("mine.py:", "no network is called"),
        ("MINE:other", "no function 'other'"),
        ("MINE:nothing", "returns a int"),
    ],
)
def test_names_that_are_none(name: str, message: str, mine: Path) -> None:
    with pytest.raises(ValueError, match=message):
        build_any(name.replace("MINE", str(mine)))


@pytest.mark.parametrize(
    ("text", "last_words"),
    [
        ("def build(:\n    pass\n", r"running .*mine\.py raised SyntaxError: .*line 1"),
        ("import no_such_package\n", r"running .*mine\.py raised ModuleNotFoundError: .*no_such_package"),
        ("def build(num_classes):\n    return 1 // 0\n", r"build\(num_classes=7\) in .*mine\.py raised ZeroDivision"),
    ],
)
def test_a_fault_in_ones_own_file_says_where_it_is_and_keeps_its_traceback(
    text: str, last_words: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(RuntimeError, match=last_words) as raised:
        build_any(f"{path}:build", 7)
    assert raised.value.__cause__ is not None
    assert not isinstance(raised.value, ValueError)  # no mistake on the command line


def test_an_argument_that_nobody_gives_is_named_with_those_that_are_given(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def build(num_classes, width, depth, *more, size=3, **rest):\n    pass\n")
    with pytest.raises(ValueError, match=r"without width, depth: it is given 'num_classes' 7; give every arg"):
        build_any(f"{path}:build", 7, 1)
    with pytest.raises(ValueError, match=r"without num_classes, width, depth: it is given nothing"):
        build_any(f"{path}:build")


def test_a_name_is_checked_before_anything_is_built() -> None:
    for name in ("src20", "torchvision/never", "timm/never", "no.py:where"):
        check_name(name)
    for name in ("never", "timm", "torchvision/", "file.py"):
        with pytest.raises(ValueError, match=r"FILE\.py:FUNCTION"):
            check_name(name)


def test_torchvision_takes_three_channels() -> None:
    with pytest.raises(ValueError, match="images of 3 channels, not 1"):
        build_any("torchvision/resnet18", 10, 1)


def test_without_timm_there_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for ask in (build_any, pretrained_weights):
        with pytest.raises(ValueError, match="timm/resnet18 needs the package timm: `pip install timm`"):
            ask("timm/resnet18")


def test_folder_names() -> None:
    names = {"src56": "src56", "torchvision/vgg11": "torchvision-vgg11", "a b/my.models.py:build": "my.models-build"}
    assert {name: folder_name(name) for name in names} == names


def test_pretrained_weights_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    state = build_any("torchvision/squeezenet1_1").state_dict()
    asked = []

    def get(url: str, **options: object) -> dict[str, torch.Tensor]:
        asked.append((url, options["check_hash"]))
        return state

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", get)
    assert pretrained_weights("torchvision/squeezenet1_1") is state
    assert asked == [(torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url, True)]

    def fail(url: str, **options: object) -> None:
        raise OSError("no\nroute")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match=r"can't download https://.* \(no route\): fetch it elsewhere"):
        pretrained_weights("torchvision/squeezenet1_1")


def test_pretrained_weights_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    model = build_any("timm/test_resnet")
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained: model if pretrained else None)
    assert pretrained_weights("timm/test_resnet").keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match="timm has no weights for 'botnet50ts_256'"):
        pretrained_weights("timm/botnet50ts_256")


def test_there_is_nothing_to_download_for_others(mine: Path) -> None:
    for name in ("src20", f"{mine}:build"):
        with pytest.raises(ValueError, match="give a file"):
            pretrained_weights(name)


@pytest.mark.slow
def test_every_network_of_torchvision_has_its_own_classes() -> None:
    assert isinstance(build_any("torchvision/googlenet", 4), nn.Module)
    assert build_any("torchvision/googlenet", 4).aux1.fc2.out_features == 4
