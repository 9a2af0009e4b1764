"""The compactor layer, and how it is put behind a layer of anyone's network."""

from rr.compactors.compactor import (
    CHILD,
    MASK_SUFFIX,
    WEIGHT_SUFFIX,
    Compactor,
    compactors_bypassed,
    find_compactors,
    insert_compactors,
    remove_compactors,
)

__all__ = [
    "CHILD",
    "MASK_SUFFIX",
    "WEIGHT_SUFFIX",
    "Compactor",
    "compactors_bypassed",
    "find_compactors",
    "insert_compactors",
    "remove_compactors",
]
