"""What a request asks for, checked before a model is there; imports neither torch nor NumPy."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from model.errors import question
from model.storage.verify import verify
from model.vocabulary.classes import LARGEST_BUILTIN, MAX_CLASSES, Vocabulary
from service.errors import UsageError, invalid
from service.schemas.balance import BalanceSpec
from service.schemas.field_problems import field_problems
from service.schemas.segment import AUTO_VOCABULARY, OF_ONE_CLASS, LongSide, SegmentRequest
from service.settings import Settings

if TYPE_CHECKING:
    from model.network.balance import Balance


def check_length(field: str, classes: int, most: int) -> None:
    """Raises InvalidRequestError if a class list is too long."""
    if classes > most:
        raise invalid(
            field, f"{classes} classes are too many; at most {most} are taken (setting max_classes)"
        )


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
        raise invalid("output_size", f"{width} x {height} is above the limit of {max_pixels} pixels")
    return height, width


def read_request(document: dict[str, Any]) -> SegmentRequest:
    """A request's document, checked.

    Raises:
        UsageError: it cannot be used; names each wrong field.
    """
    try:
        return SegmentRequest.model_validate(document)
    except ValidationError as error:
        problems = field_problems(error.errors(), SegmentRequest)
        raise UsageError("; ".join(f"{one.field}: {one.message}" for one in problems)) from None


def requested_vocabulary(spec: SegmentRequest, most: int = MAX_CLASSES) -> Vocabulary:
    """The classes that are asked for; only the built-in lists have names here.

    Raises:
        UsageError: there is no list of that name.
        VocabularyError, ServiceError: a class that cannot be used, or more than `most`.
    """
    if spec.vocabulary is None:
        vocabulary = spec.listed
    elif spec.vocabulary in (AUTO_VOCABULARY, *Vocabulary.builtin_names()):
        name = LARGEST_BUILTIN if spec.vocabulary == AUTO_VOCABULARY else spec.vocabulary
        vocabulary = Vocabulary.builtin(name, spec.templates)
    else:
        known = (AUTO_VOCABULARY, *Vocabulary.builtin_names())
        raise UsageError(
            f"there is no built-in vocabulary {spec.vocabulary!r}; known are {', '.join(known)}"
            f"{question(spec.vocabulary, known)}"
        )
    check_length("classes", len(vocabulary), most)
    return vocabulary


def check_subject(spec: SegmentRequest, outputs: Collection[str], vocabulary: Vocabulary) -> None:
    """Raises InvalidRequestError if a cut-out is wanted of no class, or of one that is not answered."""
    if not OF_ONE_CLASS.intersection(outputs):
        return
    names = vocabulary.names
    reported = [names[index] for index in vocabulary.reported]
    if spec.subject is None and len(reported) > 1:
        raise invalid("subject", "is missing: which class do soft_mask and cutout show?")
    if spec.subject is not None and spec.subject not in reported:
        meant = question(spec.subject, reported)
        raise invalid("subject", f"is none of the classes that are answered{meant}")


def checked_for_here(settings: Settings, spec: SegmentRequest) -> tuple[Vocabulary, Path]:
    """The classes and the checkpoint's folder, looked at as far as that goes without loading the model.

    Raises:
        UsageError, ServiceError, ModelError: the classes, several devices, or there is no checkpoint.
    """
    if "," in settings.device:
        raise UsageError(f"images are segmented on one device without a service, got {settings.device}")
    vocabulary = requested_vocabulary(spec, settings.max_classes)
    check_subject(spec, spec.outputs or (), vocabulary)
    folder = settings.checkpoint_folder()
    verify(folder, digests=False)
    return vocabulary, folder


def given_colors(spec: SegmentRequest, vocabulary: Vocabulary) -> list[str | None]:
    """The colours that a request chose, for each class of its vocabulary."""
    return [None] * len(vocabulary) if spec.classes is None else [entry.color for entry in spec.classes]


def to_balance(spec: BalanceSpec | None, default: "Balance") -> "Balance | None":
    """The balance of a request; None leaves it to the checkpoint.

    Args:
        spec: the request's.
        default: the checkpoint's.

    Raises:
        InvalidRequestError: a geometric mean without weights, where the checkpoint has an arithmetic one.
    """
    if spec is None:
        return None
    from model.network.balance import Balance, Weights

    if spec.trained is not None and spec.new is not None:
        trained, new = Weights(**spec.trained.model_dump()), Weights(**spec.new.model_dump())
        return Balance(mean=spec.mean, trained=trained, new=new)
    if spec.mean == default.mean:
        return default
    if spec.mean == "arithmetic":
        return Balance.arithmetic()
    raise invalid("balance", "this checkpoint has no weights for a geometric mean; give trained and new")
