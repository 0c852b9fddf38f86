"""moto as a process of its own, run by the Python of its own environment; `s3_server.py` starts it.

It prints its port, and ends when its standard input does. Requests are answered one by one: S3 decides about
a conditional write in one piece, moto's threads alone do not. Under `CONTROL` it is controlled:

    PUT CONTROL/failing     every request is answered with 503
    PUT CONTROL/working     no longer
    GET CONTROL/requests    paths that were asked for since this was last asked, as JSON
"""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

CONTROL = "/-control/"


class Application:
    """The WSGI application around moto's."""

    def __init__(self, moto: Callable[..., Iterable[bytes]]) -> None:
        self._moto = moto
        self._lock = threading.Lock()
        self._requests: list[str] = []
        self._failing = False

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
            return list(self._moto(environ, start_response))

    def _controlled(self, what: str) -> bytes:
        if what == "requests":
            asked, self._requests = self._requests, []
            return json.dumps(asked).encode()
        self._failing = {"failing": True, "working": False}[what]
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
