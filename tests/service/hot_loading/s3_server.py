"""A server that speaks S3, in a process of its own, and the environment by which its clients find it."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3fs

from tests.service.hot_loading import moto_process

LONGEST_S = 60.0
PYTHON = Path(sys.prefix) / "moto" / "bin" / "python"


class S3:
    """The server, with one bucket.

    Attributes:
        url: of the server.
        bucket: its URL for fsspec.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.bucket = "s3://bucket"
        self._ask("/bucket", "PUT")

    def fail(self, failing: bool = True) -> None:
        """From now on every request is answered with 503, or none is."""
        self._ask(moto_process.CONTROL + ("failing" if failing else "working"), "PUT")

    def spoil(self, spoiling: bool = True) -> None:
        """From now on three requests of 24 are done, but fail, are late or get half an answer."""
        self._ask(moto_process.CONTROL + ("faulty" if spoiling else "working"), "PUT")

    def requests(self) -> list[str]:
        """Paths that were asked for since this was last called."""
        asked: list[str] = json.loads(self._ask(f"{moto_process.CONTROL}requests"))
        return asked

    def _ask(self, path: str, method: str = "GET") -> bytes:
        request = urllib.request.Request(f"{self.url}{path}", method=method)
        with urllib.request.urlopen(request, timeout=LONGEST_S) as answer:
            body: bytes = answer.read()
        return body


@contextmanager
def s3_process() -> Iterator[S3]:
    """The server for as long as the block lasts."""
    assert PYTHON.exists(), f"moto is not installed in {PYTHON.parents[1]}; `make setup` installs it"
    with subprocess.Popen(
        [str(PYTHON), moto_process.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            port = process.stdout.readline()
            assert port, "moto did not start; its reason stands above"
            yield S3(int(port))
        finally:
            process.stdin.close()  # it ends by this
            process.wait(LONGEST_S)


@contextmanager
def s3_server() -> Iterator[S3]:
    """The server, and settings of AWS' tools that lead to it."""
    try:
        with s3_process() as server, pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", server.url)
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_MAX_ATTEMPTS", "1")  # a server that fails is given up at once
            patch.setattr(s3fs.S3FileSystem, "retries", 1)
            s3fs.S3FileSystem.clear_instance_cache()  # clients of another server
            yield server
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
