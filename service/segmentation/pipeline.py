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
from model.tiling import TileLayout
from model.vocabulary.classes import Vocabulary
from service.caller import Caller, caller_var
from service.errors import (
    DeadlineExceededError,
    DeadlineUnmeetableError,
    OutOfMemoryError,
)
from service.hot_loading.loaded import Lease
from service.http.negotiate import Form
from service.http.parsed_request import ParsedRequest
from service.http.problems import kind_of
from service.observability.stages import stage
from service.runtime import Service
from service.scheduling.admission import Ticket
from service.scheduling.deadline import Deadline
from service.scheduling.engine import Engine, EngineResult, Job, ModelInfo
from service.scheduling.host_memory import answer_bytes, decoding_bytes, tile_bytes
from service.scheduling.price import Work
from service.scheduling.work import Request
from service.schemas.segment import AUTO_VOCABULARY
from service.segmentation.answer import Answer, Caches, SegmentationResult, encode_answer, only_seen
from service.segmentation.decode import decode
from service.segmentation.encode import resized
from service.segmentation.outputs import OF_PICTURE, OF_SCORES, check_outputs, chosen_outputs
from service.segmentation.picture_plan import PicturePlan, telling_of_memory
from service.segmentation.request_text import RequestText
from service.segmentation.requested import check_subject, output_size, to_balance
from service.segmentation.resolved import chosen_deadline, chosen_vocabulary
from service.segmentation.tiled import ROWS_HELD, chosen_layout, prepare_tiles, segment_tiles

LOG = logging.getLogger(__name__)
CANARY_SHARE = 0.5  # of a request's time; the rest is the current version's, should the canary not answer
# beside what is internal: what another version may not do
CANARYS_FAULTS = (OutOfMemoryError, DeadlineExceededError, DeadlineUnmeetableError)
Chosen = Callable[[ModelInfo], None]


async def segment(
    service: Service,
    parsed: ParsedRequest,
    ticket: Ticket,
    form: Form,
    request_id: str,
    since: float,
    chosen: Chosen,
) -> Answer:
    """Answers one request.

    Args:
        service: with a loaded model.
        parsed: the request.
        ticket: its admission.
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
    return await handle(service, parsed, ticket, spec, request_id, since, chosen)


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
    service: Service,
    parsed: ParsedRequest,
    ticket: Ticket,
    spec: ResponseSpec[E],
    request_id: str,
    since: float,
    chosen: Chosen,
) -> E:
    """Answers one request in any form; arguments and errors as of `segment`."""
    asked = parsed.spec
    deadline, warnings = chosen_deadline(asked, service.settings, since)

    def request(lease: Lease, deadline: Deadline) -> _Request[E]:
        return _Request(service, parsed, ticket, lease, spec, deadline, request_id, warnings)

    with service.models.lease(asked.model, asked.version) as lease:
        chosen(lease.info)
        if not lease.on_trial:
            return await request(lease, deadline).attempt()
        canary = lease
        # what a canary fails, or takes too long for, is the current version's to answer
        parsed = replace(parsed, read_picture=functools.cache(parsed.read_picture))
        first = request(lease, Deadline(deadline.left() * CANARY_SHARE))
        try:
            return await first.attempt()
        except Exception as error:
            if not (kind_of(error).internal or isinstance(error, CANARYS_FAULTS)):
                raise
            late = isinstance(error, DeadlineExceededError) and first.late
            LOG.warning(
                "a canary did not answer a request, the version beside it does",
                extra={"model": lease.info.name, "version": lease.info.version, "reason": str(error)},
            )
    ticket.computed()
    began = time.monotonic()
    with service.models.lease(asked.model, stable=True) as lease:
        chosen(lease.info)
        answer = await request(lease, deadline).attempt()
    if late and time.monotonic() - began < first.deadline.seconds:
        canary.count_answer("late")  # where the current version had been in time
    return answer


@dataclass(frozen=True, slots=True)
class _Request(Generic[E]):
    """One request on its way."""

    service: Service
    parsed: ParsedRequest
    ticket: Ticket
    lease: Lease
    spec: ResponseSpec[E]
    deadline: Deadline
    request_id: str
    warnings: tuple[AnswerWarning, ...]
    caller: Caller = field(default_factory=caller_var.get)
    submitted: list[Request] = field(default_factory=list)  # to the scheduler

    async def attempt(self) -> E:
        """An answer within the deadline; tells the version's trial what became of it."""
        deadline, lease = self.deadline, self.lease
        try:
            async with asyncio.timeout(deadline.left()):
                answer = await self.answer()
        except TimeoutError:
            self._count_late()
            raise DeadlineExceededError(f"no answer within {deadline.seconds:g} s; see timeout_ms") from None
        except DeadlineExceededError:
            self._count_late()
            raise
        except OutOfMemoryError:
            lease.count_answer("memory")
            raise
        except Exception as error:
            if kind_of(error).internal:
                lease.count_answer("failed")
            raise
        finally:
            deadline.abandoned = True  # threads that still work for this request soon stop
        predict = answer.seconds.get("predict", 0.0)
        compared = predict and self.parsed.spec.tiling is None  # tiles wait between each other
        lease.count_answer("good", predict + answer.seconds.get("classify", 0.0) if compared else None)
        return answer

    @property
    def owner(self) -> str:
        """Whose cached predictions and text embeddings it may be answered by; empty for everybody's."""
        return "" if self.service.settings.share_caches else self.caller.owner

    @property
    def late(self) -> bool:
        """Once its time is over: whether a device was at work, or would have been for too long.

        That a request stood in a long queue is no fault of a version.
        """
        refused = not self.submitted and self.deadline.left() > 0  # by its price, at the door
        return refused or any(request.queue_s for request in self.submitted)

    def _count_late(self) -> None:
        if self.late and not self.lease.on_trial:  # a canary is compared with the version beside it
            self.lease.count_answer("late")

    async def answer(self) -> E:
        service, spec = self.service, self.parsed.spec
        began = time.perf_counter()
        vocabulary, given_colors = await chosen_vocabulary(service, spec)
        check_subject(spec, self.spec.outputs, vocabulary)
        engine = self.lease.engines[0]  # one of equal ones, but for what runs on a device
        balance = to_balance(spec.balance, engine.info.balance)
        background = spec.background_for(engine.info.card)
        texts = RequestText(service, vocabulary, self.lease.engines, self.ticket, self.deadline, self.owner)
        try:
            plan = await service.pictures.run_in(
                "decode", self.deadline, self._decoded, engine, vocabulary, time.perf_counter()
            )
            service.metrics.megapixels.observe(plan.picture_size[0] * plan.picture_size[1] / 1e6)
            service.metrics.vocabulary_size.observe(len(vocabulary))
            job = Job(
                engines=self.lease.engines,
                prepared=plan.prepared,
                prediction=None if plan.known is None else plan.known.prediction,
                vocabulary=vocabulary,
                text=texts.tensor,
                output_size=plan.output_size,
                threshold=background.least,
                balance=balance,
                scores=bool(self.spec.outputs & OF_SCORES),
                deadline=self.deadline,
                key=plan.key,
                picture_size=plan.picture_size,
            )
            if plan.tiles is not None:
                result = await segment_tiles(service, job, plan.tiles, texts, self.submitted)
            else:
                result = await self._whole(job, texts)
            text = texts.result()
        finally:
            texts.give_up()
        self.ticket.computed()  # devices have done their part
        segmentation = SegmentationResult(
            vocabulary=vocabulary,
            given_colors=given_colors,
            spec=spec,
            info=engine.info,
            result=result,
            picture=plan.picture,
            background=background,
            outputs=self.spec.outputs,
            request_id=self.request_id,
            request_warnings=(*self.warnings, *map(of_picture, plan.remarks)),
            seconds={**self.parsed.seconds, **plan.seconds, "text": text.seconds, **result.seconds},
            began=began,
            caches=Caches(text=text.source, prediction=_source(plan, self.submitted[-1])),
            check=self.deadline.check,
        )
        answer = await service.pictures.run_in(
            "encode", self.deadline, self._encode, segmentation, time.perf_counter()
        )
        service.metrics.stages(answer.seconds, result.devices, engine.info)
        service.metrics.last_success.set_to_current_time()
        return answer

    async def _whole(self, job: Job, texts: RequestText) -> EngineResult:
        """What devices make of a picture in one piece."""
        scheduler = self.service.scheduler
        running = scheduler.submit(job)
        self.submitted.append(running)
        if running.job.text is None:
            texts.hand_over(running)
        return await scheduler.answer(running)

    def _decoded(self, engine: Engine, vocabulary: Vocabulary, submitted: float) -> PicturePlan:
        """Picture thread: everything that needs the picture's bytes, as one stage."""
        with stage("decode"), telling_of_memory():
            return self._plan(engine, vocabulary, submitted)

    def _plan(self, engine: Engine, vocabulary: Vocabulary, submitted: float) -> PicturePlan:
        began = time.perf_counter()
        words = len(vocabulary.words)
        self.deadline.check()
        settings, spec, predictions = self.service.settings, self.parsed.spec, self.service.predictions
        data = self.parsed.read_picture()
        key = None
        if predictions.enabled and spec.tiling is None:
            key = predictions.key_of(data, engine.info, self.owner, spec.frame)
        known = None if key is None else predictions.get(key)
        picture: NDArray[np.uint8] | None = None
        remarks: list[str] = []
        if known is None:
            picture = decode(
                data,
                max_pixels=settings.max_pixels,
                frame=spec.frame,
                accept=lambda size: self._reserve(engine, size, words),
                remark=remarks.append,
            )
            if key is not None and remarks:
                predictions.remark(key, tuple(remarks))
        else:
            self._reserve(engine, known.size, words, known=True)
            if self.spec.outputs & OF_PICTURE:
                picture = decode(data, max_pixels=settings.max_pixels, frame=spec.frame)
        size = _size(picture) if known is None else known.size
        output = output_size(spec.output_size, size, settings.max_pixels)
        self.spec.check(output, len(vocabulary))
        layout = chosen_layout(spec.tiling, size, output)
        prepared = tiles = None
        if picture is not None and layout is not None:
            tiles = prepare_tiles(engine, picture, layout)
        elif picture is not None and known is None:
            prepared = engine.prepare(picture)
        shown = resized(picture, output) if picture is not None and self.spec.outputs & OF_PICTURE else None
        del picture, data  # and with them what decoding has reserved
        self.ticket.hold(self._answer_bytes(output, words) + _tile_bytes(engine, layout))
        return PicturePlan(
            prepared=prepared,
            known=known,
            key=key,
            picture=shown,
            tiles=tiles,
            picture_size=size,
            output_size=output,
            remarks=tuple(remarks) if key is None else predictions.remarks_on(key),
            seconds={"decode_wait": began - submitted, "decode": time.perf_counter() - began},
        )

    def _encode(self, segmentation: SegmentationResult, submitted: float) -> E:
        """Picture thread: the answer, as one stage."""
        segmentation.seconds["encode_wait"] = time.perf_counter() - submitted
        with stage("encode"), telling_of_memory():
            seen = self.parsed.spec.vocabulary == AUTO_VOCABULARY
            return self.spec.encode(only_seen(segmentation) if seen else segmentation)

    def _reserve(self, engine: Engine, size: tuple[int, int], words: int, *, known: bool = False) -> None:
        """Reserves what devices are expected to need for the picture, whose prediction may be known."""
        spec = self.parsed.spec
        output = output_size(spec.output_size, size, self.service.settings.max_pixels)
        layout = chosen_layout(spec.tiling, size, output)
        pixels = 0
        if not known:
            pixels = engine.cost(size) if layout is None else layout.count * engine.cost(layout.tile_size)
        later = self._answer_bytes(output, words) + _tile_bytes(engine, layout)
        decoded = known and not self.spec.outputs & OF_PICTURE
        now = decoding_bytes(size[0] * size[1]) + _tile_bytes(engine, layout)
        self.ticket.hold(later if decoded else max(later, now))
        work = Work(pixels=pixels, classified=output[0] * output[1] * words)
        infos = [one.info for one in self.lease.engines]
        self.ticket.reserve(self.service.prices.seconds(infos, work), self.deadline, pixels=pixels)

    def _answer_bytes(self, output: tuple[int, int], words: int) -> int:
        return answer_bytes(output[0] * output[1], words, self.spec.outputs)


def _tile_bytes(engine: Engine, layout: TileLayout | None) -> int:
    if layout is None:
        return 0
    return tile_bytes(layout.count, ROWS_HELD * layout.columns.count, engine.cost(layout.tile_size))


def _source(plan: PicturePlan, running: Request) -> str:
    """Where the prediction came from."""
    if plan.known is not None:
        return "hit"
    return "joined" if running.shared else "miss"


def _size(picture: NDArray[np.uint8] | None) -> tuple[int, int]:
    assert picture is not None
    return picture.shape[0], picture.shape[1]
