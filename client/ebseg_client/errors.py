"""What can go wrong between a client and the service.

ClientError
├── InputError               what was passed cannot be sent; nothing was sent
├── ConnectionFailedError    no answer: nobody listens, the connection broke, or the client was closed
├── DeadlineError            the call's time is over
├── AnswerError              an answer that no EBSeg service gives
└── ProblemError             the service said no: status, type, detail, fields, request id
    ├── RequestRefusedError      it cannot use the request (400, 405, 406, 411, ...), or has moved (3xx)
    │   ├── PictureRefusedError      or its picture (bad, too large, of no format that is taken)
    │   └── FieldsRefusedError       or some fields, each with its reason (422)
    ├── KeyRefusedError          no key, an unknown one, or one that is not enough (401, 403)
    ├── NotFoundError            no such model, version, vocabulary or path (404)
    ├── ConflictError            it does not go with how things are (409)
    ├── BusyError                too much to do, or the body came too slowly (429, 408)
    ├── UnavailableError         loading, draining, out of memory, its store or a proxy's peer away (502, 503)
    ├── ServiceFaultError        a fault of the service (500)
    └── DeadlineExceededError    no answer within the request's time (504); a DeadlineError as well
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

URN = "urn:ebseg:problem:"
_KNOWN = frozenset(int(status) for status in HTTPStatus)
SHOWN = 300  # characters of an answer that is no problem document


class ClientError(Exception):
    """Base of all errors of the client.

    Attributes:
        attempts: how often the request was sent.
        request_id: names the call in the service's log; None before anything was sent.
    """

    attempts: int = 0
    request_id: str | None = None

    def __str__(self) -> str:
        parts = super().__str__()
        if self.attempts > 1:
            parts += f"; tried {self.attempts} times"
        return parts if self.request_id is None else f"{parts} (request {self.request_id})"


class InputError(ClientError, ValueError):
    """What was passed cannot be sent."""


class ConnectionFailedError(ClientError):
    """No answer."""


class DeadlineError(ClientError):
    """The call's time is over."""


class AnswerError(ClientError):
    """An answer that no EBSeg service gives."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: its path, with dots and indices, and what is wrong."""

    field: str
    message: str


class ProblemError(ClientError):
    """The service said no.

    Attributes:
        status: of the answer.
        type: "queue-full", "bad-picture", ..., as docs/http.md lists them; "" for answers of a proxy.
        title, detail: for people.
        fields: wrong fields, where the service named some.
        retry_after: seconds after which to come again, where the service said so.
    """

    def __init__(
        self,
        *,
        status: int,
        type: str,
        title: str,
        detail: str,
        fields: tuple[FieldProblem, ...] = (),
        retry_after: float | None = None,
    ):
        shown = "; ".join(f"{field.field}: {field.message}" for field in fields) or detail
        super().__init__(f"{title}: {shown} [{status}]" if shown else f"{title} [{status}]")
        self.status = status
        self.type = type
        self.title = title
        self.detail = detail
        self.fields = fields
        self.retry_after = retry_after

    @property
    def is_own(self) -> bool:
        """Whether the service itself said no, and not a proxy before it."""
        return self.type != ""


class RequestRefusedError(ProblemError):
    """It cannot use the request."""


class PictureRefusedError(RequestRefusedError):
    """It cannot use the picture."""


class FieldsRefusedError(RequestRefusedError):
    """It cannot use some fields."""


class KeyRefusedError(ProblemError):
    """No key, an unknown one, or one that is not enough."""


class NotFoundError(ProblemError):
    """No such model, version, vocabulary or path."""


class ConflictError(ProblemError):
    """It does not go with how things are."""


class BusyError(ProblemError):
    """Too much to do."""


class UnavailableError(ProblemError):
    """Loading, draining, out of memory, or something behind it is away."""


class ServiceFaultError(ProblemError):
    """A fault of the service."""


class DeadlineExceededError(ProblemError, DeadlineError):
    """No answer within the request's time."""


BY_TYPE: dict[str, type[ProblemError]] = {
    "bad-picture": PictureRefusedError,
    "too-many-bytes": PictureRefusedError,
    "too-many-pixels": PictureRefusedError,
    "unsupported-media-type": PictureRefusedError,
    "out-of-memory": UnavailableError,
}
BY_STATUS: dict[int, type[ProblemError]] = {
    401: KeyRefusedError,
    403: KeyRefusedError,
    404: NotFoundError,
    408: BusyError,
    409: ConflictError,
    422: FieldsRefusedError,
    429: BusyError,
    502: UnavailableError,
    503: UnavailableError,
    504: DeadlineExceededError,
}


def problem_error(
    status: int, document: Mapping[str, Any] | None, text: str, retry_after: float | None
) -> ProblemError:
    """The error for an answer that is none of success.

    Args:
        status: of the answer.
        document: its problem document; None if it is something else, such as a proxy's page.
        text: the answer as it came, shown where there is no document.
        retry_after: seconds, by its header.
    """
    if document is None or not str(document.get("type", "")).startswith(URN):
        phrase = HTTPStatus(status).phrase if status in _KNOWN else "unexpected status"
        return _class_of(status, "")(
            status=status, type="", title=phrase, detail=text.strip()[:SHOWN], retry_after=retry_after
        )
    slug = str(document["type"]).removeprefix(URN)
    entries = document.get("errors")
    error = _class_of(status, slug)(
        status=status,
        type=slug,
        title=str(document.get("title", "")),
        detail=str(document.get("detail", "")),
        fields=tuple(
            FieldProblem(str(entry.get("field")), str(entry.get("message")))
            for entry in (entries if isinstance(entries, list) else [])
            if isinstance(entry, dict)
        ),
        retry_after=retry_after,
    )
    error.request_id = str(document["request_id"]) if document.get("request_id") else None
    return error


def _class_of(status: int, slug: str) -> type[ProblemError]:
    fallback = ServiceFaultError if status >= 500 else RequestRefusedError
    return BY_TYPE.get(slug) or BY_STATUS.get(status, fallback)
