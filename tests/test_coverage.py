"""The coverage benchmark: names, bars, processes, and whole examinations of tiny networks."""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.coverage import proof, run
from benchmarks.coverage.examination import examine, fitting_sizes, randomised
from benchmarks.coverage.figures import BARS, FAMILIES, bars, family, largest_difference, proven
from benchmarks.coverage.proof import give, on_disk
from benchmarks.coverage.run import default_names, in_short, main, missing
from benchmarks.processes import in_processes
from tests.process_work import work

ROOT = Path(__file__).resolve().parent.parent
TINY = """
import torch
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8),
                         nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
class Attends(nn.Module):
    def __init__(self, gate):
        super().__init__()
        self.gate = gate
        self.first, self.second, self.last = nn.Conv2d(3, 8, 16, 16), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)
    def forward(self, x):
        x = self.second(self.first(x)).flatten(2)
        if self.gate:
            return self.last((x * x.softmax(1)).mean(2))
        return self.last((x.transpose(1, 2) @ x).softmax(1).mean(1).unsqueeze(1).mul(x).mean(2))
def gated():
    return nn.Sequential(Attends(True))
def attends():
    return Attends(False)
def refuses():
    class Refuses(nn.Module):
        def forward(self, x):
            raise RuntimeError("not | today")
    return nn.Sequential(nn.Conv2d(3, 8, 3), Refuses())
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny.py"
    path.write_text(TINY)
    return path


def figures(**changes: Any) -> dict[str, Any]:
    """A model's figures that pass every bar, with changes."""
    one = {"float64": 1e-15, "float32": 2e-7, "float32_own": 1e-7}
    return {
        "share_of_macs_that_can_go": 0.9,
        "dropped": 5,
        "float64_difference": 1e-15,
        "differences": {"1 x 3 x 64 x 64": one, "2 x 3 x 96 x 96": dict(one)},
        "half": {"macs_ratio": 0.49, "macs_ratio_counted": 0.49, "float64_difference": 2e-15},
        **dict.fromkeys(("converts_again", "trains", "exports"), True),
        **changes,
    }


# Names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision/resnet18", "ResNet"),
        ("torchvision/wide_resnet50_2", "ResNet"),
        ("src20", "ResNet"),
        ("timm/resnetv2_18", "ResNet v2"),
        ("timm/resnext26ts", "ResNeXt"),
        ("timm/seresnext26d_32x4d", "SE- and ECA-ResNet"),
        ("timm/legacy_senet154", "SE- and ECA-ResNet"),
        ("timm/legacy_seresnet18", "SE- and ECA-ResNet"),
        ("timm/res2next50", "Res2Net"),
        ("timm/dm_nfnet_f0", "NFNet"),
        ("timm/inception_next_atto", "InceptionNeXt"),
        ("timm/inception_resnet_v2", "Inception"),
        ("timm/cspresnet50", "CSPNet and Darknet"),
        ("timm/cs3darknet_s", "CSPNet and Darknet"),
        ("timm/regnetz_005", "RegNet"),
        ("timm/mnasnet_small", "MnasNet"),
        ("timm/pnasnet5large", "NASNet"),
        ("timm/efficientvit_m0", "EfficientViT"),
        ("timm/convnextv2_atto", "ConvNeXt"),
        ("timm/somethingnew_b0", "somethingnew"),
        ("my/networks.py:build", "networks"),
    ],
)
def test_family(name: str, expected: str) -> None:
    assert family(name) == expected


def test_every_network_of_the_list_has_a_family_and_stands_there_once() -> None:
    names = default_names()
    assert len(names) == len(set(names))
    assert 60 <= sum(name.startswith("timm/") for name in names) <= 85
    assert {family(name) for name in names} <= set(FAMILIES)


def test_timm_has_the_networks_of_the_list() -> None:
    timm = pytest.importorskip("timm")
    theirs = [name.removeprefix("timm/") for name in default_names() if name.startswith("timm/")]
    assert [name for name in theirs if not timm.is_model(name)] == []


# Bars --------------------------------------------------------------------------------------------------------


def test_bars_of_a_model_that_passes() -> None:
    assert bars(figures()) == dict.fromkeys(BARS, True)
    assert proven(figures())
    assert largest_difference(figures()) == 2e-15


@pytest.mark.parametrize(
    ("bar", "path", "value"),
    [
        ("float64", ("float64_difference",), 1.1e-10),
        ("float64", ("differences", "2 x 3 x 96 x 96", "float64"), 1.1e-10),
        ("float64", ("differences", "2 x 3 x 96 x 96", "float64"), float("nan")),
        ("float64", ("half", "float64_difference"), 1.1e-10),
        ("float32", ("differences", "1 x 3 x 64 x 64", "float32"), 1.1e-6),
        ("float32", ("differences", "1 x 3 x 64 x 64", "float32"), float("nan")),
        ("converts_again", ("converts_again",), False),
        ("trains", ("trains",), "RuntimeError: no"),
        ("exports", ("exports",), False),
        ("reaches_half", ("half", "macs_ratio"), 0.51),
        ("reaches_half", ("half", "macs_ratio_counted"), 0.51),
    ],
)
def test_one_figure_misses_one_bar(bar: str, path: tuple[str, ...], value: object) -> None:
    found = figures()
    place = found
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert [name for name, passed in bars(found).items() if not passed] == [bar]
    assert proven(found) == (bar == "reaches_half")  # how much can go is no matter of proof


def test_float32_may_be_as_far_off_as_the_networks_own() -> None:
    one = {"float64": 0.0, "float32": 3.9e-6, "float32_own": 1e-6}
    assert bars(figures(differences={"a": one}))["float32"] is True
    assert bars(figures(differences={"a": {**one, "float32": 4.1e-6}}))["float32"] is False


def test_what_was_not_measured_is_neither_passed_nor_missed() -> None:
    assert bars({"parameters": 3}) == dict.fromkeys(BARS)
    assert not proven({"not_run": "too large"})
    assert not proven(figures(failed="ValueError: no"))
    assert not proven(figures(dropped=0))  # the network as it was is equal to itself


def test_the_bars_in_the_file_are_those_of_its_figures() -> None:
    models = json.loads((ROOT / "results" / "coverage.json").read_text())["models"]
    assert models
    for name, found in models.items():
        assert found.get("bars", bars(found)) == bars(found), name


# Processes ---------------------------------------------------------------------------------------------------


def test_each_in_a_process_of_its_own_and_a_dead_one_is_a_failure() -> None:
    found = dict(in_processes(work, ["a", "killed", "b", "slow", "c"], ("!",), jobs=2, limit_s=8))
    assert {name: result["name"] for name, result in found.items() if "name" in result} == {
        name: f"{name}!" for name in "abc"
    }
    assert len({found[name]["process"] for name in "abc"} | {os.getpid()}) == 4
    assert "exit code -9" in found["killed"]["failed"]
    assert "not done after 8 s" in found["slow"]["failed"]


def test_a_stopped_run_goes_on() -> None:
    assert missing(["a", "b", "c"], {"models": {"b": {}}}) == ["a", "c"]


def test_lines_on_a_network() -> None:
    found = figures(seconds=3.0)
    assert in_short(found) == "90.0% of the MACs can go, 3 s, all bars passed"
    assert in_short({**found, "trains": "no", "exports": False}).endswith("MISSED: trains, exports")
    assert in_short({"failed": "why"}) == "FAILED: why"
    assert in_short({**found, "not_run": "too large"}).endswith("3 s; too large")


# Examinations ------------------------------------------------------------------------------------------------


def test_a_network_is_examined(tiny: Path) -> None:
    found = examine(f"{tiny}:build", most_parameters=10_000)
    assert found["bars"] == dict.fromkeys(BARS, True)
    assert found["kind"] == "cnn"
    assert (found["units"], found["prunable_units"], found["layers"]) == (21, 16, 5)
    assert [item["units"] for item in found["stays"]] == [4, 1]
    assert set(found["differences"]) == {"1 x 3 x 64 x 64", "2 x 3 x 96 x 96"}
    assert 0 < found["dropped"] < 16
    assert found["half"]["macs_ratio"] == found["half"]["macs_ratio_counted"] <= 0.5
    json.dumps(found)


def test_a_large_network_is_only_traced(tiny: Path) -> None:
    found = examine(f"{tiny}:build", most_parameters=10)
    assert found["prunable_units"] == 16
    assert "too large" in found["not_run"]
    assert found["bars"] == dict.fromkeys(BARS)


def test_a_network_that_needs_much_memory_is_postponed(tiny: Path) -> None:
    compactors = 2 * 8 * 8
    plain = (3 * 9 * 8 + 8) + 16 + (8 * 9 * 8 + 8) + 16 + (8 * 4 + 4)
    assert examine(f"{tiny}:build", 10_000, most_bytes=1000) == {"postponed": 16 * (plain + compactors)}
    assert "postponed" not in examine(f"{tiny}:build", 10_000, most_bytes=16 * (plain + compactors))


def test_the_postponed_come_at_the_end_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_turn(_: object, names: list[str], arguments: tuple, jobs: int, limit_s: float) -> Any:
        calls.append((list(names), jobs))
        for name in names:
            yield name, {"postponed": 1} if name == "large" and arguments[-1] < math.inf else {"name": name}

    calls: list[tuple[list[str], int]] = []
    monkeypatch.setattr(run, "in_processes", in_turn)
    found = list(run.examined(["large", "small"], jobs=2, threads=1, most_parameters=9, limit_s=1))
    assert found == [("small", {"name": "small"}), ("large", {"name": "large"})]
    assert calls == [(["large", "small"], 2), (["large"], 1)]


def test_attention_is_a_product_of_activations_and_not_a_softmax(tiny: Path) -> None:
    gated = examine(f"{tiny}:gated", most_parameters=0)
    attends = examine(f"{tiny}:attends", most_parameters=0)
    assert (gated["kind"], attends["kind"]) == ("cnn", "transformer")
    assert any("matmul" in item["cause"] for item in attends["stays"])


def test_causes_name_no_layer_but_for_example(tiny: Path) -> None:
    stays = {item["cause"]: item for item in examine(f"{tiny}:gated", most_parameters=0)["stays"]}
    cause = next(cause for cause in stays if "softmax" in cause)
    assert " in a layer" in cause
    assert stays[cause]["example"] == cause.replace(" in a layer", " in 0")
    assert stays["a channel of the network's output"]["units"] == 4


def test_a_network_that_cannot_be_run_is_a_failure_and_no_crash(tiny: Path) -> None:
    found = examine(f"{tiny}:refuses", most_parameters=10_000)
    assert found["failed"].startswith("ValueError: takes images of none of the sizes")
    assert not proven(found)


def test_a_wrong_conversion_misses_the_bars(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert, fold = proof.convert, proof.fold

    def spoiled(slim: nn.Module) -> nn.Module:
        with torch.no_grad():
            next(module for module in slim.modules() if isinstance(module, nn.Conv2d)).weight.mul_(1.01)
        return slim

    def wrong(*arguments: Any, **options: Any) -> Any:
        slim, report = convert(*arguments, **options)
        return spoiled(slim), report

    monkeypatch.setattr(proof, "convert", wrong)
    monkeypatch.setattr(proof, "fold", lambda *arguments: spoiled(fold(*arguments)))
    found = bars(examine(f"{tiny}:build", most_parameters=10_000))
    assert {bar for bar, passed in found.items() if not passed} == {"float64", "float32", "converts_again"}


def test_what_is_written_to_a_copy_on_disk_is_in_no_other() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = copy.deepcopy(model.state_dict())
    copies = on_disk(model, copies=2)
    names = list(dict(model.named_parameters()))
    for _ in range(2):
        give(model, copies.pop())
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert list(dict(model.named_parameters())) == names
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.zero_()


def test_nothing_begins_as_a_constant() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm, self.batch_norm = nn.Linear(8, 8), nn.LayerNorm(8), nn.BatchNorm1d(8)
            self.scale, self.gain = nn.Parameter(1e-6 * torch.ones(8)), nn.Parameter(torch.zeros(()))
            self.head = nn.Linear(8, 8)
            nn.init.zeros_(self.head.weight)

    torch.manual_seed(0)
    model = Scaled()
    drawn = model.inner.weight.clone()
    randomised(model)
    assert torch.equal(model.inner.weight, drawn)
    assert all(len(value.unique()) == 8 for name, value in model.named_parameters() if value.dim() == 1)
    assert 0.5 <= model.gain.item() <= 1.5
    assert model.head.weight.std() > 0.01
    assert (model.batch_norm.weight < 0).any()
    assert (model.scale.abs() >= 0.5).all()


def test_sizes_that_a_network_takes() -> None:
    class Takes(nn.Module):
        def __init__(self, *sizes: int) -> None:
            super().__init__()
            self.sizes = sizes

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[-1] in self.sizes
            return x

    assert fitting_sizes(Takes(64, 96), "any") == (64, 96)
    assert fitting_sizes(Takes(299, 331, 224), "any") == (299, 331)
    assert fitting_sizes(Takes(64, 224), "any") == (224, 224)
    assert fitting_sizes(Takes(64, 96, 224, 256), "torchvision/swin_t") == (224, 256)
    with pytest.raises(ValueError, match="none of the sizes"):
        fitting_sizes(Takes(32), "any")


def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "there" / "coverage.json"
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "coverage" / "run.py"),
        "--output",
        str(output),
        "--models",
        "src20",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[1/1] src20: 99.8% of the MACs can go")
    first = json.loads(output.read_text())
    assert first["models"]["src20"]["bars"] == dict.fromkeys(BARS, True)
    assert first["models"]["src20"]["commit"] == first["commit"]
    assert {"versions", "hardware", "threads", "jobs"} <= set(first)
    assert output.with_name("coverage_seconds.png").stat().st_size > 5_000
    main(command[2:])  # goes on: nothing is left to do
    assert capsys.readouterr().out == ""
    assert json.loads(output.read_text())["models"] == first["models"]

    main([*command[2:4], "--trace-again", "src20"])
    again = json.loads(output.read_text())["models"]["src20"]
    changed = {key for key, value in again.items() if value != first["models"]["src20"][key]}
    assert changed == {"trace_seconds", "trace_cpu_seconds"}


def test_options_that_make_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "c.json")]
    for options, message in (
        (["--jobs", "0"], "--jobs must be at least 1"),
        (["--models", "src20", "--again", "src20"], "not allowed with argument"),
        (["--trace-again", "src20"], "examine it first"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*output, *options])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
