"""The document that a form's fields, or a query's, stand for."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from starlette.datastructures import ImmutableMultiDict, UploadFile

from model.tiling import tiling_document
from service.errors import FieldProblem, InvalidRequestError
from service.schemas.field_problems import MOST_ASKED, UNKNOWN, shown_name, unknown_field
from service.schemas.lists import listed

T = TypeVar("T")
R = TypeVar("R")

REPEATED = ("classes", "outputs", "templates", "palette")
PLAIN = (
    "vocabulary",
    "subject",
    "synonym_mode",
    "background",
    "mean",
    "output_size",
    "tiling",
    "model",
    "version",
    "frame",
    "timeout_ms",
)

AS_THEY_ARE = tuple(name for name in PLAIN if name not in ("background", "mean", "tiling"))
ONCE = ("image", "url", "request", *PLAIN)
KNOWN = frozenset((*ONCE, *REPEATED))
IN_QUERY = KNOWN - {"image", "url"}
DOCUMENTS_ONLY = frozenset(("balance", "regions"))  # fields that no text stands for
_IN_A_DOCUMENT = "has no form as text; send everything in a JSON document, in the field request"


def is_picture(media_type: str) -> bool:
    """Whether a body of this type is a picture itself; its query is the rest of the request."""
    return media_type.startswith("image/") or media_type == "application/octet-stream"


def problems_of_names(fields: ImmutableMultiDict[str, Any], known: Collection[str]) -> list[FieldProblem]:
    """Unknown fields, and those that came more than once and may not."""
    given = [name for name, _ in fields.multi_items()]
    unknown = [name for name in dict.fromkeys(given) if name not in known]
    problems = [
        FieldProblem(shown_name(name), _unknown(name, known) if number < MOST_ASKED else UNKNOWN)
        for number, name in enumerate(unknown)
    ]
    if len(given) != len(fields):
        more = {"image": "; several images go to /v1/segment/batch"}
        twice = (name for name in ONCE if given.count(name) > 1)
        problems += [FieldProblem(name, f"given more than once{more.get(name, '')}") for name in twice]
    return problems


def _unknown(name: str, known: Collection[str]) -> str:
    return _IN_A_DOCUMENT if name in DOCUMENTS_ONLY else unknown_field(name, known)


def filled(fields: ImmutableMultiDict[str, Any]) -> ImmutableMultiDict[str, Any]:
    """The fields that hold something: what people leave empty in a form is sent as empty text, too."""
    items = fields.multi_items()
    given = {name for name, value in items if value != ""}
    if len(given) == len(fields):
        return fields
    return ImmutableMultiDict([(name, value) for name, value in items if name in given])


def refuse_query(fields: ImmutableMultiDict[str, Any]) -> None:
    """Raises InvalidRequestError for a query beside a form or a document, which would be ignored."""
    asked = [name for name in fields if name in KNOWN]
    if asked:
        why = "give it in the body; a query goes with a body that is the image, sent as image/..."
        raise InvalidRequestError([FieldProblem(name, why) for name in asked])


def document_of(fields: ImmutableMultiDict[str, Any]) -> dict[str, Any]:
    """The document; lists may be repeated fields, and each of these holds values as `listed` reads them.

    Raises:
        InvalidRequestError: a file where text is expected, or a list that cannot be read.
    """
    files = {name for name, value in fields.multi_items() if isinstance(value, UploadFile)}
    wrong = [name for name in (*REPEATED, *PLAIN, "url") if name in files]
    if wrong:
        raise InvalidRequestError([FieldProblem(name, "must be text, not a file") for name in wrong])
    document: dict[str, Any] = {name: fields[name] for name in AS_THEY_ARE if name in fields}
    for name in ("classes", "outputs"):
        if name in fields:
            document[name] = _list(name, fields.getlist(name))
    if "templates" in fields:
        document["templates"] = _templates(fields.getlist("templates"))
    if "palette" in fields:
        colors = _list("palette", fields.getlist("palette"))
        document["palette"] = colors[0] if colors in (["distinct"], ["voc"]) else colors
    if "background" in fields:
        given = fields["background"]
        document["background"] = None if given == "none" else {"threshold": given}
    if "mean" in fields:
        document["balance"] = {"mean": fields["mean"]}
    if "tiling" in fields:
        document["tiling"] = _read("tiling", tiling_document, fields["tiling"])
    if document.get("output_size") not in (None, "image"):
        document["output_size"] = {"long_side": document["output_size"]}
    return document


def _list(name: str, texts: list[str]) -> list[Any]:
    return _read(name, listed, texts)


def _read(name: str, reading: Callable[[T], R], given: T) -> R:
    try:
        return reading(given)
    except ValueError as error:
        raise InvalidRequestError([FieldProblem(name, str(error))]) from None


def _templates(texts: list[str]) -> str | list[Any]:
    """A set's name, or sentences, which hold commas; or both as a JSON list."""
    if len(texts) == 1:
        return _list("templates", texts) if texts[0].lstrip().startswith("[") else texts[0]
    return texts
