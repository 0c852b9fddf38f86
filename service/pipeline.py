"""One segmentation from bytes to answer: decode, queue, predict, text, classify, encode."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.balance import Balance, Weights
from model.vocabulary import ClassName, Vocabulary
from service.answer import Answer, Outcome, encode_answer
from service.decode import decode
from service.encode import WEBP_LONGEST, resized
from service.engine import Deadline, Engine, Job, ModelInfo
from service.errors import DeadlineExceededError, FieldProblem, InvalidRequestError, NotFoundError
from service.intake import Intake
from service.negotiate import OUTPUT_OF, Form
from service.runtime import Service
from service.schemas import BalanceSpec, LongSide, SegmentRequest
from service.settings import Settings

MOST_SCORES = 32 << 20  # elements of K x H x W that one answer may hold


async def segment(service: Service, intake: Intake, form: Form, request_id: str) -> Answer:
    """Answers one request.

    Args:
        service: with a started engine.
        intake: the request.
        form: what the answer is to be.
        request_id: to put into the answer.

    Raises:
        DeadlineExceededError: its time is over, wherever it was spent.
        ServiceError: of decoding, or fields that are wrong for this picture or model.
    """
    spec, settings = intake.spec, service.settings
    check_model(spec, service.engine.info)
    outputs = chosen_outputs(spec, form)
    deadline = Deadline(chosen_timeout(spec, settings) / 1000)
    try:
        async with asyncio.timeout(deadline.left()):
            return await _stages(service, intake, form, outputs, request_id, deadline)
    except TimeoutError:
        raise DeadlineExceededError(f"no answer within {deadline.seconds:g} s; see timeout_ms") from None
    finally:
        deadline.abandoned = True  # threads that still work for this request soon stop


async def _stages(
    service: Service, intake: Intake, form: Form, outputs: frozenset[str], request_id: str, deadline: Deadline
) -> Answer:
    began = time.perf_counter()
    plan = await service.in_pool(
        _prepare, service.engine, service.settings, intake.spec, intake.read_picture, outputs, deadline
    )
    service.metrics.megapixels.observe(plan.pixels / 1e6)
    service.metrics.vocabulary_size.observe(len(plan.job.vocabulary))
    result = await service.engine.segment(plan.job)
    service.admission.served(sum(t for stage, t in result.seconds.items() if stage != "queue"))
    outcome = Outcome(
        vocabulary=plan.job.vocabulary,
        given_colors=plan.given_colors,
        info=service.engine.info,
        result=result,
        picture=plan.picture,
        background=intake.spec.background is not None,
        outputs=outputs,
        request_id=request_id,
        seconds={"decode": plan.seconds, **result.seconds},
        began=began,
        check=deadline.check,
    )
    answer = await service.in_pool(encode_answer, outcome, form)
    service.metrics.stages(answer.seconds)
    service.metrics.last_success.set_to_current_time()
    return answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A decoded request.

    Attributes:
        job: for the engine.
        picture: at output size, where an overlay is wanted.
        given_colors: the caller's, one a class.
        pixels: of the picture that came in.
        seconds: what this took.
    """

    job: Job
    picture: NDArray[np.uint8] | None
    given_colors: list[str | None]
    pixels: int
    seconds: float


def _prepare(
    engine: Engine,
    settings: Settings,
    spec: SegmentRequest,
    read_picture: Callable[[], bytes],
    outputs: frozenset[str],
    deadline: Deadline,
) -> Plan:
    began = time.perf_counter()
    deadline.check()
    vocabulary = to_vocabulary(spec, settings.max_classes)
    balance = to_balance(spec.balance, engine.info.balance)
    picture = decode(read_picture(), max_pixels=settings.max_pixels)
    size = output_size(spec.output_size, (picture.shape[0], picture.shape[1]), settings.max_pixels)
    check_outputs(outputs, size, len(vocabulary))
    job = Job(
        prepared=engine.prepare(picture),
        vocabulary=vocabulary,
        output_size=size,
        threshold=0.0 if spec.background is None else spec.background.threshold,
        balance=balance,
        scores="scores" in outputs,
        deadline=deadline,
    )
    return Plan(
        job=job,
        picture=resized(picture, size) if "overlay" in outputs else None,
        given_colors=[entry.color for entry in spec.classes] if spec.classes else [None] * len(vocabulary),
        pixels=picture.shape[0] * picture.shape[1],
        seconds=time.perf_counter() - began,
    )


def to_vocabulary(spec: SegmentRequest, max_classes: int) -> Vocabulary:
    """The classes of a request.

    Raises:
        NotFoundError: the vocabulary is unknown.
        InvalidRequestError, VocabularyError: too many classes, or one that cannot be used.
    """
    if spec.vocabulary is not None:
        if spec.vocabulary not in Vocabulary.builtin_names():
            raise NotFoundError("there is no vocabulary of this name; GET /v1/vocabularies lists them")
        vocabulary = Vocabulary.builtin(spec.vocabulary, spec.templates)
    else:
        entries = [
            ClassName(
                name=entry.name,
                # a caller's synonyms come on top of the name, which alone would do
                synonyms=(entry.name, *entry.synonyms) if entry.synonyms else (),
                trained=entry.trained,
            )
            for entry in spec.classes or []
        ]
        vocabulary = Vocabulary.of(entries, templates=spec.templates)
    if len(vocabulary) > max_classes:
        field = "classes" if spec.vocabulary is None else "vocabulary"
        raise _invalid(field, f"{len(vocabulary)} classes are too many; at most {max_classes} are taken")
    return vocabulary


def to_balance(spec: BalanceSpec | None, default: Balance) -> Balance | None:
    """The balance of a request; None leaves it to the checkpoint.

    Raises:
        InvalidRequestError: a geometric mean without weights, where the checkpoint has an arithmetic one.
    """
    if spec is None:
        return None
    if spec.trained is not None and spec.new is not None:
        trained, new = Weights(**spec.trained.model_dump()), Weights(**spec.new.model_dump())
        return Balance(mean=spec.mean, trained=trained, new=new)
    if spec.mean == default.mean:
        return default
    if spec.mean == "arithmetic":
        return Balance.arithmetic()
    raise _invalid("balance", "this checkpoint has no weights for a geometric mean; give trained and new")


def output_size(spec: LongSide | None, picture: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Rows and columns of the answer.

    Raises:
        InvalidRequestError: more pixels than the service makes.
    """
    if spec is None:
        return picture
    scale = spec.long_side / max(picture)
    height, width = (max(1, round(side * scale)) for side in picture)
    if height * width > max_pixels:
        raise _invalid("output_size", f"{width} x {height} is above the limit of {max_pixels} pixels")
    return height, width


def check_model(spec: SegmentRequest, info: ModelInfo) -> None:
    """Raises NotFoundError if the request names another model or version than the loaded one."""
    if spec.model not in (None, info.name):
        raise NotFoundError("this model is not loaded; GET /v1/models lists what is")
    if spec.version not in (None, info.version):
        raise NotFoundError(f"version {spec.version} of {info.name} is not loaded, version {info.version} is")


def chosen_timeout(spec: SegmentRequest, settings: Settings) -> int:
    """Milliseconds that the request has.

    Raises:
        InvalidRequestError: it asks for more than there is.
    """
    if spec.timeout_ms is None:
        return settings.timeout_ms
    if spec.timeout_ms > settings.max_timeout_ms:
        raise _invalid("timeout_ms", f"must be at most {settings.max_timeout_ms}")
    return spec.timeout_ms


def chosen_outputs(spec: SegmentRequest, form: Form) -> frozenset[str]:
    """What to make for this answer.

    Raises:
        InvalidRequestError: `outputs` has more than an answer of this form can hold.
    """
    only = OUTPUT_OF.get(form)
    if only is None:
        return frozenset(spec.outputs or ["rle"])
    if spec.outputs not in (None, [only]):
        raise _invalid("outputs", f"an answer as {form} holds {only} only; accept application/json for more")
    return frozenset([only])


def check_outputs(outputs: frozenset[str], size: tuple[int, int], classes: int) -> None:
    """Raises InvalidRequestError if an output would be larger than it may be."""
    height, width = size
    if "overlay" in outputs and max(size) > WEBP_LONGEST:
        raise _invalid(
            "outputs", f"an overlay has at most {WEBP_LONGEST} pixels a side; set output_size to less"
        )
    if "scores" in outputs and classes * height * width > MOST_SCORES:
        raise _invalid(
            "outputs",
            f"scores of {classes} x {height} x {width} are more than {MOST_SCORES} numbers; set output_size, "
            'for example {"long_side": 512}',
        )


def _invalid(field: str, message: str) -> InvalidRequestError:
    return InvalidRequestError([FieldProblem(field, message)])
