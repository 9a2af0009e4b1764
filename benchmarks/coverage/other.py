"""Networks of other kinds: video, volumes, sounds, text, several inputs or outputs, generators, rarer classifiers."""

from __future__ import annotations

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import torchvision
from torch import nn
from torchvision.models.video.mvit import MSBlockConfig, MViT

from benchmarks.coverage import losses, small_audio, small_other
from benchmarks.coverage.dense import OF_2D, OF_3D, PLANES, VOLUMES, monai
from benchmarks.coverage.network import Network, images, listed, one

PYTORCHCV_NAMES = Path(__file__).with_name("pytorchcv_networks.txt")
IMAGES = images((32, 48))
CLIPS = one((3, 8, 48, 48), (3, 12, 64, 48))
LONGER_CLIPS = one((3, 16, 32, 32), (3, 16, 32, 48))
FIXED_CLIPS = one((3, 8, 32, 32), (3, 8, 32, 32))
SOUNDS = one((1, 8000), (1, 12000))
# The first that fit: those for ImageNet often end in a pool of 7 x 7, those for CIFAR in one of 8 x 8.
PYTORCHCV_SIZES = images((64, 96), (32, 32), (224, 224), (299, 299))


def video(name: str, **options: Any) -> nn.Module:
    """A network of torchvision.models.video, with random weights."""
    return torchvision.models.get_model(name, weights=None, num_classes=20, **options)


def s3d() -> nn.Module:
    """S3D, whose last pool takes images of any size: the published one is a window of 7 x 7."""
    model = video("s3d")
    model.avgpool = nn.AdaptiveAvgPool3d(1)
    return model


def mvit() -> nn.Module:
    """A multiscale vision transformer of three blocks, for small and short clips."""
    kernels = {"kernel_q": [3, 3, 3], "kernel_kv": [3, 3, 3]}
    strides = [([1, 1, 1], [1, 4, 4]), ([1, 2, 2], [1, 2, 2]), ([1, 1, 1], [1, 2, 2])]
    widths = [(1, 48, 96), (2, 96, 96), (2, 96, 96)]
    blocks = [
        MSBlockConfig(heads, inputs, outputs, **kernels, stride_q=of_queries, stride_kv=of_keys)
        for (heads, inputs, outputs), (of_queries, of_keys) in zip(widths, strides, strict=True)
    ]
    return MViT(
        (32, 32),
        8,
        blocks,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        num_classes=20,
    )


def pytorchcv(name: str) -> nn.Module:
    """A network of pytorchcv's, with random weights."""
    from pytorchcv.model_provider import get_model

    return get_model(name, pretrained=False)


def torchaudio(name: str, **options: Any) -> nn.Module:
    """A network of torchaudio's, with random weights."""
    return getattr(importlib.import_module("torchaudio.models"), name)(**options)


VIDEO = {
    "r3d_18": (CLIPS, {}),
    "mc3_18": (CLIPS, {}),
    "r2plus1d_18": (CLIPS, {}),
    "swin3d_t": (CLIPS, {}),
}
CLASSES_2D = {"spatial_dims": 2, "in_channels": 1, "num_classes": 4}
CLASSES_3D = {**CLASSES_2D, "spatial_dims": 3}
BLOCKS = {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [8, 16, 32, 64], "n_input_channels": 1}
SMALL = {"channels": (8, 16, 32), "strides": (2, 2, 2)}
MONAI = {
    "densenet121_3d": ("DenseNet121", one((1, 32, 32, 32), (1, 48, 32, 32)), {**OF_3D}),
    "densenet_2d": ("DenseNet", PLANES, {**OF_2D, "init_features": 16, "growth_rate": 8, "block_config": (2, 3, 2)}),
    "resnet_3d": ("ResNet", VOLUMES, {"spatial_dims": 3, **BLOCKS}),
    "seresnet50_2d": ("SEResNet50", PLANES, {**CLASSES_2D}),
    "efficientnet_b0_2d": (
        "EfficientNetBN",
        PLANES,
        {"model_name": "efficientnet-b0", "pretrained": False, **CLASSES_2D},
    ),
    "regressor_2d": ("Regressor", one((1, 64, 64), (1, 64, 64)), {"in_shape": (1, 64, 64), "out_shape": (2,), **SMALL}),
    "discriminator_2d": ("Discriminator", one((1, 64, 64), (1, 64, 64)), {"in_shape": (1, 64, 64), **SMALL}),
}
OTHER = {
    **{
        f"torchvision/{name}": Network(partial(video, name, **options), sizes, losses.classes)
        for name, (sizes, options) in VIDEO.items()
    },
    "torchvision/s3d": Network(s3d, LONGER_CLIPS, losses.classes),
    "torchvision/mvit_of_three_blocks": Network(mvit, FIXED_CLIPS, losses.classes),
    "own/m5": Network(small_audio.M5, SOUNDS, losses.classes),
    "own/tcn": Network(small_audio.TCN, one((8, 60), (8, 91)), losses.classes),
    "own/wavenet": Network(small_audio.WaveNet, one((1, 128), (1, 200)), losses.classes),
    "own/keyword_spotter": Network(small_audio.KeywordSpotter, one((1, 49, 40), (1, 65, 40)), losses.classes),
    "own/crnn_lstm": Network(small_audio.CRNN, one((1, 32, 64), (1, 32, 100)), losses.sequence),
    "own/crnn_gru": Network(
        partial(small_audio.CRNN, recurrent=nn.GRU), one((1, 32, 64), (1, 32, 100)), losses.sequence
    ),
    "own/speech_recogniser": Network(small_audio.SpeechRecogniser, one((1, 32, 64), (1, 32, 90)), losses.sequence),
    "torchaudio/wav2letter": Network(
        partial(torchaudio, "Wav2Letter", num_classes=20, input_type="mfcc", num_features=13),
        one((13, 100), (13, 160)),
        losses.regression,
    ),
    "torchaudio/convtasnet": Network(
        partial(
            torchaudio, "ConvTasNet", enc_num_feats=64, msk_num_feats=32, msk_num_hidden_feats=64, msk_num_layers=3
        ),
        one((1, 1000), (1, 1600)),
        losses.regression,
    ),
    "own/siamese": Network(small_other.Siamese, ((((3, 32, 32),) * 2, ((3, 48, 40),) * 2),), losses.contrastive),
    "own/change_detector": Network(
        small_other.ChangeDetector, ((((3, 32, 32),) * 2, ((3, 48, 40),) * 2),), losses.classes
    ),
    "own/two_streams": Network(
        small_other.TwoStreams, ((((3, 32, 32), (1, 32, 32)), ((3, 48, 40), (1, 48, 40))),), losses.classes
    ),
    "own/multi_task": Network(small_other.MultiTask, IMAGES, losses.every_head),
    "own/pointnet": Network(small_other.PointNet, one((3, 100), (3, 150)), losses.classes),
    "own/dcgan_generator": Network(small_other.DCGenerator, one((32, 1, 1), (32, 2, 1)), losses.regression),
    "own/dcgan_discriminator": Network(small_other.DCDiscriminator, images((32, 32)), losses.real_or_not),
    "own/pix2pix": Network(small_other.Pix2Pix, IMAGES, losses.regression),
    "own/pix2pix_instance_norm": Network(
        partial(small_other.Pix2Pix, norm=nn.InstanceNorm2d), IMAGES, losses.regression
    ),
    "own/cyclegan_generator": Network(small_other.CycleGenerator, IMAGES, losses.regression),
    "own/style_generator": Network(small_other.StyleGenerator, one((32,), (32,)), losses.regression),
    "own/autoencoder": Network(small_other.AutoEncoder, images((32, 32)), losses.regression),
    **{
        f"monai/{name}": Network(partial(monai, kind, **options), sizes, losses.classes)
        for name, (kind, sizes, options) in MONAI.items()
    },
    **{
        f"pytorchcv/{name}": Network(partial(pytorchcv, name), PYTORCHCV_SIZES, losses.classes)
        for name in listed(PYTORCHCV_NAMES)
    },
}
