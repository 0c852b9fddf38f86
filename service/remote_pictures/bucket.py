"""A picture in a bucket, by fsspec, with the credentials of the service's own environment."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fsspec

from model.urls import without_secrets
from service.errors import PictureNotFetchedError, ServiceError, TooManyBytesError
from service.remote_pictures.addresses import BucketAddress
from service.scheduling.host_memory import HostAccount
from service.settings import SettingsError

_EXTRAS = {"s3": "ebseg[s3]", "gs": "gcsfs"}
_THREADS = 8  # fsspec's calls block


class Buckets:
    """Reads from buckets.

    Args:
        buckets: s3://BUCKET or gs://BUCKET.

    Raises:
        SettingsError: what reads one of them is not installed.
    """

    def __init__(self, buckets: Sequence[str]):
        for scheme in sorted({url.partition(":")[0] for url in buckets}):
            try:
                fsspec.get_filesystem_class(scheme)
            except ImportError:
                raise SettingsError(f"url_buckets: {scheme}:// needs {_EXTRAS[scheme]}") from None
        self._threads = ThreadPoolExecutor(_THREADS, "buckets") if buckets else None

    async def fetch(self, address: BucketAddress, memory: HostAccount, most: int) -> bytes:
        """A picture's bytes; arguments and errors as of `PictureFetcher.fetch`.

        A call that is given up goes on in its thread until the store answers; so many threads there are, and
        no more.
        """
        assert self._threads is not None
        loop = asyncio.get_running_loop()
        # never a URL, in which fsspec would see more than one place
        path = f"{address.bucket}/{address.key}"
        try:
            nbytes = await loop.run_in_executor(self._threads, _size, address.scheme, path)
            if nbytes > most:
                raise TooManyBytesError(f"the image at this URL is too large; at most {most} bytes are taken")
            memory.take(nbytes)
            return await loop.run_in_executor(self._threads, _read, address.scheme, path, nbytes)
        except FileNotFoundError:
            raise PictureNotFetchedError(f"the bucket {address.bucket} has no such image") from None
        except PermissionError:
            raise PictureNotFetchedError(f"the bucket {address.bucket} may not be read") from None
        except ServiceError:
            raise
        except Exception as error:  # stores' libraries have errors of all kinds
            reason = without_secrets(f"{type(error).__name__}: {error}")[:200]
            raise PictureNotFetchedError(f"the bucket {address.bucket} cannot be read: {reason}") from None

    def close(self) -> None:
        """Lets go of the threads, which end with the calls that they are at."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _size(scheme: str, path: str) -> int:
    found: dict[str, Any] = fsspec.filesystem(scheme).info(path, refresh=True)
    if found.get("type") != "file":
        raise FileNotFoundError(path)
    return int(found["size"])


def _read(scheme: str, path: str, nbytes: int) -> bytes:
    data: bytes = fsspec.filesystem(scheme).cat_file(path, start=0, end=nbytes)
    return data
