"""Pruned networks in each format, loaded by a fresh process that has nothing of this checkout, against the model.

    python benchmarks/formats.py                  # estimated at 2 minutes on 2 free cores
    python benchmarks/formats.py --models src56

Writes results/formats.json; then run tools/results_table.py. Networks that it has from this commit aren't done again.
A random half of its MACs is taken out of each, by compactors that are folded, so that the files hold what a conversion
leaves: src56 from the trained results/bases/src56/s0, the others from random weights. The fresh process is isolated
(python -I) and lies in the folder of the file: .pt2 needs torch alone there, .onnx onnxruntime, .xml openvino, and a
process that has come to hold anything of this checkout is an error. .safetensors is loaded by rr.load_pruned, by the
name in its card. Bar: every difference is within what float32 explains (rr/export/checking.py), at two batches and,
where the network takes them, two sizes. Needs `pip install "resrep[export]" timm`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run from the checkout without PYTHONPATH

from base_model import build_any
from benchmarks.at_one_commit import held, made_with
from benchmarks.coverage.proof import converted, half_of_the_macs
from rr import NetworkCard, save_pruned
from rr.conversion import ConversionReport
from rr.export import check_export, exported_program
from rr.export.checking import example_images
from rr.export.runtimes import SUFFIXES, write_program
from rr.graph import ChannelGraph
from rr.weights import load_network
from rr.whole_files import write_text_whole
from training import init_world
from training.endings import ends_in_one_line
from training.options import OptionParser

SIZES = {"src56": 32, "torchvision/resnet18": 64, "torchvision/mobilenet_v2": 64, "timm/tf_efficientnet_lite0": 64}
WEIGHTS = {"src56": ROOT / "results" / "bases" / "src56" / "s0" / "finish.hdf5"}
CLASSES, CHANNELS = 10, 3
PACKAGES = ("onnx", "onnxruntime", "openvino", "torchvision", "timm")

# Each defines `run`: an array of images to the array of outputs.
LOADERS = {
    "safetensors": f"import torch\nsys.path.insert(0, {str(ROOT)!r})\nimport rr\n"
    "net = rr.load_pruned('net.safetensors')\nrun = lambda x: net(torch.from_numpy(x)).detach().numpy()",
    "pt2": "import torch\nnet = torch.export.load('net.pt2').module()\n"
    "run = lambda x: net(torch.from_numpy(x)).detach().numpy()",
    "onnx": "import onnxruntime\nnet = onnxruntime.InferenceSession('net.onnx')\n"
    "run = lambda x: net.run(None, {net.get_inputs()[0].name: x})[0]",
    "openvino": "import openvino\n"
    "net = openvino.Core().compile_model('net.xml', 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})\n"
    "run = lambda x: net([x])[0].copy()",
}
PROCESS = """import sys, numpy
{loader}
held = numpy.load('images.npz')
numpy.savez('outputs.npz', *[run(held[name]) for name in held.files])
print(*{{'rr', 'base_model', 'training', 'data', 'experiments'}} & set(sys.modules))
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the file lacks, print and write."""
    parser = OptionParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=tuple(SIZES), default=tuple(SIZES), help="default: all")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "formats.json")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    with ends_in_one_line(), init_world("cpu") as world:
        around = made_with(world, PACKAGES)
        networks: dict[str, Any] = held(options.output, around, "networks") or {}
        for name in options.models:
            if name not in networks:
                networks[name] = examined(*pruned(name), name)
                write_text_whole(options.output, json.dumps({**around, "networks": networks}, indent=1) + "\n")
            print(name, {form: of_one["difference"] for form, of_one in networks[name]["formats"].items()}, flush=True)


def pruned(name: str) -> tuple[nn.Module, ConversionReport]:
    """The network at half of its MACs, in eval mode, and what its conversion says."""
    torch.manual_seed(0)
    model = build_any(name, num_classes=CLASSES)
    if name in WEIGHTS:
        full = model
        model = load_network(WEIGHTS[name], lambda: full)[0]
    images = torch.randn(1, CHANNELS, SIZES[name], SIZES[name])
    graph = ChannelGraph(model.eval(), images)
    graph.insert_compactors(model, graph.prunable)
    return converted(model, graph, half_of_the_macs(graph), (images,))


def examined(model: nn.Module, report: ConversionReport, name: str) -> dict[str, Any]:
    """A network in every format.

    Args:
        model, report: what a conversion returned.
        name: that its file is to give it.
    """
    size = SIZES[name]
    card = NetworkCard(
        architecture=name,
        keywords={"num_classes": CLASSES},
        in_channels=CHANNELS,
        image_size=size,
        proof=report.as_dict(),
    )
    program, any_size = exported_program(model, torch.zeros(2, CHANNELS, size, size))
    with tempfile.TemporaryDirectory() as folder:
        save_pruned(model, Path(folder) / "net.safetensors", card)
        for form in ("onnx", "openvino"):
            write_program(Path(folder) / f"net{SUFFIXES[form]}", form, program, card)
        formats = {form: in_fresh_process(form, Path(folder), model, size, any_size) for form in LOADERS}
    return {"macs_ratio": report.macs_ratio, "any_size": any_size, "image_size": size, "formats": formats}


def in_fresh_process(form: str, folder: Path, model: nn.Module, size: int, any_size: bool) -> dict[str, Any]:
    """How far the outputs of a file are from the model's, in a process of its own.

    Args:
        form: a key of `LOADERS`.
        folder: where the files are, by the name `net`.
        model: the network in them.
        size, any_size: of the images, and whether it takes others.

    Raises:
        RuntimeError: if the process fails, or had something of this checkout that it was to do without.
    """
    np.savez(folder / "images.npz", *[images.numpy() for images in example_images(CHANNELS, size, any_size)])
    code = PROCESS.format(loader=LOADERS[form])
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{form} doesn't load and run in a process of its own:\n{done.stderr}")
    if form != "safetensors" and done.stdout.strip():
        raise RuntimeError(f"the process that ran {form} had {done.stdout.strip()} of this checkout")
    with np.load(folder / "outputs.npz") as held:
        outputs = iter([torch.from_numpy(held[name]) for name in held.files])
    check = check_export(model, lambda _: [next(outputs)], CHANNELS, size, any_size)
    return {"difference": max(one.difference for one in check.outputs), **check.as_dict()}


if __name__ == "__main__":
    main()
