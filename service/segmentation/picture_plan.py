"""What is known of a request's picture before a device is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.tiling import TileLayout
from service.errors import PictureMemoryError
from service.scheduling.out_of_memory import is_out_of_memory, release_memory


@dataclass(frozen=True, kw_only=True, slots=True)
class PicturePlan:
    """What is known of a picture before the device is asked.

    Attributes:
        prepared: for the network; None if there is a prediction.
        layout: of its tiles; None if it stays whole.
        key: of the prediction cache; None where it is off.
        picture: at output size, where an output shows it.
        picture_size, output_size: rows and columns of the upright picture, and of the answer.
        seconds: by stage so far.
        remarks: what decoding left out of account.
    """

    prepared: Any
    layout: TileLayout | None
    key: bytes | None
    picture: NDArray[np.uint8] | None
    picture_size: tuple[int, int]
    output_size: tuple[int, int]
    seconds: dict[str, float]
    remarks: tuple[str, ...] = ()


@contextmanager
def telling_of_memory() -> Iterator[None]:
    """Raises PictureMemoryError in the place of whatever else says that memory ran out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        release_memory(error)
        raise PictureMemoryError from None
