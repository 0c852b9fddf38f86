"""Pictures of requests: `model.pictures.decode`, with the errors that the service has answers for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.errors import PictureFileError, PictureFormatError, PictureFrameError, PictureSizeError
from model.pictures import decode as pictures
from service.errors import (
    BadPictureError,
    PictureMemoryError,
    TooManyPixelsError,
    UnsupportedMediaError,
    invalid,
)


def decode(
    data: bytes,
    *,
    max_pixels: int,
    frame: int | None = None,
    accept: Callable[[tuple[int, int]], None] = lambda size: None,
    remark: Callable[[str], None] = lambda text: None,
) -> NDArray[np.uint8]:
    """Decodes a picture, see `model.pictures.decode.decode`; `accept` may raise a ServiceError.

    Raises:
        UnsupportedMediaError: of a format that is not taken.
        TooManyPixelsError: above `max_pixels`.
        BadPictureError: empty, broken or cut short.
        PictureMemoryError: memory ran out.
        InvalidRequestError: there is no such frame, or it is too far away.
    """
    with answerable():
        return pictures.decode(data, max_pixels=max_pixels, frame=frame, accept=accept, remark=remark)


def from_pillow(
    image: Image.Image, *, max_pixels: int, remark: Callable[[str], None] = lambda text: None
) -> NDArray[np.uint8]:
    """The pixels of an opened picture, as `decode` gives them; the picture stays as it is.

    Raises:
        TooManyPixelsError: above `max_pixels`.
        BadPictureError: its file is broken, cut short or closed.
        PictureMemoryError: memory ran out.
    """
    with answerable():
        return pictures.from_pillow(image, max_pixels=max_pixels, remark=remark)


@contextmanager
def answerable() -> Iterator[None]:
    """Raises the service's errors in the place of those of reading a picture; see `decode`."""
    try:
        yield
    except PictureFormatError as error:
        raise UnsupportedMediaError(str(error)) from None
    except PictureSizeError as error:
        raise TooManyPixelsError(str(error)) from None
    except PictureFrameError as error:
        raise invalid("frame", str(error)) from None
    except PictureFileError as error:
        raise BadPictureError(str(error)) from None
    except MemoryError:
        raise PictureMemoryError from None
