"""What the figures that run.py measures mean: the bars that a model has to pass, and the series it belongs to.

Pure functions of what is in results/coverage.json; figures that a model lacks give None, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

Figures = Mapping[str, Any]

CLASSIFIERS = "classifiers"  # the family of a model whose figures don't say another
HALF = 0.5
FLOAT64_BAR = 1e-10
FLOAT32_BAR, FLOAT32_TIMES_OWN = 1e-6, 4  # the larger of the two limits
STEPS = ("converts_again", "trains", "exports")  # what has to work with the converted network
BARS = ("reaches_half", "float64", "float32", *STEPS)

# Series -> how its models' names begin, without what stands before the slash; the first that fits counts.
SERIES = {
    # Detectors
    "YOLO": "yolo|tiny_yolo",
    "RetinaNet": "retinanet",
    "FCOS": "fcos",
    "SSD": "ssd",
    "Faster R-CNN": "fasterrcnn",
    "RT-DETR": "rt_detr",
    "CenterNet": "centernet",
    # An output for each pixel
    "FCN": "fcn",
    "DeepLab": "deeplab",
    "LR-ASPP": "lraspp",
    "RAFT": "raft",
    "U-Net": "(basic|dyn|flexible|attention_)?unet|pix2pix|vnet_|manet|linknet|mednext|quicknat|segresnet",
    "FPN": "fpn",
    "PSPNet": "pspnet",
    "PAN": "pan-",
    "UPerNet": "upernet",
    "SegFormer": "segformer",
    "Super-resolution": "edsr|espcn|rcan|fsrcnn",
    "DnCNN": "dncnn",
    # Video, sounds, generators
    "Video ResNet": r"r3d|mc3|r2plus1d",
    "S3D": "s3d",
    "MViT": "mvit",
    "CRNN": "crnn|speech_recogniser",
    "1-D": "m5|tcn|wav|convtasnet",
    "Generators": "dcgan|cyclegan|style_generator|autoencoder|discriminator",
    "Several inputs or outputs": "siamese|change_detector|two_streams|multi_task",
    # Classifiers
    "AlexNet": "alexnet",
    "LeNet": "lenet",
    "VGG": "(bn_)?vgg|vc$",
    "ResNet": r"(wide_)?resnet(\d|blur|aa|rs)|sr(c|es)\d",
    "ResNet v2": "resnetv2",
    "ResNeXt": "resnext",
    "SE- and ECA-ResNet": "(legacy_)?se(res)?ne(x?t|xt)|ecaresne",
    "SK-ResNet": "skresne",
    "ResNeSt": "resnest",
    "Res2Net": "res2ne",
    "TResNet": "tresnet",
    "NFNet": r"\w*nfnet|nf_",
    "RegNet": "regnet",
    "DenseNet": "densenet",
    "RDNet": "rdnet",
    "DPN": "dpn",
    "DLA": "dla",
    "HRNet": "hrnet",
    "VoVNet": "(ese_)?vovnet",
    "SelecSLS": "selecsls",
    "HGNet": "hgnet",
    "InceptionNeXt": "inception_next",
    "Inception": "inception|googlenet",
    "Xception": "xception",
    "NASNet": "p?nasnet",
    "CSPNet and Darknet": "cs[p3]|darknet",
    "GENet": "gernet",
    "RepVGG": "repvgg",
    "RepViT": "repvit",
    "MobileOne": "mobileone",
    "MobileNet": "mobilenet|smi1",
    "MnasNet": "(se)?mnasnet|spnasnet",
    "FBNet": "fbnet",
    "EfficientNet": "(tf_)?efficientnet|tinynet",
    "EfficientViT": "efficientvit",
    "MixNet": "mixnet",
    "LCNet": "lcnet",
    "HardCoRe-NAS": "hardcorenas",
    "ReXNet": "rexnet",
    "GhostNet": "(rep)?ghostnet",
    "ShuffleNet": "shufflenet|menet",
    "SqueezeNet": "squeezenet",
    "ConvNeXt": "convnext",
    "ConvMixer": "convmixer",
    "EdgeNeXt": "edgenext",
    "FasterNet": "fasternet",
    "FastViT": "fastvit",
    "StarNet": "starnet",
    "MambaOut": "mambaout",
    "ViT": "vit_",
    "Swin": "swin",
    "MaxViT": "maxvit",
}


def series(name: str) -> str:
    """The series of a model by its name; for a name that none of `SERIES` fits, the letters that it begins with."""
    bare = name.rpartition("/")[2]
    for label, pattern in SERIES.items():
        if re.match(pattern, bare):
            return label
    return re.match(r"[a-zA-Z]*", bare).group() or bare


def bars(figures: Figures) -> dict[str, bool | None]:
    """Which bars a model's figures pass.

    Returns:
        By name as in `BARS`, whether it is passed; None where nothing was measured.
        reaches_half: whether a random choice among all prunable channels, made as the masks are, takes the converted
            network to half of the MACs, by the graph's count and by torch's own.
        float64, float32: whether the largest relative difference of the outputs, over all inputs, is small enough.
        converts_again, trains, exports: whether that works with the converted network.
    """
    return {
        "reaches_half": _reaches_half(figures),
        "float64": _at_most(largest_difference(figures), FLOAT64_BAR),
        "float32": _float32(figures),
        **{step: figures[step] is True if step in figures else None for step in STEPS},
    }


def proven(figures: Figures) -> bool:
    """Whether channels were dropped, and the result is equal and usable: no bar but `reaches_half` is missed."""
    missed = [bar for bar, passed in bars(figures).items() if passed is False and bar != "reaches_half"]
    return "failed" not in figures and figures.get("dropped", 0) > 0 and not missed


def was_run(figures: Figures) -> bool:
    """Whether the proof was tried; networks that are too large for the machine are only traced."""
    return "not_run" not in figures


def largest_difference(figures: Figures) -> float | None:
    """The largest relative difference in float64 that any of a model's conversions and inputs showed."""
    found = [item["float64"] for item in figures.get("differences", {}).values() if "float64" in item]
    for part in (figures, figures.get("half", {})):
        if "float64_difference" in part:
            found.append(part["float64_difference"])
    return worst(found)


def worst(values: Iterable[float]) -> float | None:
    """The largest value, NaN where there is one (max() may pass over it), None where there is no value."""
    found = list(values)
    return next((value for value in found if value != value), max(found, default=None))


def _at_most(value: float | None, limit: float) -> bool | None:
    return None if value is None else value <= limit


def _float32(figures: Figures) -> bool | None:
    found = list(figures.get("differences", {}).values())
    if not found:
        return None
    return all(item["float32"] <= max(FLOAT32_BAR, FLOAT32_TIMES_OWN * item["float32_own"]) for item in found)


def _reaches_half(figures: Figures) -> bool | None:
    half = figures.get("half")
    return None if half is None else max(half["macs_ratio"], half["macs_ratio_counted"]) <= HALF
