"""The networks, built by name with any widths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rr.lazy import lazy_exports

if TYPE_CHECKING:
    # Names: what there is, and what it's usually trained on
    from base_model.names import WHERE_ELSE, ModelInfo, check_name, folder_name, is_file, model_info, model_names

    # Networks: ours, full or with given widths, with batch norm or folded; or from anywhere
    from base_model.anywhere import build_any, pretrained_weights
    from base_model.conv_bn import ConvBN
    from base_model.registry import build_model, full_widths

__getattr__, __dir__ = lazy_exports(__name__, __file__)

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
