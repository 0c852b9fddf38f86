"""How this process talks to the Hugging Face hub: it never waits for ever."""

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import constants, get_session, set_client_factory
from huggingface_hub.utils import parse_ratelimit_headers
from huggingface_hub.utils._http import default_client_factory

from model.storage.hub.errors import BusyError

LONGEST_WAIT = 30.0
"""Seconds that are waited where the hub says when to come back; huggingface_hub itself waits as asked."""
PATIENT_SECONDS = 120.0


@functools.cache
def prepare() -> None:
    """Sets time-outs for all requests that huggingface_hub makes without one, which most are.

    Its log lines go where all others go, since it has a handler of its own for them.
    """
    set_client_factory(_client)
    library = logging.getLogger("huggingface_hub")
    for handler in list(library.handlers):
        library.removeHandler(handler)


@contextmanager
def patient() -> Iterator[None]:
    """Waits longer for answers: the hub takes its time for commits, and its storage for large files."""
    session = get_session()
    usual = session.timeout
    session.timeout = httpx2.Timeout(PATIENT_SECONDS, connect=usual.connect)
    try:
        yield
    finally:
        session.timeout = usual


def _client() -> httpx2.Client:
    client = default_client_factory()
    seconds = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    client.timeout = httpx2.Timeout(seconds)

    def limit(request: httpx2.Request) -> None:
        """Most of the library's calls ask in so many words for no limit at all."""
        asked = request.extensions.get("timeout", {})
        usual = client.timeout.as_dict()
        request.extensions["timeout"] = {kind: asked.get(kind) or seconds for kind, seconds in usual.items()}

    hooks = client.event_hooks
    client.event_hooks = {
        "request": [*hooks.get("request", ()), limit],
        "response": [*hooks.get("response", ()), _refuse_long_waits],
    }
    return client


def _refuse_long_waits(response: httpx2.Response) -> None:
    if response.status_code not in (429, 503):
        return
    after = response.headers.get("Retry-After", "")
    seconds = float(after) if after.isdigit() else 0.0
    limit = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limit is not None and limit.remaining == 0:
        seconds = float(limit.reset_in_seconds)
    if seconds > LONGEST_WAIT:
        raise BusyError(seconds)
