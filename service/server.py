"""Runs the app under uvicorn until a signal comes: not ready, drain, leave with 0."""

import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from functools import partial
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.http.connections import Connections
from service.http.edge import edge_protocol
from service.observability.metrics import Metrics
from service.runtime import Service
from service.settings import Settings, SettingsError

LOG = logging.getLogger(__name__)
SWITCH_S = 0.0005  # the event loop should not wait Python's 5 ms for the interpreter at each of its turns
_OTHER_FILES = 256  # that the process may have open beside its connections
_BACKLOG = 2048  # connections that wait to be accepted


class OrderlyServer(uvicorn.Server):
    """uvicorn, whose forced end is one in order, too: requests are cancelled, then the application stops.

    By itself it would leave both to the event loop's end, and log a traceback for each.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more connections, waits for requests unless forced, stops the application."""
        await super().shutdown(sockets)
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()


class _Server(OrderlyServer):
    """It tells the service of a signal at once and does not raise it again afterwards."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self._service = service
        self._ending: threading.Timer | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.begin_drain()
        if self._ending is None:
            grace_s = float(self._service.settings.drain_timeout_s)
            self._ending = threading.Timer(grace_s, end_if_hung, [self._service, grace_s])
            self._ending.daemon = True
            self._ending.start()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        announce_end(self._service)
        await super().shutdown(sockets)


def build_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """A server for an app of `create_app`; it also stops if the model cannot be loaded."""
    service: Service = app.state.service
    server = _Server(server_config(app, settings, service.metrics, settings.max_connections), service)

    def give_up() -> None:
        server.should_exit = True

    service.on_failure = give_up
    return server


def server_config(app: ASGIApp, settings: Settings, metrics: Metrics, connections: int) -> uvicorn.Config:
    """How uvicorn serves an application, with so many connections at a time."""
    return uvicorn.Config(
        app,
        http=edge_protocol(settings, Connections(settings, metrics, most=_room_for(connections))),
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        ws="none",
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )


def _room_for(connections: int) -> int:
    """How many connections the process may have open; it takes the right to so many if it can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < wanted:
            LOG.warning(
                "max_connections is above what this process may have open; raise its limit of open files",
                extra={"open_files": soft, "max_connections": connections},
            )
            return max(1, soft - _OTHER_FILES)
    return connections


def run_server(app: FastAPI, settings: Settings, began: float | None = None) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        app: of `create_app`.
        settings: that it was made with.
        began: when the command was called, `time.monotonic()`; None for now.

    Raises:
        SettingsError: the address cannot be listened on.
        Exception: what `Service.failure` holds, if the model could not be loaded.
    """
    sys.setswitchinterval(SWITCH_S)
    server = build_server(app, settings)
    service: Service = app.state.service
    began = time.monotonic() if began is None else began
    with listen(settings.host, settings.port) as listener:
        service.on_ready = partial(announce_ready, announce(listener), began)
        server.run(sockets=[listener])
    tell_failure(service)
    LOG.info("stopped")


def announce(listener: socket.socket) -> str:
    """Logs where the service listens, and gives that address."""
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    LOG.info("listening on %s", address, extra={"address": address})
    return address


def announce_ready(address: str, began: float) -> None:
    """Logs that the service takes requests."""
    LOG.info("ready in %.0f s: page %s/, API %s/docs", time.monotonic() - began, address, address)


def announce_end(service: Service) -> None:
    """Logs that the service stops, and for what it waits."""
    LOG.info(
        "stopping: requests under way get at most %d s",
        service.settings.drain_timeout_s,
        extra={"requests": service.admission.pending},
    )


def tell_failure(service: Service) -> None:
    """Once all has stopped: ends the process if a device hangs; raises what `Service.failure` holds."""
    if service.hung:
        end(f"the device {service.hung[0]} hangs: it does not end what it is at")
    if service.failure is not None:
        raise service.failure


def end_if_hung(service: Service, grace_s: float) -> None:
    """At the end of the grace period: ends the process if a device has been at one step all that time."""
    for device in service.devices:
        if (seconds := device.stalled_for()) >= grace_s:
            end(f"the device {device.name} hangs: no progress for {seconds:.0f} s")


def end(reason: str) -> None:
    """Ends the process at once: threads that hang would hold up, or crash, any other end."""
    LOG.critical("%s; the process ends with exit code 1", reason)
    logging.shutdown()
    os._exit(1)


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket that listens.

    Args:
        host, port: where.
        shared: whether other sockets may listen there, too; the kernel deals connections out.

    Raises:
        SettingsError: the address is taken or is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    return listener
