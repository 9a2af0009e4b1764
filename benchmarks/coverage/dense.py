"""Networks with an output for each pixel: segmentation, super-resolution, denoising, poses, optical flow."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import torchvision
from torch import nn

from benchmarks.coverage import losses
from benchmarks.coverage.network import Network, images, one
from benchmarks.coverage.small_dense import EDSR, ESPCN, FSRCNN, RCAN, DnCNN, Hourglass, UNet

DECODERS = (
    "Unet",
    "UnetPlusPlus",
    "MAnet",
    "Linknet",
    "FPN",
    "PSPNet",
    "DeepLabV3",
    "DeepLabV3Plus",
    "PAN",
    "UPerNet",
    "Segformer",
)  # of segmentation-models-pytorch, all that take convolutional encoders
ENCODERS = ("resnet18", "mobilenet_v2", "efficientnet-b0", "timm-regnetx_002")


def torchvisions(name: str, **options: Any) -> nn.Module:
    """A network of torchvision's, with random weights."""
    return torchvision.models.get_model(name, weights=None, **options)


def smp(decoder: str, encoder: str) -> nn.Module:
    """A network of segmentation-models-pytorch, with random weights."""
    import segmentation_models_pytorch

    return getattr(segmentation_models_pytorch, decoder)(encoder, encoder_weights=None, classes=5)


def monai(name: str, **options: Any) -> nn.Module:
    """A network of monai's."""
    return getattr(importlib.import_module("monai.networks.nets"), name)(**options)


SEGMENTATION = images((64, 96))
VOLUMES = one((1, 16, 16, 16), (1, 32, 16, 32))
LARGER_VOLUMES = one((1, 32, 32, 32), (1, 64, 32, 32))
PLANES = one((1, 64, 64), (1, 96, 64))
PAIR_OF_IMAGES = ((((3, 128, 128),) * 2, ((3, 128, 160),) * 2),)  # RAFT takes none that are smaller
OF_2D = {"spatial_dims": 2, "in_channels": 1, "out_channels": 3}
OF_3D = {**OF_2D, "spatial_dims": 3}
SMALL = {"channels": (8, 16, 32), "strides": (2, 2)}
PLAIN = {"features": (8, 8, 16, 32, 64, 8)}
DYNAMIC = {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [8, 16, 32]}

MONAI = {
    "segresnet_3d": ("SegResNet", VOLUMES, {**OF_3D, "init_filters": 8}),
    "segresnet_2d_batchnorm": ("SegResNet", PLANES, {**OF_2D, "init_filters": 8, "norm": "batch"}),
    "basicunet_3d": ("BasicUNet", LARGER_VOLUMES, {**OF_3D, **PLAIN}),
    "basicunet_2d_batchnorm": ("BasicUNet", PLANES, {**OF_2D, **PLAIN, "norm": "batch"}),
    "basicunetplusplus_2d": ("BasicUNetPlusPlus", PLANES, {**OF_2D, **PLAIN}),
    "unet_3d": ("UNet", VOLUMES, {**OF_3D, **SMALL, "num_res_units": 2}),
    "unet_3d_batchnorm": ("UNet", VOLUMES, {**OF_3D, **SMALL, "num_res_units": 2, "norm": "batch"}),
    "attention_unet_3d": ("AttentionUnet", VOLUMES, {**OF_3D, **SMALL}),
    "dynunet_3d": ("DynUNet", VOLUMES, {**OF_3D, **DYNAMIC}),
    "dynunet_2d_batchnorm": ("DynUNet", PLANES, {**OF_2D, **DYNAMIC, "norm_name": "batch", "res_block": True}),
    "vnet_3d": ("VNet", VOLUMES, {"spatial_dims": 3, "in_channels": 1, "out_channels": 3}),
    "highresnet_3d": ("HighResNet", VOLUMES, {**OF_3D}),
    "autoencoder_2d": ("AutoEncoder", PLANES, {**OF_2D, "channels": (8, 16, 32), "strides": (2, 2, 2)}),
    "flexibleunet_2d": ("FlexibleUNet", PLANES, {**OF_2D, "backbone": "efficientnet-b0", "pretrained": False}),
    "quicknat": ("Quicknat", PLANES, {"num_classes": 3, "num_channels": 1}),
    "mednext_3d": ("MedNeXt", LARGER_VOLUMES, {**OF_3D, "init_filters": 8}),
}

DENSE = {
    **{
        f"torchvision/{name}": Network(partial(torchvisions, name, **options), SEGMENTATION, losses.classes)
        for name, options in {
            "fcn_resnet50": {"weights_backbone": None},
            "fcn_resnet101": {"weights_backbone": None, "aux_loss": True},
            "deeplabv3_resnet50": {"weights_backbone": None, "aux_loss": True},
            "deeplabv3_resnet101": {"weights_backbone": None},
            "deeplabv3_mobilenet_v3_large": {"weights_backbone": None},
            "lraspp_mobilenet_v3_large": {"weights_backbone": None},
        }.items()
    },
    **{
        f"torchvision/{name}": Network(partial(torchvisions, name), PAIR_OF_IMAGES, losses.endpoint_error)
        for name in ("raft_small", "raft_large")
    },
    "own/unet_2d": Network(UNet, SEGMENTATION, losses.classes),
    "own/unet_2d_upsampled": Network(partial(UNet, upsample=True), SEGMENTATION, losses.classes),
    "own/unet_3d": Network(partial(UNet, dims=3, in_channels=1), VOLUMES, losses.classes),
    "own/edsr": Network(EDSR, one((3, 24, 24), (3, 32, 40)), losses.regression),
    "own/espcn": Network(ESPCN, one((1, 24, 24), (1, 32, 40)), losses.regression),
    "own/rcan": Network(RCAN, one((3, 24, 24), (3, 32, 40)), losses.regression),
    "own/fsrcnn": Network(FSRCNN, one((1, 24, 24), (1, 32, 40)), losses.regression),
    "own/dncnn": Network(DnCNN, one((1, 40, 40), (1, 48, 64)), losses.regression),
    "own/hourglass": Network(Hourglass, SEGMENTATION, losses.regression),
    **{
        f"monai/{name}": Network(partial(monai, kind, **options), sizes, losses.classes)
        for name, (kind, sizes, options) in MONAI.items()
    },
    **{
        f"smp/{decoder.lower()}-{encoder}": Network(
            partial(smp, decoder, encoder), images((64, 96), (128, 160)), losses.classes
        )
        for encoder in ENCODERS
        for decoder in DECODERS
    },
}
