"""A worker: it talks HTTP, decodes and encodes, and asks the engine's process for all else."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import ParamSpec, TypeVar

from prometheus_client import Gauge

from service.app import app_of
from service.caller import client
from service.observability.tracing import tracing_of
from service.observability.watch import Watch, WatchedDevice
from service.remote_pictures.fetcher import PictureFetcher
from service.scheduling.host_memory import HostBytes
from service.scheduling.picture_threads import LANES, MOST_BY_DEFAULT, PictureThreads, cores
from service.scheduling.returns import Returns
from service.server import OrderlyServer, server_config
from service.settings import Settings
from service.workers.arena import Arena
from service.workers.counts import SharedCount
from service.workers.kept import KeptKeys
from service.workers.link import Link
from service.workers.relay import FLUSH_S, RelayedMetrics
from service.workers.remote_door import RemoteDoor, RemoteKeys
from service.workers.tunnel import Tunnel

ENDING = (signal.SIGTERM, signal.SIGINT)
WATCHED = {*ENDING, signal.SIGCHLD}  # blocked in the process that looks after all
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerEnds:
    """What a worker is born with.

    Attributes:
        listener: where its clients come.
        link: to the engine's process.
        arena: file that both share.
        count: of the host's memory.
        kept: which predictions are kept.
    """

    listener: socket.socket
    link: socket.socket
    arena: int
    count: SharedCount
    kept: KeptKeys


class HttpProcess:
    """What the application of a worker is around: `runtime.HttpSide` without an engine.

    Args:
        settings: of the service.
        ends: of the worker.
    """

    def __init__(self, settings: Settings, ends: WorkerEnds):
        self.settings = settings
        self.metrics = RelayedMetrics()
        returns = Returns()
        self.memory = HostBytes(
            settings.max_host_bytes,
            lambda: returns.after(ends.count.retry_after, client=client()),
            ends.count,
            body_s=settings.body_timeout_s,
            answer_s=settings.answer_timeout_s,
        )
        self.pictures = PictureThreads(_share(settings.decode_threads, settings.workers))
        self.remote_pictures = PictureFetcher(settings)
        self.tracing = tracing_of(settings)
        self.devices: tuple[WatchedDevice, ...] = ()
        self.lost = False  # whether the engine's process has ended
        self._ends = ends
        self._door = RemoteDoor(Arena(ends.arena), ends.count, ends.kept)
        self._keys = RemoteKeys(api=settings.api_keys, admin=settings.admin_keys)
        self._watch = Watch(self)
        self._flushing: asyncio.Task[None] | None = None
        self._tunnel = Tunnel(app_of(self, self._door, self._keys), settings.root_path or "")
        share = -(-settings.max_connections // settings.workers)
        self._server = _WorkerServer(server_config(self._tunnel, settings, self.metrics, share))

    def run(self) -> int:
        """Serves until SIGTERM, or until the engine's process has ended; the exit code."""
        self._server.run(sockets=[self._ends.listener])
        return int(self.lost)

    async def start(self) -> None:
        """Takes up the link."""
        link = Link({"receive": self._tunnel.receive}, {"send": self._tunnel.send}, self._lost)
        await asyncio.get_running_loop().create_connection(lambda: link, sock=self._ends.link)
        self._keys.link = self._door.link = self._tunnel.link = link
        link.tell("born", {"pid": os.getpid()})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)  # uvicorn listens to them now
        self._watch.start()
        if self.tracing is not None:
            self.tracing.start()
        self._flushing = asyncio.create_task(self._flush_always(link))

    async def stop(self) -> None:
        """Tells what it counted, and hangs up."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
        await self._watch.stop()
        if self.tracing is not None:
            await self.tracing.stop()
        self.pictures.stop()
        self.remote_pictures.close()
        if self._tunnel.link is not None:
            self._flush(self._tunnel.link)
            self._tunnel.link.close()

    async def in_pool(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """See `HttpSide`."""
        return await self.pictures.run(work, *args, **kwargs)

    async def _flush_always(self, link: Link) -> None:
        while True:
            self._ends.count.beat()
            await asyncio.sleep(FLUSH_S)
            self._flush(link)

    def _flush(self, link: Link) -> None:
        metrics = self.metrics
        metrics.sample(metrics.connections, _value(metrics.connections))
        for lane in LANES:
            metrics.sample(metrics.queue_depth, self.pictures.depth(lane), lane)
            metrics.sample(metrics.queue_oldest_age, self.pictures.oldest_age(lane), lane)
        if events := metrics.taken():
            link.tell("events", {"events": events})

    def _lost(self) -> None:
        self.lost = not self._server.should_exit
        self._server.should_exit = self._server.force_exit = True


class _WorkerServer(OrderlyServer):
    """It leaves Ctrl-C to the process that looks after it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGINT:
            self.should_exit = True


def _share(threads: int | None, workers: int) -> int:
    """Picture threads of one worker, of those that the service may have."""
    return max(1, -(-(min(MOST_BY_DEFAULT, cores()) if threads is None else threads) // workers))


def _value(gauge: Gauge) -> float:
    (family,) = gauge.collect()
    return float(family.samples[0].value)
