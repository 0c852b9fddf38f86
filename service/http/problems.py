"""The one table that turns errors into answers, as RFC 9457 has them (application/problem+json).

Only this file knows status codes.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from model.errors import ModelError, PictureError, VocabularyError
from service.errors import (
    BadPictureError,
    BodyTooSlowError,
    ClientGoneError,
    ConflictError,
    DeadlineExceededError,
    DeadlineUnmeetableError,
    FieldProblem,
    ForbiddenError,
    HeadTooLargeError,
    HeadTooSlowError,
    HostMemoryError,
    InvalidRequestError,
    KeyLimitedError,
    MalformedRequestError,
    NotAcceptableError,
    NotFoundError,
    NotReadyError,
    OutOfMemoryError,
    PictureMemoryError,
    PictureNotFetchedError,
    QueueFullError,
    RetryableError,
    ServiceError,
    StoreUnavailableError,
    TooManyBytesError,
    TooManyConnectionsError,
    TooManyPixelsError,
    TooMuchMemoryError,
    UnauthorizedError,
    UnhealthyError,
    UnsupportedMediaError,
)
from service.schemas.field_problems import field_problems

MEDIA_TYPE = "application/problem+json"
RETRY_S = 5  # after which to come again, where the error knows nothing better
NOTHING_HERE = "there is nothing at this path; /openapi.json lists all paths"
MOST_FIELDS = 50  # a list of a thousand broken classes needs no thousand lines


@dataclass(frozen=True, slots=True)
class Kind:
    """How an error is answered; `refusal` marks those counted in `ebseg_rejected_total`."""

    status: int
    slug: str
    title: str
    refusal: bool = False

    @property
    def internal(self) -> bool:
        """A fault of ours, whose inside is nobody's business."""
        return self.status == HTTPStatus.INTERNAL_SERVER_ERROR


KINDS: dict[type[Exception], Kind] = {
    MalformedRequestError: Kind(400, "malformed-request", "The request cannot be parsed"),
    BadPictureError: Kind(400, "bad-picture", "The image cannot be decoded"),
    PictureError: Kind(400, "bad-picture", "The image cannot be used"),
    UnauthorizedError: Kind(401, "unauthorized", "A key is needed", refusal=True),
    ForbiddenError: Kind(403, "forbidden", "Not permitted", refusal=True),
    NotFoundError: Kind(404, "not-found", "Not found"),
    NotAcceptableError: Kind(406, "not-acceptable", "No acceptable form of response"),
    ConflictError: Kind(409, "conflict", "Conflict"),
    BodyTooSlowError: Kind(408, "body-too-slow", "The body arrived too slowly", refusal=True),
    HeadTooSlowError: Kind(408, "headers-too-slow", "The headers arrived too slowly"),
    TooManyBytesError: Kind(413, "too-many-bytes", "The body is too large", refusal=True),
    TooManyPixelsError: Kind(413, "too-many-pixels", "The image is too large", refusal=True),
    TooMuchMemoryError: Kind(413, "too-much-memory", "The request needs too much memory", refusal=True),
    UnsupportedMediaError: Kind(415, "unsupported-media-type", "Media type not supported"),
    InvalidRequestError: Kind(422, "invalid-request", "The request is invalid"),
    VocabularyError: Kind(422, "invalid-request", "The request is invalid"),
    RequestValidationError: Kind(422, "invalid-request", "The request is invalid"),
    PictureNotFetchedError: Kind(424, "picture-not-fetched", "The image cannot be fetched"),
    KeyLimitedError: Kind(429, "key-limited", "Too many requests", refusal=True),
    QueueFullError: Kind(429, "queue-full", "Too many requests", refusal=True),
    HostMemoryError: Kind(429, "memory-full", "Too many requests", refusal=True),
    DeadlineUnmeetableError: Kind(429, "deadline-unmeetable", "Too many requests", refusal=True),
    HeadTooLargeError: Kind(431, "headers-too-large", "The headers are too large"),
    # No standard status fits a client that left; 499 is what proxies log for it.
    ClientGoneError: Kind(499, "client-gone", "The client hung up", refusal=True),
    ClientDisconnect: Kind(499, "client-gone", "The client hung up", refusal=True),
    StoreUnavailableError: Kind(503, "store-unavailable", "The store does not answer", refusal=True),
    OutOfMemoryError: Kind(503, "out-of-memory", "Out of memory", refusal=True),
    PictureMemoryError: Kind(503, "out-of-memory", "Out of memory", refusal=True),
    MemoryError: Kind(503, "out-of-memory", "Out of memory", refusal=True),  # of the process, wherever
    TooManyConnectionsError: Kind(503, "too-many-connections", "Too many connections"),
    NotReadyError: Kind(503, "not-ready", "The service is not ready", refusal=True),
    UnhealthyError: Kind(503, "not-ready", "The service is not ready"),
    DeadlineExceededError: Kind(504, "deadline-exceeded", "The request took too long", refusal=True),
    # Anything else that the model raises at this point is a fault of ours, not of the request.
    ModelError: Kind(500, "internal-error", "Internal error"),
    Exception: Kind(500, "internal-error", "Internal error"),
}


def kind_of(error: Exception) -> Kind:
    """The row of the table for an error; the closest base class counts."""
    if isinstance(error, HTTPException):
        return _kind_of_status(error.status_code)
    return next(KINDS[base] for base in type(error).__mro__ if base in KINDS)


def problem(error: Exception, request_id: str) -> dict[str, Any]:
    """The problem document of an error. Errors of status 500 say nothing of what happened inside."""
    kind = kind_of(error)
    document: dict[str, Any] = {
        "type": f"urn:ebseg:problem:{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": _detail(error, kind),
        "request_id": request_id,
    }
    fields = _fields(error)
    if fields:
        document["errors"] = [{"field": f.field, "message": f.message} for f in fields[:MOST_FIELDS]]
    return document


def problem_response(error: Exception, request_id: str) -> Response:
    """The answer to an error."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    status = kind_of(error).status
    if isinstance(error, RetryableError):
        headers["Retry-After"] = str(error.retry_after)
    elif status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(RETRY_S))
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    body = json.dumps(problem(error, request_id)).encode()
    return Response(body, status, headers, MEDIA_TYPE)


def _kind_of_status(status: int) -> Kind:
    for kind in KINDS.values():
        if kind.status == status:
            return kind
    phrase = HTTPStatus(status).phrase
    return Kind(status, phrase.lower().replace(" ", "-"), phrase)


def _fields(error: Exception) -> list[FieldProblem]:
    if isinstance(error, InvalidRequestError):
        return error.fields
    if isinstance(error, VocabularyError):
        where = "classes" if error.index is None else f"classes.{error.index}"
        return [FieldProblem(where, str(error))]
    if isinstance(error, RequestValidationError):
        return field_problems(error.errors())
    return []


_UNROUTED = {  # in the stead of Starlette's bare "Not Found"
    404: NOTHING_HERE,
    405: "this path does not take this method",
}


def _detail(error: Exception, kind: Kind) -> str:
    if kind.internal:
        return "something went wrong inside the service; its log has more under this request_id"
    if isinstance(error, ServiceError):
        return error.detail
    if isinstance(error, HTTPException):
        bare = error.detail == HTTPStatus(error.status_code).phrase
        allowed = (error.headers or {}).get("Allow")
        use = f"; use {allowed.replace(', ', ' or ')}" if bare and allowed else ""
        return _UNROUTED.get(error.status_code, error.detail) + use if bare else error.detail
    if isinstance(error, RequestValidationError):
        return InvalidRequestError(_fields(error)).detail
    if isinstance(error, MemoryError):
        return "the service's memory does not suffice for this request at present"
    if isinstance(error, ClientDisconnect):
        return "the client hung up before its body was complete"
    return str(error)
