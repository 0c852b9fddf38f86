"""A server that speaks S3, in a thread, and the environment by which its clients find it."""

import logging
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import s3fs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


class S3:
    """The server, with one bucket.

    Attributes:
        bucket: its URL for fsspec.
        failing: while it is set, every request is answered with 503.
        requests: paths that were asked for.
    """

    def __init__(self) -> None:
        self.bucket = "s3://bucket"
        self.failing = False
        self.requests: list[str] = []
        self._app = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append(environ["PATH_INFO"])
        if self.failing:
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer


@contextmanager
def s3_server() -> Iterator[S3]:
    """A server for as long as the block lasts; settings of AWS' tools lead to it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = S3()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with (
            pytest.MonkeyPatch.context() as patch,
            urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT")),
        ):
            patch.setenv("AWS_ENDPOINT_URL", url)
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_MAX_ATTEMPTS", "1")  # a server that fails is given up at once
            patch.setattr(s3fs.S3FileSystem, "retries", 1)
            s3fs.S3FileSystem.clear_instance_cache()  # clients of another server
            yield app
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()
        thread.join()
        server.server_close()
