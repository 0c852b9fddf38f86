"""The Python client of the service: light to import, typed, patient with a busy service.

`EBSegClient` for programs without an event loop, `AsyncEBSegClient` for asyncio. docs/client.md shows how.
"""

from service.client.async_client import AsyncEBSegClient
from service.client.errors import (
    AnswerError,
    BusyError,
    ClientError,
    ConflictError,
    ConnectionFailedError,
    DeadlineError,
    DeadlineExceededError,
    FieldProblem,
    FieldsRefusedError,
    InputError,
    KeyRefusedError,
    NotFoundError,
    PictureRefusedError,
    ProblemError,
    RequestRefusedError,
    ServiceFaultError,
    UnavailableError,
)
from service.client.exchange import Retry
from service.client.requests import Balance, ClassSpec, SegmentOptions, Shares
from service.client.results import (
    FoundClass,
    Health,
    ModelChange,
    ModelDetails,
    ModelVersion,
    Polygon,
    Segmentation,
    Segmented,
    Vocabulary,
    VocabularySummary,
)
from service.client.sync_client import EBSegClient

__all__ = [
    "AnswerError",
    "AsyncEBSegClient",
    "Balance",
    "BusyError",
    "ClassSpec",
    "ClientError",
    "ConflictError",
    "ConnectionFailedError",
    "DeadlineError",
    "DeadlineExceededError",
    "EBSegClient",
    "FieldProblem",
    "FieldsRefusedError",
    "FoundClass",
    "Health",
    "InputError",
    "KeyRefusedError",
    "ModelChange",
    "ModelDetails",
    "ModelVersion",
    "NotFoundError",
    "PictureRefusedError",
    "Polygon",
    "ProblemError",
    "RequestRefusedError",
    "Retry",
    "SegmentOptions",
    "Segmentation",
    "Segmented",
    "ServiceFaultError",
    "Shares",
    "UnavailableError",
    "Vocabulary",
    "VocabularySummary",
]
