"""The way of the one request that comes all the time, past what FastAPI and Starlette do for all others.

A route of FastAPI's looks for dependencies, bodies and models, and stands behind handlers of errors of its
own; this one has none, and its errors are the middleware's.
"""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


class Direct:
    """Middleware that answers one route itself.

    Args:
        app: for all other requests.
        route: with a path without parameters; of its methods this one answers POST.
        answer: what the route calls.
    """

    def __init__(self, app: ASGIApp, *, route: Route, answer: Callable[[Request], Awaitable[Response]]):
        self.app = app
        self._route = route
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs one request."""
        if (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and scope["path"].removeprefix(scope.get("root_path", "")) == self._route.path
        ):
            scope["route"] = self._route  # by which it is counted
            response = await self._answer(Request(scope, receive, send))
            await response(scope, receive, send)
        else:
            await self.app(scope, receive, send)
