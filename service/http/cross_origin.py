"""Which pages of other sites may call the service from a browser (CORS), by a setting."""

import re
from typing import Any

_EXPOSED = (
    "X-Request-ID",
    "Server-Timing",
    "Retry-After",
    "X-EBSeg-Model",
    "X-EBSeg-Untrained",
    "X-EBSeg-Warnings",
)
_SENT = ("Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "traceparent", "tracestate")
_KEPT = 600  # seconds that a browser keeps the answer


def middleware_options(origins: tuple[str, ...]) -> dict[str, Any]:
    """What Starlette's CORSMiddleware is to be given.

    Args:
        origins: as of the setting `cors_origins`.
    """
    patterns = [_pattern(origin) for origin in origins if "*." in origin]
    return {
        "allow_origins": [origin for origin in origins if "*." not in origin],
        "allow_origin_regex": "|".join(patterns) or None,
        "allow_methods": ["GET", "POST", "PUT", "DELETE"],
        "allow_headers": _SENT,
        "expose_headers": _EXPOSED,
        "allow_credentials": False,  # keys are in headers; nothing here knows a cookie
        "max_age": _KEPT,
    }


def _pattern(origin: str) -> str:
    scheme, _, rest = origin.partition("*.")
    return f"{re.escape(scheme)}(?:[a-z0-9-]+\\.)+{re.escape(rest)}"
