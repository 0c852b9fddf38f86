"""Masks as COCO writes them: lengths of alternating runs of 0 and 1 down the columns."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_FIRST = 48  # the character "0" stands for 0
_BITS = 5  # of a number in each character, the lowest first
_MORE = 0x20  # set: the number goes on in the next character
_SIGN = 0x10  # set in the last character: the number is negative


def decode(counts: str | Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """A mask [height, width].

    Args:
        counts: run lengths, or COCO's text for them, in which lengths from the fourth on are differences
            to the one two before.
        height: of the mask, in pixels.
        width: of the mask, in pixels.

    Raises:
        ValueError: the runs are damaged or do not fill the mask.
    """
    lengths = _lengths(counts) if isinstance(counts, str) else list(counts)
    if any(length < 0 for length in lengths) or sum(lengths) != height * width:
        raise ValueError(f"runs of {sum(lengths)} pixels do not fill a mask of {width} x {height}")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def _lengths(text: str) -> list[int]:
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        chunk = ord(character) - _FIRST
        if not 0 <= chunk < 2 * _MORE:
            raise ValueError(f"{character!r} is no character of run lengths")
        number |= (chunk & (_MORE - 1)) << shift
        shift += _BITS
        if chunk & _MORE:
            continue
        if chunk & _SIGN:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("the run lengths end within a number")
    return lengths
