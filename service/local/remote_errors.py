"""Which errors of a running service are of one picture, and which every other picture would meet as well."""

from ebseg_client import (
    AnswerError,
    BusyError,
    ConnectionFailedError,
    FieldsRefusedError,
    InputError,
    KeyRefusedError,
    NotFoundError,
    ProblemError,
)

_OF_ALL = (AnswerError, ConnectionFailedError, FieldsRefusedError, KeyRefusedError, NotFoundError)
_BY_PICTURE = "output_size"  # the one field that may be too much for a tall picture and not for a wide one


def is_of_all(error: Exception | None) -> bool:
    """Whether going on with other pictures is in vain."""
    if isinstance(error, FieldsRefusedError):
        return {problem.field for problem in error.fields} != {_BY_PICTURE}
    return isinstance(error, _OF_ALL)


def is_refused(error: Exception) -> bool:
    """Whether the same request would be refused again: the caller is at fault, not time or the service."""
    if isinstance(error, ProblemError):
        return error.status < 500 and not isinstance(error, BusyError)
    return isinstance(error, InputError)
