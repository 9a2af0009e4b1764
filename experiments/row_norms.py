"""The norms of compactor rows as a line of metrics.jsonl holds them: a byte each, in base64."""

from __future__ import annotations

import base64

import numpy as np

GONE, WITHOUT_COMPACTOR = 0, 255  # taken out of the network; folded into the layer before it, and alive
LEAST, STEP = -8.0, 0.04  # the smallest base-10 logarithm that is told apart, and the steps from there


def encoded(norms: np.ndarray) -> str:
    """Rows' norms as text: 1 stands for 1e-8 and less, each further number up to 254 for 1.096 times more.

    Args:
        norms: [rows], as `LiveModel.unit_norms` has them: zero where a row is gone, infinite where none is there.

    Returns:
        Base64 of a byte for each row.
    """
    with np.errstate(divide="ignore"):
        steps = np.round((np.log10(norms) - LEAST) / STEP) + 1
    codes = np.clip(np.nan_to_num(steps, nan=np.inf), 1, WITHOUT_COMPACTOR - 1)  # NaN is no row that has died
    codes = np.where(norms == 0, GONE, np.where(np.isinf(norms), WITHOUT_COMPACTOR, codes))
    return base64.b64encode(codes.astype(np.uint8).tobytes()).decode()


def decoded(text: str) -> np.ndarray:
    """[rows], base-10 logarithms of norms: minus infinity where a row is gone, infinity where none is there.

    Raises:
        ValueError: for text that is no base64.
    """
    codes = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    logarithms = LEAST + STEP * (codes.astype(float) - 1)
    return np.where(codes == GONE, -np.inf, np.where(codes == WITHOUT_COMPACTOR, np.inf, logarithms))
