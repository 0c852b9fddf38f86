"""`ebseg segment` without a server."""

import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ebseg_client.parallel import in_order
from ebseg_client.parsing import segmentation
from model.errors import PictureError
from model.vocabulary import Vocabulary
from service.answer import Outcome, json_answer
from service.deadline import Deadline
from service.decode import decode
from service.engine import Engine, Job, Segmentation, device_names, load_engine
from service.errors import ServiceError
from service.found import Found, Segmented, UsageError, read
from service.pipeline import check_length
from service.schemas import SegmentRequest
from service.settings import Settings

Status = Callable[[str], AbstractContextManager[object]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Decoded:
    """A picture, or why there is none, and the time that it took."""

    file: Path
    picture: NDArray[np.uint8] | None
    error: Exception | None
    seconds: float


class LocalSource:
    """Segments with a model in this process: one picture at a time, while others are decoded.

    Args:
        settings: checkpoint, device, dtype and limits.
        spec: the request.
        status: tells of steps that take a while.

    Raises:
        UsageError, ServiceError, ModelError: the classes, several devices, or there is no checkpoint.
    """

    def __init__(self, settings: Settings, spec: SegmentRequest, status: Status):
        self._settings = settings
        self._spec = spec
        self._status = status
        self._directory = settings.checkpoint_folder()
        if "," in settings.device:
            raise UsageError(f"pictures are segmented on one device without a service, got {settings.device}")
        self._vocabulary = _vocabulary(spec, settings.max_classes)
        self._text: torch.Tensor | None = None

    def segmented(
        self, files: Sequence[Path], *, pictures: bool, parallel: int
    ) -> Generator[Segmented, None, None]:
        """See `Source`. The model is loaded once the first picture is there, which may be broken."""
        engine: Engine | None = None
        with closing(in_order(partial(_decoded, self._settings), files, parallel)) as decoded:
            for one in decoded:
                if one.picture is None:
                    yield Segmented(one.file, None, one.error)
                    continue
                engine = engine or self._load()
                try:
                    found = self._found(engine, one.picture, one.seconds, keep=pictures)
                except (PictureError, ServiceError) as error:
                    yield Segmented(one.file, None, error)
                else:
                    yield Segmented(one.file, found, None)

    def _load(self) -> Engine:
        with self._status("loading the model"):
            device = device_names(self._settings.device)[0]
            return load_engine(self._directory, device=device, dtype=self._settings.dtype, golden=False)

    def _found(self, engine: Engine, picture: NDArray[np.uint8], decoding: float, *, keep: bool) -> Found:
        began = time.perf_counter() - decoding
        with self._status("segmenting"):
            result = self._segmentation(engine, picture)
        answer = json_answer(
            Outcome(
                vocabulary=self._vocabulary,
                given_colors=[None] * len(self._vocabulary),
                info=engine.info,
                result=result,
                picture=None,
                background=self._spec.background is not None,
                outputs=frozenset(["rle"]),
                request_id="",
                seconds={"decode": decoding, **result.seconds},
                began=began,
                caches=None,
                check=Deadline(float("inf")).check,
            )
        )
        document: dict[str, Any] = answer.model_dump(mode="json", exclude_unset=True)
        read_back = segmentation(document)
        del document["request_id"]  # of no request
        return Found(
            answer=read_back, document=document, labels=result.labels, picture=picture if keep else None
        )

    def _segmentation(self, engine: Engine, picture: NDArray[np.uint8]) -> Segmentation:
        """What the service does with one picture, without its queue; classes are embedded once."""
        began = time.perf_counter()
        prepared = engine.prepare(picture)
        prediction = engine.predict([prepared])[0]
        predicted = time.perf_counter()
        if self._text is None:
            self._text = engine.embed(self._vocabulary.names, self._vocabulary.templates)
        embedded = time.perf_counter()
        job = Job(
            engine=engine,
            prepared=prepared,
            prediction=prediction,
            vocabulary=self._vocabulary,
            text=self._text,
            output_size=(picture.shape[0], picture.shape[1]),
            threshold=0.0 if self._spec.background is None else self._spec.background.threshold,
            balance=None,
            scores=False,
            deadline=Deadline(float("inf")),
        )
        result = engine.classify(prediction, job)
        seconds = {"predict": predicted - began, "text": embedded - predicted, **result.seconds}
        return dataclasses.replace(result, seconds=seconds)


def _decoded(settings: Settings, file: Path) -> _Decoded:
    began = time.perf_counter()
    try:
        picture = decode(read(file), max_pixels=settings.max_pixels)
    except (UsageError, ServiceError) as error:
        return _Decoded(file, None, error, 0.0)
    return _Decoded(file, picture, None, time.perf_counter() - began)


def _vocabulary(spec: SegmentRequest, max_classes: int) -> Vocabulary:
    """The classes that are asked for; only the built-in lists have names here."""
    if spec.vocabulary is None:
        vocabulary = spec.listed
    elif spec.vocabulary in Vocabulary.builtin_names():
        vocabulary = Vocabulary.builtin(spec.vocabulary, spec.templates)
    else:
        raise UsageError(
            f"there is no built-in vocabulary {spec.vocabulary!r}; "
            f"known are {', '.join(Vocabulary.builtin_names())}"
        )
    check_length("classes", len(vocabulary), max_classes)
    return vocabulary
