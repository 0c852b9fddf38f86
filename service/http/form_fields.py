"""The document that a form's fields, or a query's, stand for."""

from typing import Any

from starlette.datastructures import ImmutableMultiDict, UploadFile

from service.errors import FieldProblem, InvalidRequestError
from service.schemas.lists import listed

REPEATED = ("classes", "outputs", "templates")
PLAIN = (
    "vocabulary",
    "synonym_mode",
    "background",
    "mean",
    "output_size",
    "model",
    "version",
    "timeout_ms",
)


def document_of(fields: ImmutableMultiDict[str, Any]) -> dict[str, Any]:
    """The document; lists may be repeated fields, and each of these holds values as `listed` reads them.

    Raises:
        InvalidRequestError: a file where text is expected, or a list that cannot be read.
    """
    files = {name for name, value in fields.multi_items() if isinstance(value, UploadFile)}
    wrong = [name for name in (*REPEATED, *PLAIN) if name in files]
    if wrong:
        raise InvalidRequestError([FieldProblem(name, "must be text, not a file") for name in wrong])
    document: dict[str, Any] = {
        name: fields[name]
        for name in ("vocabulary", "synonym_mode", "output_size", "model", "version", "timeout_ms")
        if name in fields
    }
    for name in ("classes", "outputs"):
        if name in fields:
            document[name] = _list(name, fields.getlist(name))
    if "templates" in fields:
        document["templates"] = _templates(fields.getlist("templates"))
    if "background" in fields:
        given = fields["background"]
        document["background"] = None if given == "none" else {"threshold": given}
    if "mean" in fields:
        document["balance"] = {"mean": fields["mean"]}
    if document.get("output_size") not in (None, "image"):
        document["output_size"] = {"long_side": document["output_size"]}
    return document


def _list(name: str, texts: list[str]) -> list[Any]:
    try:
        return listed(texts)
    except ValueError as error:
        raise InvalidRequestError([FieldProblem(name, str(error))]) from None


def _templates(texts: list[str]) -> str | list[Any]:
    """A set's name, or sentences, which hold commas; or both as a JSON list."""
    if len(texts) == 1:
        return _list("templates", texts) if texts[0].lstrip().startswith("[") else texts[0]
    return texts
