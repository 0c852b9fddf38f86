"""Requests that are cancelled: by a server that ends, or since whoever passed them on has gone."""

import asyncio
from typing import Any, cast

import pytest

from service.http.middleware import Requests
from service.observability.metrics import Metrics

pytestmark = pytest.mark.anyio


async def test_a_worker_that_has_ended_is_told_nothing() -> None:
    """Its requests were not answered: none of them met a service that shuts down."""
    gate = asyncio.Event()
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()

    async def send(message: Any) -> None:
        sent.append(message)

    metrics = Metrics()
    middleware = Requests(app, metrics=metrics, routes=())
    for tunnelled, found, code in ((True, 0, "499"), (False, 2, "503")):
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": None}
        scope["state"] = {"tunnelled": True} if tunnelled else {}
        asked = asyncio.create_task(middleware(scope, cast(Any, None), send))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        assert asked.cancelled() == tunnelled
        assert len(sent) == found
        assert f'code="{code}"' in metrics.exposition().decode()
