"""An ONNX file's checksum: every runtime reads the file as before, and damage in it is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from rr import InputError, NetworkCard
from rr.export import exported_program
from rr.export.onnx_checksum import check_onnx, with_checksum
from rr.export.runtimes import package, runner, write_program

CARD = NetworkCard(mean=(0.5,), std=(0.25,), in_channels=1, image_size=8)


def test_a_flipped_bit_anywhere_is_damage(tmp_path: Path) -> None:
    path, contents = tmp_path / "a.onnx", bytes(range(256))
    path.write_bytes(whole := with_checksum(contents))
    assert check_onnx(path)
    for place in (*range(0, 256, 5), len(whole) - len(" of 0000000000000256 bytes") - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"a\.onnx is damaged"):
            check_onnx(path)
    for others in (contents, b"", b"bytes", whole[:-1], whole[1:], b"more" + whole):  # of others, or changed by them
        path.write_bytes(others)
        assert not check_onnx(path)


@pytest.mark.slow
def test_runtimes_read_a_file_with_a_checksum_as_one_more_entry(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval()
    images = torch.randn(3, 1, 8, 8)
    write_program(path := tmp_path / "a.onnx", "onnx", exported_program(model, images)[0], CARD)
    assert check_onnx(path)
    held = package("onnx").load(str(path))
    assert {entry.key for entry in held.metadata_props} == {"resrep", "sha256"}
    torch.testing.assert_close(runner(path, "onnx")(images)[0], model(images).detach())
    held.graph.name = "changed by another program, which keeps the metadata"
    path.write_bytes(held.SerializeToString())
    assert not check_onnx(path)
