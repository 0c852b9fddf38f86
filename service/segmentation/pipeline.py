"""One segmentation from bytes to answer: decode, text, queue, predict, classify, encode."""

import asyncio
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model.confidence.caution import AnswerWarning, of_picture
from model.pictures.jpeg_xl import LONGEST_SIGNATURE, bytes_apart
from model.tiling import TileLayout
from model.vocabulary.classes import Vocabulary
from service.caches.prediction_cache import PredictionCache
from service.caller import Caller, caller_var
from service.errors import (
    DeadlineExceededError,
    DeadlineUnmeetableError,
    OutOfMemoryError,
)
from service.http.negotiate import Form
from service.http.parsed_request import ParsedRequest
from service.http.problems import kind_of
from service.observability.stages import stage
from service.runtime import HttpSide
from service.scheduling.deadline import Deadline
from service.scheduling.engine import ModelInfo
from service.scheduling.host_memory import answer_bytes, decoding_bytes, prepared_bytes, tile_bytes
from service.schemas.segment import AUTO_VOCABULARY
from service.segmentation.answer import Answer, Caches, SegmentationResult, encode_answer, only_seen
from service.segmentation.decode import decode
from service.segmentation.door import Door, Place, Question, Turn
from service.segmentation.encode import resized
from service.segmentation.outputs import OF_PICTURE, OF_SCORES, check_outputs, chosen_outputs
from service.segmentation.picture_plan import PicturePlan, telling_of_memory
from service.segmentation.requested import check_subject, output_size, to_balance
from service.segmentation.resolved import chosen_deadline, chosen_vocabulary
from service.segmentation.tiled import ROWS_HELD, chosen_layout

LOG = logging.getLogger(__name__)
CANARY_SHARE = 0.5  # of a request's time; the rest is the current version's, should the canary not answer
# beside what is internal: what another version may not do
CANARYS_FAULTS = (OutOfMemoryError, DeadlineExceededError, DeadlineUnmeetableError)
Chosen = Callable[[ModelInfo], None]


async def segment(
    service: HttpSide,
    door: Door,
    parsed: ParsedRequest,
    place: Place,
    form: Form,
    request_id: str,
    since: float,
    chosen: Chosen,
) -> Answer:
    """Answers one request.

    Args:
        service: what decodes and encodes.
        door: to the engine.
        parsed: the request.
        place: that it was given at the door.
        form: what the answer is to be.
        request_id: to put into the answer.
        since: when its first byte came, by `time.monotonic`; its time counts from there.
        chosen: notified of which version has the request; again if the first one, a canary, failed it.

    Raises:
        DeadlineExceededError: its time is over, wherever it was spent.
        ServiceError: of decoding, or fields that are wrong for this picture or model.
    """
    outputs = chosen_outputs(parsed.spec, form)
    spec = ResponseSpec(
        outputs=outputs,
        check=functools.partial(check_outputs, outputs),
        encode=functools.partial(encode_answer, form=form),
    )
    return await handle(service, door, parsed, place, spec, request_id, since, chosen)


class Encoded(Protocol):
    """What an answer has to tell of itself."""

    @property
    def seconds(self) -> dict[str, float]:
        """Time by stage."""


E = TypeVar("E", bound=Encoded)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseSpec(Generic[E]):
    """What a request is to be answered with.

    Attributes:
        outputs: what the engine and the picture are needed for, as `SegmentationResult.outputs`.
        check: raises InvalidRequestError if that is too much for so many rows and columns, and classes.
        encode: makes the answer, on a picture thread.
    """

    outputs: frozenset[str]
    check: Callable[[tuple[int, int], int], None]
    encode: Callable[[SegmentationResult], E]


async def handle(
    service: HttpSide,
    door: Door,
    parsed: ParsedRequest,
    place: Place,
    spec: ResponseSpec[E],
    request_id: str,
    since: float,
    chosen: Chosen,
) -> E:
    """Answers one request in any form; arguments and errors as of `segment`."""
    asked = parsed.spec
    deadline, warnings = chosen_deadline(asked, service.settings, since)

    def request(turn: Turn, deadline: Deadline) -> _Request[E]:
        return _Request(service, door, parsed, place, turn, spec, deadline, request_id, warnings)

    async with door.turn(place, asked.model, asked.version) as turn:
        chosen(turn.info)
        if not turn.on_trial:
            return await request(turn, deadline).attempt()
        # what a canary fails, or takes too long for, is the current version's to answer
        parsed = replace(parsed, read_picture=functools.cache(parsed.read_picture))
        first = request(turn, Deadline(deadline.left() * CANARY_SHARE))
        try:
            return await first.attempt()
        except Exception as error:
            if not (kind_of(error).internal or isinstance(error, CANARYS_FAULTS)):
                raise
            late = isinstance(error, DeadlineExceededError) and await turn.was_late()
            LOG.warning(
                "a canary did not answer a request, the version beside it does",
                extra={"model": turn.info.name, "version": turn.info.version, "reason": str(error)},
            )
        turn.release()
        began = time.monotonic()
        async with door.turn(place, asked.model, stable=True) as second:
            chosen(second.info)
            answer = await request(second, deadline).attempt()
        if late and time.monotonic() - began < first.deadline.seconds:
            turn.count_answer("late")  # where the current version had been in time
        return answer


@dataclass(frozen=True, slots=True)
class _Request(Generic[E]):
    """One request on its way."""

    service: HttpSide
    door: Door
    parsed: ParsedRequest
    place: Place
    turn: Turn
    spec: ResponseSpec[E]
    deadline: Deadline
    request_id: str
    warnings: tuple[AnswerWarning, ...]
    caller: Caller = field(default_factory=caller_var.get)

    async def attempt(self) -> E:
        """An answer within the deadline; tells the version's trial what became of it."""
        deadline, turn = self.deadline, self.turn
        try:
            async with asyncio.timeout(deadline.left()):
                answer = await self.answer()
        except TimeoutError:
            await self._count_late()
            raise DeadlineExceededError(
                f"no response within {deadline.seconds:g} s; see timeout_ms"
            ) from None
        except DeadlineExceededError:
            await self._count_late()
            raise
        except OutOfMemoryError:
            turn.count_answer("memory")
            raise
        except Exception as error:
            if kind_of(error).internal:
                turn.count_answer("failed")
            raise
        finally:
            deadline.abandoned = True  # threads that still work for this request soon stop
        predict = answer.seconds.get("predict", 0.0)
        compared = predict and self.parsed.spec.tiling is None  # tiles wait between each other
        turn.count_answer("good", predict + answer.seconds.get("classify", 0.0) if compared else None)
        return answer

    @property
    def owner(self) -> str:
        """Whose cached predictions and text embeddings it may be answered by; empty for everybody's."""
        return "" if self.service.settings.share_caches else self.caller.owner

    async def _count_late(self) -> None:
        # a canary is compared with the version beside it
        if not self.turn.on_trial and await self.turn.was_late():
            self.turn.count_answer("late")

    async def answer(self) -> E:
        service, spec, turn = self.service, self.parsed.spec, self.turn
        began = time.perf_counter()
        vocabulary, given_colors = await chosen_vocabulary(service, self.door, spec)
        check_subject(spec, self.spec.outputs, vocabulary)
        balance = to_balance(spec.balance, turn.info.balance)
        background = spec.background_for(turn.info.card)
        turn.begin(vocabulary, self.deadline, self.owner)
        try:
            plan = await service.pictures.run_in(
                "decode", self.deadline, self._decoded, vocabulary, time.perf_counter()
            )
            metrics = service.metrics
            metrics.observe(metrics.megapixels, plan.picture_size[0] * plan.picture_size[1] / 1e6)
            metrics.observe(metrics.vocabulary_size, len(vocabulary))
            computed = await turn.run(
                Question(
                    prepared=plan.prepared,
                    layout=plan.layout,
                    vocabulary=vocabulary,
                    output_size=plan.output_size,
                    threshold=background.least,
                    balance=balance,
                    scores=bool(self.spec.outputs & OF_SCORES),
                    deadline=self.deadline,
                    key=plan.key,
                    picture_size=plan.picture_size,
                    remarks=plan.remarks,
                )
            )
        finally:
            turn.give_up()
        result = computed.result
        segmentation = SegmentationResult(
            vocabulary=vocabulary,
            given_colors=given_colors,
            spec=spec,
            info=turn.info,
            result=result,
            picture=plan.picture,
            background=background,
            outputs=self.spec.outputs,
            request_id=self.request_id,
            request_warnings=(*self.warnings, *map(of_picture, plan.remarks)),
            seconds={
                **self.parsed.seconds,
                **plan.seconds,
                "text": computed.text_seconds,
                **result.seconds,
            },
            began=began,
            caches=Caches(text=computed.text, prediction=computed.prediction),
            check=self.deadline.check,
        )
        answer = await service.pictures.run_in(
            "encode", self.deadline, self._encode, segmentation, time.perf_counter()
        )
        metrics.stages(answer.seconds, result.devices, turn.info)
        metrics.succeeded()
        return answer

    def _decoded(self, vocabulary: Vocabulary, submitted: float) -> PicturePlan:
        """Picture thread: everything that needs the picture's bytes, as one stage."""
        with stage("decode"), telling_of_memory():
            return self._plan(vocabulary, submitted)

    def _plan(self, vocabulary: Vocabulary, submitted: float) -> PicturePlan:
        began = time.perf_counter()
        words = len(vocabulary.words)
        self.deadline.check()
        settings, spec, turn = self.service.settings, self.parsed.spec, self.turn
        data = self.parsed.read_picture()
        key = None  # by which the same picture at once is predicted once, whether or not predictions are kept
        if spec.tiling is None:
            key = PredictionCache.key_of(data, turn.info, self.owner, spec.frame)
        known = None if key is None else turn.known(key)
        picture: NDArray[np.uint8] | None = None
        remarks: list[str] = []
        start = data[:LONGEST_SIGNATURE]

        def reserve(size: tuple[int, int]) -> None:
            self._reserve(size, words, apart=bytes_apart(start, size[0] * size[1]), known=known is not None)

        if known is None:
            picture = decode(
                data,
                max_pixels=settings.max_pixels,
                frame=spec.frame,
                accept=reserve,
                remark=remarks.append,
            )
        else:
            reserve(known.size)
            if self.spec.outputs & OF_PICTURE:
                picture = decode(data, max_pixels=settings.max_pixels, frame=spec.frame)
        size = _size(picture) if known is None else known.size
        output = output_size(spec.output_size, size, settings.max_pixels)
        self.spec.check(output, len(vocabulary))
        layout = chosen_layout(spec.tiling, size, output)
        prepared = turn.prepare(picture, layout) if known is None and picture is not None else None
        shown = resized(picture, output) if picture is not None and self.spec.outputs & OF_PICTURE else None
        del picture, data  # and with them what decoding has reserved
        self.place.hold(self._later(size, output, words, layout, passed_on=known is None))
        return PicturePlan(
            prepared=prepared,
            layout=layout,
            key=key,
            picture=shown,
            picture_size=size,
            output_size=output,
            remarks=tuple(remarks) if known is None else known.remarks,
            seconds={"decode_wait": began - submitted, "decode": time.perf_counter() - began},
        )

    def _encode(self, segmentation: SegmentationResult, submitted: float) -> E:
        """Picture thread: the answer, as one stage."""
        segmentation.seconds["encode_wait"] = time.perf_counter() - submitted
        with stage("encode"), telling_of_memory():
            seen = self.parsed.spec.vocabulary == AUTO_VOCABULARY
            return self.spec.encode(only_seen(segmentation) if seen else segmentation)

    def _reserve(self, size: tuple[int, int], words: int, *, apart: int, known: bool) -> None:
        """Reserves what devices are expected to need for the picture, whose prediction may be known.

        `apart` is what decoding takes in another process.
        """
        spec = self.parsed.spec
        output = output_size(spec.output_size, size, self.service.settings.max_pixels)
        layout = chosen_layout(spec.tiling, size, output)
        later = self._later(size, output, words, layout, passed_on=not known)
        decoded = known and not self.spec.outputs & OF_PICTURE
        now = decoding_bytes(size[0] * size[1]) + apart + _prepared_bytes(self.turn, size, layout)
        self.place.hold(later if decoded else max(later, now))
        pieces = 0 if known else 1 if layout is None else layout.count
        part = size if layout is None else layout.tile_size
        self.turn.reserve(part, pieces, output[0] * output[1] * words)

    def _later(
        self,
        size: tuple[int, int],
        output: tuple[int, int],
        words: int,
        layout: TileLayout | None,
        *,
        passed_on: bool,
    ) -> int:
        """Bytes that the request holds once its picture is decoded."""
        held = answer_bytes(output[0] * output[1], words, self.spec.outputs)
        if not passed_on:
            return held
        prepared = _prepared_bytes(self.turn, size, layout)
        return held + prepared + self.turn.passes_on * size[0] * size[1]


def _prepared_bytes(turn: Turn, size: tuple[int, int], layout: TileLayout | None) -> int:
    if layout is None:
        return prepared_bytes(turn.cost(size))
    return tile_bytes(layout.count, ROWS_HELD * layout.columns.count, turn.cost(layout.tile_size))


def _size(picture: NDArray[np.uint8] | None) -> tuple[int, int]:
    assert picture is not None
    return picture.shape[0], picture.shape[1]
