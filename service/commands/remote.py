"""A running service, as commands talk to it."""

import argparse
import dataclasses
import os
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from service.commands.complaint import FAILED, UNUSABLE, complain

if TYPE_CHECKING:
    from ebseg_client import ClientError, EBSegClient


def with_client(args: argparse.Namespace, use: "Callable[[EBSegClient], None]") -> int:
    """Does something with a client of the service that the flags name; the exit code."""
    from ebseg_client import ClientError

    try:
        with connected(args.url, args.api_key, args.timeout) as client:
            use(client)
    except ClientError as error:
        return complain_of(error, args.url)
    return 0


def connected(url: str, api_key: str | None, timeout: float, connections: int = 1) -> "EBSegClient":
    """A client; the key is that of `chosen_key`.

    Raises:
        InputError: the address or the key cannot be used.
    """
    from ebseg_client import EBSegClient

    return EBSegClient(url, api_key=chosen_key(api_key), timeout=timeout, connections=connections)


def chosen_key(given: str | None) -> str | None:
    """The key that was given, or else the environment's, EBSEG_API_KEY."""
    return given if given is not None else os.environ.get("EBSEG_API_KEY") or None  # an empty one is none


def chosen_redis(given: str | None) -> str | None:
    """The Redis that was given, or else the service's setting in the environment, EBSEG_REDIS_URL."""
    return given if given is not None else os.environ.get("EBSEG_REDIS_URL") or None


def complain_of(error: "ClientError", url: str) -> int:
    """Says what a client met; exit code 2 where the request was at fault, 1 where it may succeed later."""
    from ebseg_client import ConnectionFailedError, InputError, KeyRefusedError
    from service.local.remote_errors import is_refused

    if isinstance(error, InputError):
        return complain(error, UNUSABLE)
    how = ""
    if isinstance(error, KeyRefusedError) and error.status == HTTPStatus.UNAUTHORIZED:
        how = ". Give a key with --api-key, or in EBSEG_API_KEY"
    elif isinstance(error, ConnectionFailedError):
        how = ". Does `ebseg serve` run there?"
    return complain(f"{url}: {error}{how}", UNUSABLE if is_refused(error) else FAILED)


def values(result: Any) -> dict[str, Any]:
    """A result of the client as JSON values."""

    def plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: v.isoformat() if isinstance(v, datetime) else v for name, v in pairs}

    return dataclasses.asdict(result, dict_factory=plain)
