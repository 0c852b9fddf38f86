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
from model.vocabulary.classes import Vocabulary
from service.errors import ServiceError, UsageError
from service.local.model import LocalModel, load_local, picture_result
from service.local.picture_result import FileResult, PictureResult, read
from service.schemas.segment import SegmentRequest
from service.segmentation.decode import decode
from service.settings import Settings

Status = Callable[[str], AbstractContextManager[object]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Decoded:
    """A picture, or why there is none, the time that it took, and what was left out of account."""

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
        with closing(
            in_order(partial(_decoded, self._settings, self._spec.frame), files, parallel)
        ) as decoded:
            for one in decoded:
                if one.picture is None:
                    yield FileResult(one.file, None, one.error)
                    continue
                model = model or self._load()
                try:
                    result = self._result(model, one.picture, one, keep=pictures)
                except (PictureError, ServiceError) as error:
                    yield FileResult(one.file, None, error)
                else:
                    yield FileResult(one.file, result, None)

    def _load(self) -> LocalModel:
        with self._status("loading the model"):
            return load_local(self._folder, device=self._settings.device, dtype=self._settings.dtype)

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


def _decoded(settings: Settings, frame: int | None, file: Path) -> _Decoded:
    began = time.perf_counter()
    remarks: list[str] = []
    try:
        picture = decode(read(file), max_pixels=settings.max_pixels, frame=frame, remark=remarks.append)
    except (UsageError, ServiceError) as error:
        return _Decoded(file, None, error, 0.0)
    return _Decoded(file, picture, None, time.perf_counter() - began, tuple(remarks))
