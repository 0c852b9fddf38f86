"""What can go wrong in the service; `problems.py` turns it into answers.

ServiceError
├── MalformedRequestError  a body that is no JSON or no multipart
├── BadPictureError        a picture that is empty, broken or cut short
├── PictureNotFetchedError a picture that was named by its URL, and is not to be had there
├── UnauthorizedError      no key, or an unknown one
├── ForbiddenError         a key that does not open this route
├── NotFoundError          a model, version or vocabulary that is not here
├── NotAcceptableError     no form of answer that the client takes
├── BodyTooSlowError       the body did not arrive in time
├── HeadTooSlowError       the headers did not
├── HeadTooLargeError      headers above the limit
├── TooManyBytesError      a body above the limit
├── TooManyPixelsError     a picture above the limit
├── TooMuchMemoryError     a request that alone needs more memory than there is
├── UnsupportedMediaError  a body or a picture of a type that is not taken
├── InvalidRequestError    fields that are wrong, each with its reason
├── ClientGoneError        the client hung up; nobody reads the answer
├── ConflictError          what is asked for does not go with how things are
├── RetryableError         refused for now, with the seconds after which to come again
│   ├── QueueFullError           as many requests as the service takes in are under way
│   ├── HostMemoryError          requests under way have the memory that this one needs
│   ├── DeadlineUnmeetableError  the queue is too long for the request's time
│   ├── TooManyConnectionsError  as many connections as there may be are open
│   ├── KeyLimitedError          an API key is used more than it may be
│   └── StoreUnavailableError    Redis or the registry is needed, and does not answer
├── OutOfMemoryError       the device's memory does not hold this one picture
├── PictureMemoryError    the host's memory does not hold it decoded
├── NotReadyError          loading, draining or failed
├── UnhealthyError         the same, as a probe's answer
└── DeadlineExceededError  the request's time is over

UsageError              arguments of a command or of a caller of ours: no request, so no answer to one
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: its path, with dots and indices, and what is wrong.

    Attributes:
        whole: it is the document itself that is wrong, of which `message` tells in a sentence.
    """

    field: str
    message: str
    whole: bool = dataclasses.field(default=False, compare=False)

    def __str__(self) -> str:
        return self.message if self.whole else f"{self.field}: {self.message}"


class ServiceError(Exception):
    """Base of all errors that the service raises on purpose.

    Args:
        detail: what is wrong and what to do, in a sentence a client understands.
    """

    def __init__(self, detail: str):
        super().__init__(detail)
        self.detail = detail


class MalformedRequestError(ServiceError):
    """A body that cannot be parsed."""


class BadPictureError(ServiceError):
    """A picture that cannot be decoded."""


class PictureNotFetchedError(ServiceError):
    """A picture that was named by its URL, and is not to be had there."""


class UnauthorizedError(ServiceError):
    """No key, or an unknown one."""


class ForbiddenError(ServiceError):
    """A key that does not open this route."""


class NotFoundError(ServiceError):
    """A model, version or vocabulary that is not here."""


class ConflictError(ServiceError):
    """What is asked for does not go with how things are."""


class NotAcceptableError(ServiceError):
    """No form of answer that the client takes."""


class BodyTooSlowError(ServiceError):
    """The body did not arrive in time."""


class HeadTooSlowError(ServiceError):
    """The headers did not arrive in time."""


class HeadTooLargeError(ServiceError):
    """Headers above the limit."""


class TooManyBytesError(ServiceError):
    """A body above the limit."""


class TooManyPixelsError(ServiceError):
    """A picture above the limit."""


class UnsupportedMediaError(ServiceError):
    """A body or a picture of a type that is not taken."""


class InvalidRequestError(ServiceError):
    """Fields that are wrong, one at least; the first of them is the reason that is reported."""

    def __init__(self, fields: Sequence[FieldProblem]):
        first, more = fields[0], len(fields) - 1
        others = f", and {more} more: see errors" if more else ""
        super().__init__(f"{first}{others}")
        self.fields = list(fields)


def invalid(field: str, message: str) -> InvalidRequestError:
    """An error of one field."""
    return InvalidRequestError([FieldProblem(field, message)])


class ClientGoneError(ServiceError):
    """The client hung up."""


class RetryableError(ServiceError):
    """Refused for now.

    Args:
        detail: why.
        retry_after: seconds after which to come again.
    """

    def __init__(self, detail: str, retry_after: int):
        super().__init__(f"{detail}; try again in {retry_after} s")
        self.retry_after = retry_after


class QueueFullError(RetryableError):
    """Too many requests under way.

    Args:
        retry_after: seconds until a place is likely to be free.
    """

    def __init__(self, retry_after: int):
        super().__init__("the queue is full", retry_after)


class HostMemoryError(RetryableError):
    """Requests under way have the memory that this one needs.

    Args:
        retry_after: seconds until there is likely to be room.
    """

    def __init__(self, retry_after: int):
        super().__init__("the requests under way have the memory that this one needs", retry_after)


class TooMuchMemoryError(ServiceError):
    """One request that alone needs more memory than there is."""


class DeadlineUnmeetableError(RetryableError):
    """The queue is too long for the request's time.

    Args:
        retry_after: seconds until it is likely to be short enough.
    """

    def __init__(self, retry_after: int):
        super().__init__(
            "the requests that wait leave no chance of a response within timeout_ms", retry_after
        )


class TooManyConnectionsError(RetryableError):
    """As many connections as there may be are open.

    Args:
        detail: how many, and of whom.
        reason: what it is counted under.
    """

    def __init__(self, detail: str, reason: str):
        super().__init__(detail, retry_after=1)
        self.reason = reason


class KeyLimitedError(RetryableError):
    """An API key is used more often, or more times at once, than it may be."""


class StoreUnavailableError(RetryableError):
    """Redis or the registry is needed, and does not answer."""

    def __init__(self, detail: str = "the store of vocabularies does not answer", retry_after: int = 1):
        super().__init__(detail, retry_after)


class OutOfMemoryError(ServiceError):
    """The device's memory does not hold this one picture."""

    def __init__(self, detail: str = "the device's memory does not hold this image at present"):
        super().__init__(detail)


class PictureMemoryError(ServiceError):
    """The host's memory does not hold the decoded picture at present; the picture may be sound."""

    def __init__(self) -> None:
        super().__init__("the memory does not hold this image at present; send a smaller one or retry")


class NotReadyError(ServiceError):
    """Loading, draining or failed."""


class UnhealthyError(ServiceError):
    """What a probe is answered while the service is not ready; no request was refused."""


class DeadlineExceededError(ServiceError):
    """The request's time is over."""


class UsageError(Exception):
    """An argument that cannot be used, or a file that cannot be read or written as asked."""
