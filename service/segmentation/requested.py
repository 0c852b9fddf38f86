"""What a request asks for, checked before a model is there; imports neither torch nor NumPy."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.storage.verify import verify
from model.vocabulary.classes import Vocabulary
from service.errors import FieldProblem, InvalidRequestError, UsageError, field_problems
from service.schemas.segment import LongSide, SegmentRequest
from service.settings import Settings


def check_length(field: str, classes: int, most: int) -> None:
    """Raises InvalidRequestError if a class list is too long."""
    if classes > most:
        raise invalid(field, f"{classes} classes are too many; at most {most} are taken")


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
        problems = field_problems(error.errors())
        raise UsageError("; ".join(f"{one.field}: {one.message}" for one in problems)) from None


def requested_vocabulary(
    spec: SegmentRequest, most: int = Settings.model_fields["max_classes"].default
) -> Vocabulary:
    """The classes that are asked for; only the built-in lists have names here.

    Raises:
        UsageError: there is no list of that name.
        VocabularyError, ServiceError: a class that cannot be used, or more than `most`.
    """
    if spec.vocabulary is None:
        vocabulary = spec.listed
    elif spec.vocabulary in Vocabulary.builtin_names():
        vocabulary = Vocabulary.builtin(spec.vocabulary, spec.templates)
    else:
        raise UsageError(
            f"there is no built-in vocabulary {spec.vocabulary!r}; "
            f"known are {', '.join(Vocabulary.builtin_names())}"
        )
    check_length("classes", len(vocabulary), most)
    return vocabulary


def checked_for_here(settings: Settings, spec: SegmentRequest) -> tuple[Vocabulary, Path]:
    """The classes and the checkpoint's folder, looked at as far as that goes without loading the model.

    Raises:
        UsageError, ServiceError, ModelError: the classes, several devices, or there is no checkpoint.
    """
    if "," in settings.device:
        raise UsageError(f"pictures are segmented on one device without a service, got {settings.device}")
    vocabulary = requested_vocabulary(spec, settings.max_classes)
    folder = settings.checkpoint_folder()
    verify(folder, digests=False)
    return vocabulary, folder


def invalid(field: str, message: str) -> InvalidRequestError:
    """An error of one field."""
    return InvalidRequestError([FieldProblem(field, message)])
