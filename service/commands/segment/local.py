"""`ebseg segment` without a server."""

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ebseg_client.parallel import in_order
from model.errors import PictureError
from model.pictures.jpeg_xl import bytes_apart
from model.pictures.windows import PictureParts, windows
from model.vocabulary.classes import Vocabulary
from service.errors import ServiceError, UsageError
from service.local.large import MOST_LARGE_PIXELS, check_large, check_room, segment_large
from service.local.model import LocalModel, load_local, picture_result
from service.local.picture_result import FileResult, PictureResult, read
from service.schemas.segment import SegmentRequest
from service.segmentation.decode import answerable, decode
from service.settings import Settings

Status = Callable[[str], AbstractContextManager[object]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Decoded:
    """A picture, or why there is none, the time that it took, and what was left out of account.

    One that is read when its turn comes, because it is large, has neither picture nor error.
    """

    file: Path
    picture: NDArray[np.uint8] | None
    error: Exception | None
    seconds: float
    remarks: tuple[str, ...] = ()


class LocalSource:
    """Segments with a model in this process: one picture at a time, while others are decoded.

    Args:
        settings: device, dtype and limits.
        spec: the request.
        vocabulary, folder: of `checked_for_here`.
        status: tells of steps that take a while.
    """

    def __init__(
        self, settings: Settings, spec: SegmentRequest, vocabulary: Vocabulary, folder: Path, status: Status
    ):
        self._settings = settings
        self._spec = spec
        self._vocabulary = vocabulary
        self._folder = folder
        self._status = status

    def segmented(
        self, files: Sequence[Path], *, pictures: bool, parallel: int
    ) -> Generator[FileResult, None, None]:
        """See `PictureSegmenter`. The model is loaded once the first picture is there: it may be broken."""
        model: LocalModel | None = None
        with closing(in_order(partial(_decoded, self._settings, self._spec), files, parallel)) as decoded:
            for one in decoded:
                if one.error is not None:
                    yield FileResult(one.file, None, one.error)
                    continue
                model = model or self._load()
                try:
                    if one.picture is None:
                        result = self._large(model, one.file, pictures=pictures)
                    else:
                        result = self._result(model, one.picture, one, keep=pictures)
                except (PictureError, ServiceError, UsageError) as error:
                    yield FileResult(one.file, None, error)
                else:
                    yield FileResult(one.file, result, None)

    def _load(self) -> LocalModel:
        with self._status("loading the model"):
            return load_local(self._folder, device=self._settings.device, dtype=self._settings.dtype)

    def _large(self, model: LocalModel, file: Path, *, pictures: bool) -> PictureResult:
        """A picture of more pixels than are held at a time."""
        check_large(self._spec, pictures=pictures)
        began = time.perf_counter()
        remarks: list[str] = []
        with answerable(), windows(file, MOST_LARGE_PIXELS) as parts:
            if parts is None:
                parts = PictureParts.of(self._whole(file, remarks.append))
            with self._status("segmenting"):
                return segment_large(
                    model,
                    parts,
                    self._spec,
                    self._vocabulary,
                    seconds=time.perf_counter() - began,
                    remarks=tuple(remarks),
                )

    def _whole(self, file: Path, remark: Callable[[str], None]) -> NDArray[np.uint8]:
        """A large picture that cannot be read by parts, if there is room for it."""
        with self._status("decoding all of a large image at once"):
            data = read(file)
            return decode(
                data,
                max_pixels=MOST_LARGE_PIXELS,
                frame=self._spec.frame,
                accept=lambda size: check_room(size, bytes_apart(data, size[0] * size[1])),
                remark=remark,
            )

    def _result(
        self, model: LocalModel, picture: NDArray[np.uint8], one: _Decoded, *, keep: bool
    ) -> PictureResult:
        began = time.perf_counter() - one.seconds
        with self._status("segmenting"):
            result = model.segment(
                picture, self._spec, self._vocabulary, max_pixels=self._settings.max_pixels
            )
        seconds = {"decode": one.seconds, **result.seconds}
        return picture_result(
            model,
            self._spec,
            self._vocabulary,
            result,
            picture=picture if keep else None,
            seconds=seconds,
            began=began,
            remarks=one.remarks,
        )


class _LargeError(Exception):
    """Wraps no error: a picture is to be read by parts."""


def _has_windows(file: Path, max_pixels: int) -> bool:
    """Whether a file has more pixels than are decoded at a time, and can be read by windows."""
    with answerable(), windows(file, MOST_LARGE_PIXELS) as parts:
        return parts is not None and parts.size[0] * parts.size[1] > max_pixels


def _decoded(settings: Settings, spec: SegmentRequest, file: Path) -> _Decoded:
    began = time.perf_counter()
    remarks: list[str] = []

    def accept(size: tuple[int, int]) -> None:
        if size[0] * size[1] > settings.max_pixels:
            raise _LargeError

    try:
        if spec.tiling is not None and _has_windows(file, settings.max_pixels):
            raise _LargeError
        picture = decode(
            read(file),
            max_pixels=settings.max_pixels if spec.tiling is None else MOST_LARGE_PIXELS,
            frame=spec.frame,
            accept=accept,
            remark=remarks.append,
        )
    except _LargeError:
        return _Decoded(file, None, None, 0.0)
    except (UsageError, ServiceError) as error:
        return _Decoded(file, None, error, 0.0)
    return _Decoded(file, picture, None, time.perf_counter() - began, tuple(remarks))
