"""The networks, built by name with any widths.

Public:
    build_model: a network by name, full or with given widths, with batch norm or folded.
    build_any: ours, torchvision/NAME, timm/NAME or FILE.py:FUNCTION; check_name, is_file, WHERE_ELSE: such names.
    folder_name: such a name as a folder's; pretrained_weights: what torchvision and timm offer to download.
    model_names, model_info, full_widths: what there is.
    ConvBN: the convolution with batch norm behind which a pruning method puts its layers.
"""

from base_model.anywhere import WHERE_ELSE, build_any, check_name, folder_name, is_file, pretrained_weights
from base_model.conv_bn import ConvBN
from base_model.registry import ModelInfo, build_model, full_widths, model_info, model_names

__all__ = [
    "WHERE_ELSE",
    "ConvBN",
    "ModelInfo",
    "build_any",
    "build_model",
    "check_name",
    "folder_name",
    "full_widths",
    "is_file",
    "model_info",
    "model_names",
    "pretrained_weights",
]
