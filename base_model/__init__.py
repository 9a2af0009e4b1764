"""The networks, built by name with any widths.

Public:
    build_model: a network by name, full or with given widths, with batch norm or folded.
    build_any: ours, torchvision/NAME, timm/NAME or FILE.py:FUNCTION.
    model_names, model_info, full_widths: what there is.
    ConvBN: the convolution with batch norm behind which a pruning method puts its layers.
"""

from base_model.anywhere import build_any
from base_model.conv_bn import ConvBN
from base_model.registry import ModelInfo, build_model, full_widths, model_info, model_names

__all__ = ["ConvBN", "ModelInfo", "build_any", "build_model", "full_widths", "model_info", "model_names"]
