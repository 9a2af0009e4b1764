"""What reads files that somebody else may have made, and the sound files that the damaged ones are made from."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image
from torch import nn

from base_model import build_model, full_widths
from benchmarks.fuzzing.mutations import ODD_NAMES, PLAIN_VALUES, TENSORS, mutated_bytes, mutated_value
from data.images import read_image
from experiments.run_report.reading import read_run
from rr.weights import NetworkCard, read_weights, save_converted, save_hdf5
from rr.weights.networks import note_widths
from rr.weights.safetensors_files import save_safetensors
from training import checkpoint_files
from training.run_folder import METRICS, RESULT, RUN, stored_run


class Silent(Exception):
    """A file with checksums was read, and isn't what was written."""


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        file: the name that the damaged file gets.
        read: raises InputError, or gives what the file holds.
        sound: makes a folder's files, all of them whole.
        rebuilt: makes a file whose bytes are in order and whose contents aren't; None where there is no such way.
        checked: whether what is read must be what was written, since the sound files have checksums.
    """

    file: str
    read: Callable[[Path], Any]
    sound: Callable[[Path], Sequence[Path]]
    rebuilt: Callable[[Path, random.Random], None] | None = None
    checked: bool = False

    def damage(self, path: Path, sound: Sequence[bytes], draw: random.Random) -> int | None:
        """Write a damaged file; which of the sound ones it was made from, None for one that was made anew."""
        if self.rebuilt is not None and draw.random() < 0.5:
            self.rebuilt(path, draw)
            return None
        which = draw.randrange(len(sound))
        path.write_bytes(mutated_bytes(sound[which], sound, draw))
        return which


def same(found: Any, original: Any) -> bool:
    """Whether two readings of weights hold the same numbers."""
    return found.arrays.keys() == original.arrays.keys() and all(
        np.array_equal(array, original.arrays[name]) and array.dtype == original.arrays[name].dtype
        for name, array in found.arrays.items()
    )


def _network() -> nn.Module:
    torch.manual_seed(0)
    return build_model("lenet5bn", widths=[2, 3, 4], folded=True)


def _state() -> dict[str, torch.Tensor]:
    """Of a few arrays, some of a batch norm; always the same numbers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict()


CARD = NetworkCard(architecture="src8", classes=("a", "b"), mean=(0.5,), std=(0.2,), in_channels=1, widths=(2, 3))


def _checked_hdf5(folder: Path) -> Sequence[Path]:
    save_converted(folder / "a.hdf5", note_widths(_network(), full_widths("lenet5bn")), {"arch": "lenet5bn"})
    save_hdf5(folder / "b.hdf5", _state(), {"arch": "x", "epochs": 3, "lr": 0.1})
    return folder / "a.hdf5", folder / "b.hdf5"


def _others_hdf5(folder: Path) -> Sequence[Path]:
    """As other programs write it: compressed, in pieces, in old and new formats, with texts."""
    paths = []
    for name, version in (("old", "earliest"), ("new", "latest")):
        paths.append(folder / f"{name}.hdf5")
        with h5py.File(paths[-1], "w", libver=version) as file:
            file["conv.weight"] = np.ones((2, 1, 3, 3), np.float32)
            file.create_dataset("zipped", data=np.zeros((40, 10)), chunks=(8, 10), compression="gzip", shuffle=True)
            file.create_dataset("deps", data=np.array([2], np.int64))
            file.attrs["arch"] = "some text of variable length"
    return paths


def _odd_hdf5(path: Path, draw: random.Random) -> None:
    with h5py.File(path, "w", libver=draw.choice(("earliest", "latest"))) as file:
        file["conv.weight"] = np.ones((2, 1, 3, 3), np.float32)
        name = draw.choice(("deps", "bn.running_var", "a", "a/b", *ODD_NAMES[1:4]))
        kind = draw.choice(("f2", "f4", "f8", ">f4", "i8", "u1", "c8", "S5", "V7", "bool", h5py.string_dtype(), "O"))
        shape = draw.choice(((), (0,), (3,), (3, 0), (1 << 40,), (2, 1, 3, 3)))
        try:
            if kind == "O":
                file.create_dataset(name, (2,), dtype=h5py.vlen_dtype(np.int32))
            else:
                file.create_dataset(name, shape, dtype=kind, chunks=shape == (1 << 40,) or None)
            file.attrs[draw.choice(("arch", "sha256", "epochs"))] = draw.choice(
                (np.arange(3), np.bytes_(b"x"), "\x1b[2J", 2**62, float("nan"), h5py.Empty("f4"), "x" * 60000, file.ref)
            )
        except (ValueError, TypeError, RuntimeError):  # HDF5 itself won't make it
            pass


def _pth(folder: Path) -> Sequence[Path]:
    payloads: dict[str, Any] = {
        "state": _state(),
        "nested": {"state_dict": _state(), "epoch": np.float64(3), "args": {"lr": 0.1}},
        "converted": {"state_dict": _state(), "deps": [2, 3], "attributes": {"arch": "src8"}},
    }
    for name, payload in payloads.items():
        torch.save(payload, folder / f"{name}.pth")
    torch.save(_state(), folder / "old.pth", _use_new_zipfile_serialization=False)
    return [folder / f"{name}.pth" for name in (*payloads, "old")]


def _odd_pth(path: Path, draw: random.Random) -> None:
    payload = {"state_dict": dict(_state()), "deps": [2, 3], "attributes": {"arch": "src8", "lr": 0.1}}
    torch.save(mutated_value(payload if draw.random() < 0.5 else payload["state_dict"], TENSORS, draw), path)


def _safetensors(folder: Path) -> Sequence[Path]:
    save_safetensors(folder / "a.safetensors", _state(), CARD)
    return [folder / "a.safetensors"]


def _odd_safetensors(path: Path, draw: random.Random) -> None:
    """Its header, JSON, says something else; the checksum is left out, so that it doesn't stop the reader first."""
    header = {
        "__metadata__": {"resrep": CARD.to_json()},
        "a.weight": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "a.running_var": {"dtype": "F32", "shape": [2, 1], "data_offsets": [8, 16]},
    }
    if draw.random() < 0.5:
        card = mutated_value(json.loads(CARD.to_json()), PLAIN_VALUES, draw)
        header["__metadata__"]["resrep"] = json.dumps(card)
    else:
        header = mutated_value(header, PLAIN_VALUES, draw)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(draw.choice((16, 16, 16, 8, 0))))


_CHECKPOINT: dict[str, Any] = {
    **{"recipe": {"arch": "src8", "lr": 0.1}, "meter": {"top1": 0.5}, "model": {"a": torch.ones(3)}, "optimizer": {}},
    **{"scheduler": {}, "callbacks": [{"alive": torch.ones(2, dtype=torch.bool)}], "epoch": 1, "step": 9},
}


def _checkpoint(folder: Path) -> Sequence[Path]:
    checkpoint_files.save(folder / "latest.pth", copy.deepcopy(_CHECKPOINT))
    return [folder / "latest.pth"]


def _odd_checkpoint(path: Path, draw: random.Random) -> None:
    torch.save(mutated_value(_CHECKPOINT, TENSORS, draw), path)


_RUN: dict[str, Any] = {
    RUN: {"recipe": {"arch": "src8", "epochs": 2}, "started": "today", "hardware": {"cpu": "some"}},
    RESULT: {"conversion": {"layers": [{"name": "a", "width": [4, 2]}]}, "base": {"top1": 80.0}},
    METRICS: [{"epoch": 1, "val": {"top1": 50.0}, "scalars": {"width/a": 3}}, {"epoch": 2, "val": None}],
}


def _write_run(folder: Path, held: dict[str, Any]) -> None:
    """The three text files of a run's folder."""
    for name in (RUN, RESULT):
        (folder / name).write_text(json.dumps(held[name]))
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in held[METRICS]))


def _run_files(folder: Path, *, damaged: str) -> Sequence[Path]:
    _write_run(folder, _RUN)
    return [folder / damaged]


def _odd_run(path: Path, draw: random.Random, *, damaged: str) -> None:
    held = {**_RUN, damaged: mutated_value(_RUN[damaged], PLAIN_VALUES, draw)}
    lines = held[METRICS]
    _write_run(path.parent, {**held, METRICS: lines if isinstance(lines, list) else [lines]})


def _read_run(path: Path) -> Any:
    """As the report and a run that goes on read it."""
    for name in {RUN, RESULT, METRICS} - {path.name}:
        if not (path.parent / name).exists():
            _write_run_but(path)
    stored_run(path.parent)
    run = read_run(path.parent)
    return run.curve("val", "top1"), run.width_names, run.layers


def _write_run_but(path: Path) -> None:
    kept = path.read_bytes()
    _write_run(path.parent, _RUN)
    path.write_bytes(kept)


def _images(folder: Path) -> Sequence[Path]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    paths = []
    for kind in ("png", "jpeg", "gif", "bmp", "webp", "tiff", "ppm"):
        held = io.BytesIO()
        Image.fromarray(pixels).save(held, kind)
        paths.append(folder / f"a.{kind}")
        paths[-1].write_bytes(held.getvalue())
    return paths


def _read_image(path: Path) -> Any:
    return read_image(str(path), 3).size


def _of_run(name: str) -> Reader:
    return Reader(name, _read_run, partial(_run_files, damaged=name), partial(_odd_run, damaged=name))


READERS = {
    "HDF5 with checksums": Reader("x.hdf5", read_weights, _checked_hdf5, checked=True),
    "HDF5 of others": Reader("x.hdf5", read_weights, _others_hdf5, _odd_hdf5),
    "pth": Reader("x.pth", read_weights, _pth, _odd_pth),
    "safetensors with checksums": Reader("x.safetensors", read_weights, _safetensors, checked=True),
    "safetensors of others": Reader("x.safetensors", read_weights, _safetensors, _odd_safetensors),
    "checkpoint": Reader("latest.pth", checkpoint_files.load, _checkpoint, _odd_checkpoint),
    **{name: _of_run(name) for name in (RUN, RESULT, METRICS)},
    "images": Reader("x.png", _read_image, _images),
}
