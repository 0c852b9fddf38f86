"""Traces of requests, where there is a collector for them. OpenTelemetry is imported only then."""

import logging
from typing import Protocol

from starlette.types import ASGIApp

from service.settings import Settings, SettingsError, telemetry_from_environment

LOG = logging.getLogger(__name__)


class Tracing(Protocol):
    """Makes spans of requests and brings them to a collector, off the requests' way."""

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application, with a span for every request."""

    def start(self) -> None:
        """Begins to send."""

    async def stop(self) -> None:
        """Sends what waits, for a bounded time, and ends."""


def tracing_of(settings: Settings) -> Tracing | None:
    """The tracing that the settings ask for, or the standard variables `OTEL_*`; None if neither does.

    Raises:
        SettingsError: an `otlp_endpoint`, and the extra `otlp` is not installed; a variable asks for what
            there is not.
    """
    asked = telemetry_from_environment()
    if asked.disabled or not (settings.otlp_endpoint or asked.traces):
        return None
    try:
        from service.observability.otlp import OtlpTracing
    except ModuleNotFoundError as error:
        missing = f"a package that is not installed ({error.name}): pip install 'ebseg[otlp]'"
        if settings.otlp_endpoint:
            raise SettingsError(f"otlp_endpoint needs {missing}") from None
        # a platform may set these variables for every container
        LOG.warning("no traces are sent: %s needs %s", asked.traces, missing)
        return None
    return OtlpTracing(settings.otlp_endpoint)
