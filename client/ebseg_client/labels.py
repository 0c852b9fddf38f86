"""Label maps and masks from what an answer holds; a reader of COCO's compressed run lengths."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ebseg_client.errors import AnswerError, InputError

Number = TypeVar("Number", bound=np.generic)
MOST_PIXELS = 1 << 30  # of maps; a size beyond is a mistake, and its memory would end the program
_LONGEST_NUMBER = 60  # bits of a run's length, sign included
_PNG_MODES = frozenset({"P", "L", "1", "I;16"})  # a palette's numbers, or grey


@dataclass(frozen=True)
class Maps:
    """The label map of an answer, in the forms that it came in; read when asked for.

    Attributes:
        height, width: pixels.
        rles: counts of each class, by label from 1; None if not asked for.
        png, npy: files; None if not asked for.
    """

    height: int
    width: int
    rles: tuple[str, ...] | None = None
    png: bytes | None = None
    npy: bytes | None = None

    @cached_property
    def labels(self) -> NDArray[np.uint16]:
        """uint16 [H, W], 0 for "other", k for the k-th class.

        Raises:
            InputError: the request asked for none of the outputs that hold it.
            AnswerError: what came is damaged.
        """
        if self.npy is not None:
            labels = read_npy(self.npy, np.uint16, (self.height, self.width))
        elif self.png is not None:
            labels = _read_png(self.png, (self.height, self.width))
        elif self.rles is not None:
            labels = labels_of(self.rles, self.height, self.width)
        else:
            raise InputError("the response holds no label map: ask for rle, png or npy in outputs")
        labels.setflags(write=False)  # it is kept, and given to everybody who asks
        return labels

    def mask(self, label: int) -> NDArray[np.bool_]:
        """Pixels of a label, bool [H, W]; errors as of `labels`."""
        if self.rles is None or "labels" in self.__dict__:
            return np.asarray(self.labels == label)
        starts, ends = _borders(self.rles[label - 1], self.height * self.width)
        steps = np.zeros(self.height * self.width + 1, np.int8)
        np.add.at(steps, starts, 1)
        np.add.at(steps, ends, -1)
        flat = np.cumsum(steps[:-1], dtype=np.int8).astype(np.bool_)
        return np.ascontiguousarray(flat.reshape(self.width, self.height).T)


def labels_of(rles: Sequence[str], height: int, width: int) -> NDArray[np.uint16]:
    """The label map uint16 [H, W] whose classes, from label 1, have these run lengths.

    Raises:
        AnswerError: they do not fit the picture.
    """
    pixels = height * width
    borders = [_borders(counts, pixels) for counts in rles]  # they fit, or no memory is taken
    steps = np.zeros(pixels + 1, np.int32)  # how the label changes from pixel to pixel
    for label, (starts, ends) in enumerate(borders, 1):
        np.add.at(steps, starts, label)
        np.add.at(steps, ends, -label)
    flat = np.cumsum(steps[:-1], dtype=np.int32).astype(np.uint16)
    return np.ascontiguousarray(flat.reshape(width, height).T)  # COCO counts down the columns


def run_lengths(counts: str) -> list[int]:
    """Lengths of runs, outside and inside the mask in turn, of COCO's compressed text.

    Each number is written in groups of five bits, lowest first, in characters from "0" on whose sixth
    bit says that more follow; the last one's fifth bit is the sign. From the fourth number on it is the
    difference to the number two before.

    Raises:
        AnswerError: the text ends within a number, or holds other characters.
    """
    runs: list[int] = []
    number = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise AnswerError(f"run lengths with the character {character!r}")
        number |= (bits & 31) << shift
        shift += 5
        if shift > _LONGEST_NUMBER:
            raise AnswerError("run lengths beyond all numbers")
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise AnswerError("run lengths that end within a number")
    return runs


def read_npy(data: bytes, kind: type[Number], shape: tuple[int, ...]) -> NDArray[Number]:
    """The array of an .npy file, of this type and shape.

    Raises:
        AnswerError: it is none, or another one.
    """
    try:
        # looked at before any memory of that size is taken
        stream = io.BytesIO(data)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        found, _, dtype = reader[np.lib.format.read_magic(stream)](stream)
        if found != shape or dtype != kind:
            raise AnswerError(f"an array of {dtype} {list(found)}, expected {kind.__name__} {list(shape)}")
        if math.prod(shape) * dtype.itemsize > len(data) - stream.tell():
            raise AnswerError(f"an array that cannot be read: cut short at {len(data)} bytes")
        array: NDArray[Number] = np.load(io.BytesIO(data), allow_pickle=False)
    except AnswerError:
        raise
    except Exception as error:  # what is no header makes NumPy raise nearly anything
        raise AnswerError(f"an array that cannot be read: {error}"[:200]) from None
    return array


def _borders(counts: str, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where runs inside the mask begin and end."""
    runs = run_lengths(counts)
    if any(run < 0 for run in runs) or sum(runs) != pixels:
        raise AnswerError(f"run lengths of {sum(runs)} pixels, expected {pixels}")
    if pixels > MOST_PIXELS:
        raise AnswerError(f"maps of {pixels} pixels, more than {MOST_PIXELS}")
    ends = np.cumsum(np.array(runs, np.int64))
    inside = ends[1::2]
    return ends[0::2][: len(inside)], inside


def _read_png(data: bytes, shape: tuple[int, int]) -> NDArray[np.uint16]:
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode not in _PNG_MODES or (image.height, image.width) != shape:
                size = f"{image.width} x {image.height}"
                raise AnswerError(f"a label map of {size} in {image.mode}, expected {shape[1]} x {shape[0]}")
            return np.asarray(image).astype(np.uint16)
    except AnswerError:
        raise
    except Exception as error:  # what is broken makes Pillow raise nearly anything
        raise AnswerError(f"a label map that cannot be read: {error}"[:200]) from None
