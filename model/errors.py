"""What can go wrong in the model package. All of it is a `ModelError`, so a caller can catch one type.

ModelError
├── VocabularyError   a class list that cannot be used; `index` tells which class
├── PictureError      a picture that the model cannot take (shape, type, size)
│   └── PictureFileError  a picture's file that is empty, broken or cut short
│       ├── PictureFormatError  of a format that is not taken
│       ├── PictureSizeError    with more pixels than are taken
│       └── PictureFrameError   without the frame that was asked for
├── CheckpointError   a checkpoint folder or weights file that is not what it should be
│   └── UnfinishedError   a version that is not all there, as while it is copied
├── NoSpaceError      a disk that is full
└── FetchError        weights that could not be fetched: a refusal, a wrong digest, a full disk
    └── UnreachableError  nobody answers; another time it may work
"""

import difflib
import errno
from collections.abc import Iterable, Iterator


class ModelError(Exception):
    """Base of all errors that the model package raises on purpose."""


class VocabularyError(ModelError, ValueError):
    """A class list or template that cannot be used.

    Args:
        message: what is wrong, in a sentence a caller understands.
        index: position of the offending class in the list, where one is to blame.
    """

    def __init__(self, message: str, index: int | None = None):
        super().__init__(message)
        self.index = index


class PictureError(ModelError, ValueError):
    """A picture of a shape, type or size that the model cannot take."""


class PictureFileError(PictureError):
    """A picture's file that is empty, broken or cut short."""


class PictureFormatError(PictureFileError):
    """A file that is no picture, or one of a format that is not taken; the message says what it is."""


class PictureSizeError(PictureFileError):
    """A picture with more pixels than are taken, by its header."""


class PictureFrameError(PictureFileError):
    """There is no such frame, or it is too far away."""


class CheckpointError(ModelError):
    """A checkpoint that is broken, incomplete or made for another model."""


class UnfinishedError(CheckpointError):
    """A version of which files are missing or short, as while it is copied; look again."""


class NoSpaceError(ModelError):
    """A disk that holds no more; the message says which folder."""


class FetchError(ModelError):
    """Weights that could not be fetched; the message says why and what to do."""


class UnreachableError(FetchError):
    """There is no network, or the server stays silent or overloaded; another time it may work."""


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from or while handling, and so on; each once."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


LONGEST = 100  # letters that are compared; the names of others may be of any length


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The known name that is nearly the given one, upper and lower case alike; None if none is."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(given[:LONGEST].casefold(), names, 1)
    return names[near[0]] if near else None


def question(given: str, known: Iterable[str]) -> str:
    """The end of a message that asks for it: "; did you mean base?", or nothing."""
    near = nearest(given, known)
    return "" if near is None else f"; did you mean {near}?"
