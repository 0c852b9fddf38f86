"""Fetches a picture that a request names by its URL."""

import asyncio
import functools
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence

from service.errors import (
    DeadlineExceededError,
    PictureNotFetchedError,
)
from service.remote_pictures.addresses import Allowed, BucketAddress
from service.remote_pictures.bucket import Buckets
from service.remote_pictures.web import fetch_from_web
from service.scheduling.deadline import Deadline
from service.scheduling.host_memory import HostAccount
from service.settings import Settings

MOST_FETCHES = 64  # at a time; others wait, within their time
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class PictureFetcher:
    """Fetches what the settings allow. Belongs to one event loop.

    Args:
        settings: with the hosts and buckets, and the limits of time and bytes.
        resolve: the addresses of a host and port; the system's if left out.

    Raises:
        SettingsError: a bucket of a kind that cannot be read here.
    """

    def __init__(self, settings: Settings, resolve: Resolve | None = None):
        self.allowed = Allowed.of(settings)
        self._seconds = settings.url_timeout_s
        self._most = settings.max_bytes
        self._resolve = resolve or _addresses
        self._buckets = Buckets(settings.url_buckets)
        self._places = asyncio.Semaphore(MOST_FETCHES)

    async def fetch(self, url: str, memory: HostAccount, deadline: Deadline) -> list[bytes]:
        """A picture's bytes, in the pieces that they came in.

        Args:
            url: of it.
            memory: where its bytes are reserved as they come.
            deadline: of the request; the setting `url_timeout_s` may be shorter.

        Raises:
            InvalidRequestError: the URL is not allowed, or leads where it may not.
            PictureNotFetchedError: the other side has no picture, or is too slow.
            TooManyBytesError: it is larger than a body may be.
            HostMemoryError, TooMuchMemoryError: as of `HostAccount.take`.
            DeadlineExceededError: the request's time is over.
        """
        address = self.allowed.address(url)
        seconds, left = self._seconds, deadline.left()
        try:
            async with asyncio.timeout(min(seconds, left)), self._places:
                if isinstance(address, BucketAddress):
                    return [await self._buckets.fetch(address, memory, self._most)]
                return await fetch_from_web(
                    address, self.allowed, self._resolve, self._tls, memory, self._most
                )
        except TimeoutError:
            if left <= seconds:
                raise DeadlineExceededError(
                    f"no image within {deadline.seconds:g} s; see timeout_ms"
                ) from None
            raise PictureNotFetchedError(f"the image did not arrive within {seconds:g} s") from None

    def close(self) -> None:
        """Ends its threads."""
        self._buckets.close()

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        """Made once, when it is needed: reading the authorities takes some time."""
        return ssl.create_default_context()


async def _addresses(host: str, port: int) -> list[str]:
    """What the system's resolver says; OSError if that is nothing."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
