"""The process that has the engine: devices, the registry's follower, the scheduler; and workers' desks."""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from service.app import create_app
from service.hot_loading.loader import LoadEngine
from service.runtime import Service
from service.scheduling.engine import Engine
from service.server import SWITCH_S, announce_end, announce_ready, end_if_hung, tell_failure
from service.settings import Settings
from service.workers.arena import Arena
from service.workers.counts import SharedCount
from service.workers.desk import Desk
from service.workers.http_process import WATCHED
from service.workers.kept import KeptKeys

LOG = logging.getLogger(__name__)
LATE_S = 5.0  # that workers get beyond the grace period
BEAT_S = 0.5  # between two signs that it gets on
_NUMBER = 4  # bytes of a worker's number


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineEnds:
    """What the engine's process is born with.

    Attributes:
        control: where new workers' numbers come, each with its link and its arena.
        count: of the host's memory.
        kept: where it tells which predictions are kept.
        address: of the service.
        began: when the command was called, `time.monotonic()`.
    """

    control: socket.socket
    count: SharedCount
    kept: KeptKeys
    address: str
    began: float


class EngineProcess:
    """The process.

    Args:
        settings: of the service.
        ends: of the process.
        engines, load: as of `create_app`.

    Raises:
        SettingsError: as of `create_app`.
    """

    def __init__(
        self,
        settings: Settings,
        ends: EngineEnds,
        engines: Sequence[Engine] = (),
        load: LoadEngine | None = None,
    ):
        self._settings = settings
        self._ends = ends
        self._app = create_app(settings, *engines, load=load, count=ends.count)
        self._service: Service = self._app.state.service
        self._service.on_ready = self._ready
        self._service.predictions.on_kept = ends.kept.note
        self._service.metrics.processes.others.add(os.getppid())
        self._links = 0
        self._meeting: set[asyncio.Future[Any]] = set()
        self._draining = False
        self._orphaned = False

    def run(self) -> int:
        """Serves until SIGTERM, and until the workers have ended after it; the exit code.

        Raises:
            Exception: what `Service.failure` holds, if the model could not be loaded.
        """
        sys.setswitchinterval(SWITCH_S)
        # uvicorn's own settings of the log would end our handler, and the process would fall silent
        config = uvicorn.Config(self._app, log_config=None)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(self._serve())
        tell_failure(self._service)
        return int(self._orphaned)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._service.on_failure = self._changed.set
        loop.add_signal_handler(signal.SIGTERM, self._drain)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the process that looks after it says when
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        self._ends.control.setblocking(False)
        async with self._app.router.lifespan_context(self._app):
            loop.add_reader(self._ends.control, self._meet)
            beating = asyncio.create_task(self._beat_always())
            while not (self._draining or self._orphaned or self._service.failure):
                await self._changed.wait()
                self._changed.clear()
            try:
                async with asyncio.timeout(self._settings.drain_timeout_s + LATE_S):
                    while self._draining and self._links:
                        await self._changed.wait()
                        self._changed.clear()
            except TimeoutError:
                LOG.warning("workers did not end in time")
            loop.remove_reader(self._ends.control)
            beating.cancel()

    async def _beat_always(self) -> None:
        while True:
            self._ends.count.beat()
            await asyncio.sleep(BEAT_S)

    def _ready(self) -> None:
        self._ends.count.open = self._ends.count.calm = True
        announce_ready(self._ends.address, self._ends.began)

    def _drain(self) -> None:
        if self._draining:
            return
        self._draining = True
        self._ends.count.open = False
        self._service.begin_drain()
        announce_end(self._service)
        grace_s = float(self._settings.drain_timeout_s)
        ending = threading.Timer(grace_s, end_if_hung, [self._service, grace_s])
        ending.daemon = True
        ending.start()
        self._changed.set()

    def _meet(self) -> None:
        """A worker was born, or whoever looks after all has ended."""
        message, files, _, _ = socket.recv_fds(self._ends.control, _NUMBER, 2)
        if not message:
            self._orphaned = True
            asyncio.get_running_loop().remove_reader(self._ends.control)
            self._changed.set()
            return
        number, (link, file) = int.from_bytes(message, "big"), files
        arena = Arena(file)
        os.close(file)
        desk = Desk(
            self._service,
            self._app,
            self._app.state.keys,
            arena,
            self._ends.count,
            str(number),
            self._part,
        )
        self._links += 1
        connecting = asyncio.get_running_loop().create_connection(
            lambda: desk.link, sock=socket.socket(fileno=link)
        )
        meeting = asyncio.ensure_future(connecting)
        self._meeting.add(meeting)
        meeting.add_done_callback(self._meeting.discard)

    def _part(self) -> None:
        self._links -= 1
        self._changed.set()
