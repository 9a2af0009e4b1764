"""Files for other runtimes: what lies there afterwards, and what is said where a package is missing."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import nn

from rr import InputError, NetworkCard
from rr.export import exported_program
from rr.export.runtimes import package, runner, write_program


@pytest.mark.long
def test_openvinos_two_files_are_of_one_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    images = torch.randn(3, 3, 9, 7)
    program, _ = exported_program(model, images)
    path = tmp_path / "new" / "a.xml"
    write_program(path, "openvino", program, NetworkCard(classes=("cat",)))
    assert {file.name for file in path.parent.iterdir()} == {"a.xml", "a.bin"}
    torch.testing.assert_close(runner(path, "openvino")(images)[0], model(images).detach())
    held = package("openvino").Core().read_model(str(path)).get_rt_info(["resrep"]).astype(str)
    assert NetworkCard.from_json(held, "a.xml").classes == ("cat",)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}

    def fails(model: object, path: str, **_: object) -> NoReturn:
        Path(path).write_text("half of it")
        raise RuntimeError("no more")

    monkeypatch.setattr(package("openvino"), "save_model", fails)
    with pytest.raises(RuntimeError, match="no more"):
        write_program(path, "openvino", program, NetworkCard())
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before


def test_a_missing_package_is_named_with_its_command_and_a_fault_inside_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r'package no_such_package: `pip install "resrep\[export\]"`'):
        package("no_such_package")
    (tmp_path / "broken_package.py").write_text("import not_there_either\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_either"):
        package("broken_package")
