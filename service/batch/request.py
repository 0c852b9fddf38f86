"""A run's request: a document of `POST /v1/segment` without what means nothing offline."""

from collections.abc import Mapping
from typing import Any

from service.errors import UsageError
from service.schemas.segment import AUTO_VOCABULARY, SegmentRequest
from service.segmentation.requested import read_request

_ROWS = "the columns of rows are always the same"
_PATIENCE = "nobody waits for a response"
_HERE = "which model segments is not part of it"
MEANINGLESS_REMOTELY = {
    "outputs": _ROWS,
    "regions": _ROWS,
    "subject": _ROWS,
    "timeout_ms": _PATIENCE,
}
MEANINGLESS_HERE = MEANINGLESS_REMOTELY | {"model": _HERE, "version": _HERE}


def read_batch_request(document: Mapping[str, Any], *, remote: bool) -> SegmentRequest:
    """A run's request, checked.

    Args:
        document: fields of `POST /v1/segment`.
        remote: whether a running service does the work, which has models to choose from.

    Raises:
        UsageError: a field that cannot be used, or that would be ignored.
    """
    spec = read_request(dict(document))
    for name, reason in (MEANINGLESS_REMOTELY if remote else MEANINGLESS_HERE).items():
        if getattr(spec, name) is not None:
            raise UsageError(f"{name}: leave it out of the request of a run, for {reason}")
    if spec.vocabulary == AUTO_VOCABULARY:
        raise UsageError("vocabulary: auto gives each image classes of its own; name the list for a run")
    return spec
