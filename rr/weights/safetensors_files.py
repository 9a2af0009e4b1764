"""Tensors and a network's card in `.safetensors` files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rr.errors import InputError, in_one_line
from rr.weights import checksums
from rr.weights.arrays import check_is_file, to_array
from rr.weights.card import CARD_KEY, NetworkCard
from rr.weights.checksums import CHECKSUM
from rr.weights.soundness import NUMBERS
from rr.whole_files import written_whole


def save_safetensors(path: str | Path, state: Mapping[str, Tensor], card: NetworkCard) -> None:
    """Write tensors and a card, whole or not at all.

    Args:
        path: the file; its folder is made if it isn't there.
        state: tensor by name; those that share memory are written each.
        card: what the file says of the network.
    """
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with written_whole(path) as temporary:
        # Not by save_file, whose files nobody else may read.
        text = card.to_json()
        temporary.write_bytes(save(own, metadata={CARD_KEY: text, CHECKSUM: _checksum(own, text)}))


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], NetworkCard | None]:
    """The tensors, and the card where the file has one.

    Raises:
        InputError: if the file is missing, damaged or not whole, or holds tensors of other types, or a card that is
            none.
    """
    check_is_file(path)
    try:
        with safe_open(path, framework="pt") as file:  # checks the sizes that the file names against its own
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it isn't a dict
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, AttributeError) as error:  # safetensors, for types torch lacks, too
        raise InputError(
            f"{path} isn't a whole .safetensors file ({in_one_line(str(error))}): write or copy it again"
        ) from error
    for name, tensor in state.items():
        if tensor.dtype not in NUMBERS:  # weights in 8 bits need scales that no file here has
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"{path} holds {name!r} as {kind}: give weights in float16, bfloat16, float32 or float64")
    text = metadata.get(CARD_KEY)
    if CHECKSUM not in metadata:
        checksums.tell_of_none(path)
    elif metadata[CHECKSUM] != _checksum(state, text or ""):
        raise InputError(f"{path} is damaged: what it holds isn't what was written: copy or write the file again")
    return state, None if text is None else NetworkCard.from_json(text, str(path))


def _checksum(state: Mapping[str, Tensor], card: str) -> str:
    """Of the tensors and the card."""
    return checksums.of_file(
        {name: checksums.of_array(to_array(tensor)) for name, tensor in state.items()}, {CARD_KEY: card}, None
    )
