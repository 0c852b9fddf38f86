"""Errors of one process, raised in another: what clients are told of them stays the same."""

import traceback
from typing import Any

from model import errors as of_model
from service import errors as of_service
from service.errors import FieldProblem, ServiceError

_PLAIN = (str, int, float, bool, type(None))
_KNOWN: dict[str, type[Exception]] = {
    **{
        name: kind
        for module in (of_service, of_model)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, ServiceError | of_model.ModelError)
    },
    "MemoryError": MemoryError,
}


class OtherProcessError(RuntimeError):
    """What went wrong in another process, and is no error that anybody is told of."""


def to_document(error: BaseException) -> dict[str, Any]:
    """An error as JSON has it."""
    document: dict[str, Any] = {"kind": type(error).__name__, "text": str(error)}
    if document["kind"] not in _KNOWN or _KNOWN[document["kind"]] is not type(error):
        return {**document, "trace": "".join(traceback.format_exception(error))}
    values = vars(error)
    document["values"] = {name: value for name, value in values.items() if isinstance(value, _PLAIN)}
    if "fields" in values:
        document["fields"] = [(one.field, one.message) for one in values["fields"]]
    return document


def from_document(document: dict[str, Any]) -> Exception:
    """The opposite of `to_document`; an unknown kind becomes an OtherProcessError."""
    kind = _KNOWN.get(document["kind"])
    if kind is None:
        other = OtherProcessError(f"{document['kind']}: {document['text']}")
        other.add_note(document.get("trace", ""))
        return other
    error = kind.__new__(kind)
    error.args = (document["text"],)
    vars(error).update(document.get("values", {}))
    if "fields" in document:
        vars(error)["fields"] = [FieldProblem(*one) for one in document["fields"]]
    return error
