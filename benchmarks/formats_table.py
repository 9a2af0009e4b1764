"""What formats.json says, as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMATS = {
    "safetensors": "`.safetensors`, by name",
    "pt2": "`.pt2`, torch alone",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
}
PACKAGES = ("torch", "onnxruntime", "openvino", "torchvision", "timm")


def formats_table(results: Mapping[str, Any]) -> str:
    """The networks by formats: the largest difference from the model in float64, over the largest output."""
    head = ["network", "MACs kept", "sizes of images", "the model itself in float32", *FORMATS.values()]
    rows = [head, ["---"] * len(head)]
    for name, found in results["networks"].items():
        formats = [found["formats"][form] for form in FORMATS]
        own = max(one["own_error"] for of_one in formats for one in of_one["outputs"])
        sizes = "any" if found["any_size"] else f"{found['image_size']} alone"
        cells = [f"{of_one['difference']:.1e}" + ("" if of_one["is_equal"] else " (NOT equal)") for of_one in formats]
        rows.append([f"`{name}`", f"{found['macs_ratio']:.1%}", sizes, f"{own:.1e}", *cells])
    versions = ", ".join(f"{package} {results['versions'][package]}" for package in PACKAGES)
    made = f"`results/formats.json`: {results['hardware']['cpu']}, {versions}, commit {results['commit'][:10]}."
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", made])
