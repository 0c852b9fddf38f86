"""The Python client of the service: light to import, typed, patient with a busy service.

`EBSegClient` for programs without an event loop, `AsyncEBSegClient` for asyncio. Its README shows how.
"""

from ebseg_client.async_client import AsyncEBSegClient
from ebseg_client.errors import (
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
from ebseg_client.exchange import Retry
from ebseg_client.requests import Balance, ClassSpec, SegmentOptions, Shares
from ebseg_client.results import (
    AnswerWarning,
    FoundClass,
    Health,
    ModelChange,
    ModelDetails,
    ModelVersion,
    Polygon,
    Segmentation,
    Segmented,
    UsedBackground,
    Vocabulary,
    VocabularySummary,
)
from ebseg_client.sync_client import EBSegClient

__all__ = [
    "AnswerError",
    "AnswerWarning",
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
    "UsedBackground",
    "Vocabulary",
    "VocabularySummary",
]
