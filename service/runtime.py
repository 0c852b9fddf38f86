"""The running service: engine, threads, metrics, and what state it is in."""

import asyncio
import contextvars
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, ParamSpec, TypeVar

from service.admission import Admission
from service.engine import Engine
from service.errors import NotReadyError
from service.metrics import Metrics
from service.settings import Settings

LOG = logging.getLogger(__name__)
State = Literal["loading", "ready", "draining", "failed"]
P = ParamSpec("P")
T = TypeVar("T")

_REASONS: dict[State, str] = {
    "ready": "",
    "loading": "the model is loading; try again in a moment",
    "draining": "the service is shutting down",
    "failed": "the model could not be loaded",
}


class Service:
    """What routes work with.

    Args:
        settings: of the service.
        engine: not started yet.
    """

    def __init__(self, settings: Settings, engine: Engine):
        self.settings = settings
        self.engine = engine
        self.metrics = Metrics()
        self.admission = Admission(settings.max_pending)
        self.state: State = "loading"
        self.started = False  # whether a model was ever loaded
        self.failure: Exception | None = None
        self.on_failure: Callable[[], None] = lambda: None
        self._pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="ebseg-picture")
        self._loading: asyncio.Task[None] | None = None
        self.metrics.watch(lambda: self.admission.pending, lambda: engine.queue_depth)

    def start(self) -> None:
        """Begins to load; returns at once. Needs a running event loop."""
        self._loading = asyncio.create_task(self._load())

    async def stop(self) -> None:
        """Ends loading, lets the engine finish, frees all threads."""
        self.begin_drain()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        await self.engine.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin_drain(self) -> None:
        """From now on the service is not ready; requests under way go on."""
        if self.state != "failed":
            self.state = "draining"

    @property
    def reason(self) -> str:
        """Why the service is not ready; empty if it is."""
        return _REASONS[self.state]

    def refuse_unless_ready(self) -> None:
        """Raises NotReadyError with the reason, unless requests can be served."""
        if self.state != "ready":
            raise NotReadyError(self.reason)

    async def in_pool(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs a function on a picture thread. Cancelling this coroutine takes it off the queue."""
        context = contextvars.copy_context()  # log lines of the thread carry the request's id, too
        call = partial(work, *args, **kwargs)
        return await asyncio.wrap_future(self._pool.submit(lambda: context.run(call)))

    async def _load(self) -> None:
        try:
            await self.engine.start()
        except Exception as error:
            LOG.exception("the model could not be loaded")
            self.state, self.failure = "failed", error
            self.on_failure()
            return
        info = self.engine.info
        self.metrics.loaded(info)
        self.started = True
        LOG.info(
            "model loaded",
            extra={
                "model": info.name,
                "version": info.version,
                "digest": info.digest,
                "untrained": info.untrained,
                "device": info.device,
                "dtype": info.dtype,
            },
        )
        if self.state == "loading":
            self.state = "ready"
