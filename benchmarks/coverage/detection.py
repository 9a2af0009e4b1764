"""Detectors: what of them is trained, from images to raw scores and boxes.

What comes after (boxes decoded, sorted by score, overlapping ones dropped) has no weights, and shapes that depend on
the numbers, which no trace can follow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection as torchvisions
from torchvision.models.detection import _utils as torchvisions_utils
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d, roi_align

from benchmarks.coverage import losses
from benchmarks.coverage.network import Network, images, one
from benchmarks.coverage.rt_detr import RTDETR
from benchmarks.coverage.small_detectors import CenterNet, TinyYolo

WITHOUT_WEIGHTS = {"weights": None, "weights_backbone": None}
REGION_SIZE = 7  # of what is cut out of the features for each box


class OneStage(nn.Module):
    """RetinaNet, FCOS or SSD of torchvision without its anchors and post-processing: images -> outputs by name."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.head(list(self.backbone(x).values()))


class TwoStage(nn.Module):
    """Faster R-CNN of torchvision: images -> what it proposes, and scores and boxes of four fixed regions an image."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.proposals = detector.backbone, detector.rpn.head
        self.box_head, self.box_predictor = detector.roi_heads.box_head, detector.roi_heads.box_predictor

    def forward(self, x: Tensor) -> dict[str, Any]:
        features = self.backbone(x)
        objectness, boxes = self.proposals(list(features.values()))
        finest = features["0"]
        scores, offsets = self.box_predictor(self.box_head(self.regions(finest)))
        return {"objectness": objectness, "proposed": boxes, "class_scores": scores, "offsets": offsets}

    def regions(self, features: Tensor) -> Tensor:
        """The four quarters of each image's features, [4 N, C, 7, 7]."""
        height, width = features.shape[2] / 2, features.shape[3] / 2
        corners = [(x, y, x + 1, y + 1) for x in (0, 1) for y in (0, 1)]
        size = torch.tensor([width, height, width, height], dtype=features.dtype)
        boxes = torch.tensor(corners, dtype=features.dtype) * size
        return roi_align(features, [boxes] * len(features), REGION_SIZE)


def one_stage(build: Callable[..., nn.Module]) -> nn.Module:
    """One of torchvision's, raw."""
    return OneStage(build(**WITHOUT_WEIGHTS))


def two_stage(build: Callable[..., nn.Module]) -> nn.Module:
    """One of torchvision's, raw."""
    return TwoStage(build(**WITHOUT_WEIGHTS))


def with_frozen_norms() -> nn.Module:
    """RetinaNet as it comes with downloaded weights: its backbone's BN layers have no parameters, only buffers."""
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    torchvisions_utils.overwrite_eps(backbone, 0.0)
    return OneStage(torchvisions.RetinaNet(backbone, num_classes=10))


def from_yaml(kind: str, file: str) -> nn.Module:
    """One of ultralytics' networks, from the file that describes it.

    Args:
        kind: the class, in ultralytics.nn.tasks.
        file: of the package's own.
    """
    from ultralytics.nn import tasks

    return getattr(tasks, kind)(file, verbose=False)


YOLO_SIZES = one((3, 64, 64), (3, 96, 128))
DETECTION = {
    **{
        f"ultralytics/{name}": Network(partial(from_yaml, kind, f"{name}.yaml"), YOLO_SIZES, losses.detection)
        for name, kind in {
            "yolov8n": "DetectionModel",
            "yolov8n-seg": "SegmentationModel",
            "yolov8n-pose": "PoseModel",
            "yolov5n": "DetectionModel",
            "yolov9t": "DetectionModel",
            "yolov10n": "DetectionModel",
            "yolo11n": "DetectionModel",
            "yolo12n": "DetectionModel",
        }.items()
    },
    **{
        f"torchvision/{build.__name__}": Network(partial(one_stage, build), images((64, 96)), losses.detection)
        for build in (
            torchvisions.ssdlite320_mobilenet_v3_large,
            torchvisions.retinanet_resnet50_fpn,
            torchvisions.retinanet_resnet50_fpn_v2,
            torchvisions.fcos_resnet50_fpn,
        )
    },
    **{
        f"torchvision/{build.__name__}": Network(partial(two_stage, build), images((64, 96)), losses.detection)
        for build in (torchvisions.fasterrcnn_resnet50_fpn, torchvisions.fasterrcnn_mobilenet_v3_large_fpn)
    },
    "own/retinanet_resnet18_frozen_norms": Network(with_frozen_norms, images((64, 96)), losses.detection),
    "own/rt_detr": Network(RTDETR, images((64, 96)), losses.detection),
    "own/tiny_yolo": Network(TinyYolo, images((64, 96)), losses.detection),
    "own/centernet": Network(CenterNet, images((64, 96)), losses.detection),
}
