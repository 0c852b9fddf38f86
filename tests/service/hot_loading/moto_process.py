"""moto as a process of its own, run by the Python of its own environment; `s3_server.py` starts it.

It prints its port, and ends when its standard input does. Requests are answered one by one: S3 decides about
a conditional write in one piece, moto's threads alone do not. Under `CONTROL` it is controlled:

    PUT CONTROL/failing     every request is answered with 503
    PUT CONTROL/faulty      of 24, one is answered with 500, one late, and one with half of its answer
    PUT CONTROL/working     no longer
    GET CONTROL/requests    paths that were asked for since this was last asked, as JSON
"""

import json
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

CONTROL = "/-control/"
LATE_S = 0.05


class Application:
    """The WSGI application around moto's."""

    def __init__(self, moto: Callable[..., Iterable[bytes]]) -> None:
        self._moto = moto
        self._lock = threading.Lock()
        self._requests: list[str] = []
        self._failing = self._faulty = False
        self._random = random.Random(0)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answers one request."""
        path: str = environ["PATH_INFO"]
        with self._lock:
            if path.startswith(CONTROL):
                body = self._controlled(path.removeprefix(CONTROL))
                start_response("200 OK", [("Content-Length", str(len(body)))])
                return [body]
            self._requests.append(path)
            if self._failing:
                start_response("503 Service Unavailable", [("Content-Length", "0")])
                return []
            answer = list(self._moto(environ, start_response))
        return self._spoilt(answer, start_response) if self._faulty else answer

    def _spoilt(self, answer: list[bytes], start_response: Callable[..., Any]) -> list[bytes]:
        chance = self._random.randrange(24)
        if chance == 0:
            start_response("500 Internal Server Error", [("Content-Length", "0")], True)
            return []
        content = b"".join(answer)
        if chance == 1:
            return [content[: len(content) // 2]]
        if chance == 2:
            time.sleep(LATE_S)
        return [content]

    def _controlled(self, what: str) -> bytes:
        if what == "requests":
            asked, self._requests = self._requests, []
            return json.dumps(asked).encode()
        self._failing, self._faulty = what == "failing", what == "faulty"
        return b""


def main() -> None:
    """Serves until the standard input ends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = Application(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
