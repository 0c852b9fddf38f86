"""`ebseg serve --workers N`: a process that looks after one with the engine and N that talk HTTP.

It forks them before it has any thread, so that they share the memory of what is imported, and a worker that
died is there again at once. It does nothing but wait for signals and for their ends.
"""

import gc
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Sequence

from service.hot_loading.loader import LoadEngine
from service.observability.logging import configure
from service.scheduling.engine import Engine
from service.scheduling.host_memory import usable
from service.server import announce, listen
from service.settings import Settings, SettingsError
from service.workers.arena import new_arena
from service.workers.counts import SharedCount, new_count
from service.workers.engine_process import LATE_S, EngineEnds, EngineProcess
from service.workers.http_process import ENDING, WATCHED, HttpProcess, WorkerEnds
from service.workers.kept import KeptKeys, new_kept

LOG = logging.getLogger(__name__)
_PAUSE_S = 1.0  # between two births of one worker, at least
_LOOK_S = 1.0  # between two looks at whether they get on
# Looks without a sign of life after which a process is killed. Looks and not seconds: should all have slept,
# as in a paused container, nobody is to blame.
_SILENT_LOOKS = 60
_LAST_S = 30.0  # beyond the grace period, for devices to end what they are at
_ROOM = 2  # times the host's memory
_LESS = 8  # part of the address space that is left, where that is limited


class _BornError(Exception):
    """Leaves the loop of the process that looks after all, in a new one."""

    def __init__(self, life: Callable[[], int]):
        super().__init__()
        self.life = life


def run_workers(
    settings: Settings,
    *engines: Engine,
    load: LoadEngine | None = None,
    began: float | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT, in several processes; each of them returns from here.

    Args:
        settings: of the service; `workers` of them talk HTTP.
        engines, load: as of `create_app`.
        began: when the command was called, `time.monotonic()`; None for now.

    Returns:
        The process's exit code.

    Raises:
        SettingsError: the system is not Linux; the address cannot be listened on; a device is not here.
        Exception: the model could not be loaded.
    """
    if not hasattr(os, "memfd_create"):
        raise SettingsError("workers: more than one need Linux, whose processes share memory as files")
    configure(settings.log_level, settings.log_format)  # without a thread, of which no fork would know
    family = _Family(settings, engines, load, time.monotonic() if began is None else began)
    try:
        return family.run()
    except _BornError as born:
        life = born.life
    configure(settings.log_level, settings.log_format, serving=True)
    return life()


def _arena_bytes() -> int:
    """Of address space: all that requests may have, and room between pieces; less where there is a limit."""
    bounded = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    return usable() // _LESS if bounded else _ROOM * usable()


class _WorkerSlot:
    """One of the processes that talk HTTP, however often it is born again."""

    def __init__(self, number: int, listener: socket.socket):
        self.number = number
        self.listener = listener
        self.pid = 0
        self.born = 0.0


class _Life:
    """Signs of life of one process, as they were at the last look.

    Args:
        count: where it gives them.
        born_at_once: whether it owes them from its birth on, and not only once it serves.
    """

    def __init__(self, count: SharedCount, *, born_at_once: bool):
        self._count = count
        self._born_at_once = born_at_once
        self._beats = self._silent = 0

    def hangs(self) -> bool:
        """Looks once more; true once it has been silent for too long."""
        beats = self._count.beats
        owed = beats == self._beats and (beats > 0 or self._born_at_once)
        self._silent = self._silent + 1 if owed else 0
        self._beats = beats
        return self._silent >= _SILENT_LOOKS

    def spare(self) -> None:
        """Counts its silence anew."""
        self._silent = 0


class _Family:
    """All processes, as the one sees them that looks after them."""

    def __init__(
        self,
        settings: Settings,
        engines: Sequence[Engine],
        load: LoadEngine | None,
        began: float,
    ):
        self._settings = settings
        self._engines = engines
        self._load = load
        self._began = began
        with listen(settings.host, settings.port) as probe:  # nobody else may be there
            port = probe.getsockname()[1]
        listeners = [listen(settings.host, port, shared=True) for _ in range(settings.workers)]
        self._workers = [_WorkerSlot(number, listener) for number, listener in enumerate(listeners, 1)]
        self._count = SharedCount(new_count(1 + settings.workers), 0, settings.max_host_bytes or usable())
        # The engine's first: to load a model takes what it takes
        rows = range(1 + settings.workers)
        self._lives = [_Life(self._count.of(row), born_at_once=row > 0) for row in rows]
        self._looked = time.monotonic()
        self._kept = KeptKeys(new_kept())
        self._control, self._engines_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._address = announce(listeners[0])
        self._engine_pid = 0
        self._code: int | None = None  # of the engine's process, once it has ended
        self._draining = 0  # signals that came
        self._until = float("inf")

    def run(self) -> int:
        """Looks after them until all have ended; the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        gc.collect()
        gc.freeze()  # or the first collection of a child would copy all that they share
        self._engine_pid = self._fork(self._live_as_engine)
        self._engines_control.close()
        while self._code is None or any(worker.pid for worker in self._workers):
            self._bear()
            came = signal.sigtimedwait(WATCHED, self._patience())
            if came is not None and came.si_signo in ENDING:
                self._drain(came.si_signo)
            self._bury()
            self._look()
            if time.monotonic() > self._until:
                LOG.critical("processes of the service do not end; they are killed")
                self._kill(self._engine_pid, *(worker.pid for worker in self._workers))
                self._until = float("inf")
        if self._code == 0:
            LOG.info("stopped")
        return self._code

    def _patience(self) -> float:
        """Seconds until there is something to do without a signal."""
        now = time.monotonic()
        unborn = [worker.born + _PAUSE_S - now for worker in self._workers if not worker.pid]
        if self._draining:
            unborn = []
        return max(0.0, min([*unborn, self._until - now, self._looked + _LOOK_S - now]))

    def _look(self) -> None:
        """Kills a process that hangs without dying; `_bury` then does the rest.

        Others may wait for what it holds, such as the lock of the count: the engine's process is to blame
        only where no worker is, and the rest get their time once more.
        """
        if time.monotonic() < self._looked + _LOOK_S or self._draining:
            return
        self._looked = time.monotonic()
        engine, *workers = [life.hangs() for life in self._lives]
        pids = [worker.pid for worker in self._workers]
        hung = [pid for pid, hangs in zip(pids, workers, strict=True) if pid and hangs]
        name = "a worker"
        if engine and not hung:
            name, hung = "the process with the engine", [self._engine_pid]
        silence = _SILENT_LOOKS * _LOOK_S
        for pid in hung:
            LOG.error("%s hangs: no sign of life for %.0f s; it is killed", name, silence)
            self._kill(pid)
        if hung:
            for life in self._lives:
                life.spare()

    def _bear(self) -> None:
        """Forks the workers that are not there, unless all end."""
        if self._draining or self._code is not None:
            return
        now = time.monotonic()
        for worker in self._workers:
            if not worker.pid and (not worker.born or now >= worker.born + _PAUSE_S):
                self._bear_one(worker)

    def _bear_one(self, worker: _WorkerSlot) -> None:
        own, engines = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        arena = new_arena(_arena_bytes())
        worker.born = time.monotonic()
        worker.pid = self._fork(lambda: self._live_as_worker(worker, own, engines, arena))
        try:
            socket.send_fds(self._control, [worker.number.to_bytes(4, "big")], [engines.fileno(), arena])
        except OSError:
            LOG.debug("the engine's process has ended")  # which the next look finds
        own.close()
        engines.close()
        os.close(arena)

    def _fork(self, life: Callable[[], int]) -> int:
        pid = os.fork()
        if pid == 0:
            raise _BornError(life)
        return pid

    def _live_as_engine(self) -> int:
        self._control.close()
        for worker in self._workers:
            worker.listener.close()
        ends = EngineEnds(
            control=self._engines_control,
            count=self._count,
            kept=self._kept,
            address=self._address,
            began=self._began,
        )
        return EngineProcess(self._settings, ends, self._engines, self._load).run()

    def _live_as_worker(
        self, worker: _WorkerSlot, own: socket.socket, engines: socket.socket, arena: int
    ) -> int:
        engines.close()
        self._control.close()
        for other in self._workers:
            if other is not worker:
                other.listener.close()
        count = self._count.of(worker.number)
        ends = WorkerEnds(listener=worker.listener, link=own, arena=arena, count=count, kept=self._kept)
        return HttpProcess(self._settings, ends).run()

    def _drain(self, signal_number: int) -> None:
        self._draining += 1
        if self._draining == 1:
            for worker in self._workers:
                worker.listener.close()  # or connections would go on to come, and nobody takes them
            self._signal(signal.SIGTERM, self._engine_pid, *(worker.pid for worker in self._workers))
            self._until = time.monotonic() + self._settings.drain_timeout_s + LATE_S + _LAST_S
        elif signal_number == signal.SIGINT:
            self._kill(*(worker.pid for worker in self._workers))

    def _bury(self) -> None:
        """Takes note of those that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self._engine_pid:
                self._engine_ended(code)
            for worker in self._workers:
                if pid == worker.pid:
                    worker.pid = 0
                    self._count.forget(worker.number)  # before another one counts there
                    if not self._draining and self._code is None:
                        LOG.warning("a worker ended, another one takes its place", extra={"exit_code": code})

    def _engine_ended(self, code: int) -> None:
        self._engine_pid = 0
        self._code = code
        if code < 0 or (code == 0 and not self._draining):
            LOG.critical(
                "the process with the engine ended; the service ends with exit code 1",
                extra={"engine_exit_code": code},
            )
            self._code = 1
        if not self._draining:
            self._drain(signal.SIGTERM)

    def _kill(self, *pids: int) -> None:
        self._signal(signal.SIGKILL, *pids)

    def _signal(self, number: signal.Signals, *pids: int) -> None:
        for pid in pids:
            if pid:
                os.kill(pid, number)
