"""HTTP load from one thread of one process, as light as Python allows.

The server under test shares the machine with its load, so what the load costs is taken from the server:
requests are made before the run, and answers are hardly looked at. The soak (`tests/load`), which verifies
every answer and hangs up now and then, has a generator of its own. As a script this one reads a `LoadPlan` as
JSON from standard input and prints a `Load` as JSON.
"""

import base64
import json
import random
import selectors
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field

from service.bench.connection import BadAnswerError, Connection, LoadError

_NAP = 0.5  # seconds; how often at least the deadlines of requests are looked at


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPlan:
    """What to send, and how.

    Attributes:
        host, port: of the server.
        requests: whole requests, head and body, sent in turn; `STAMP` may be in each of them once.
        expect: first bytes of a good answer's body.
        connections: open at the same time, and so the most requests under way.
        seconds: how long is measured.
        warm_up: seconds before that.
        rate: requests a second that arrive by themselves (open loop, Poisson); None sends the next one as
            soon as a connection is free (closed loop).
        timeout: seconds until a request counts as failed.
        seed: of the arrivals and the stamps.
    """

    host: str
    port: int
    requests: list[bytes]
    expect: bytes = b""
    connections: int = 16
    seconds: float = 1.0
    warm_up: float = 0.0
    rate: float | None = None
    timeout: float = 60.0
    seed: int = 0


@dataclass(kw_only=True, slots=True)
class Load:
    """What came of it.

    Attributes:
        answered: good answers that came within the measured time.
        requests: good answers over the whole run.
        seconds: that was measured.
        latencies: seconds of each good answer to a request that was to start within the measured time; in an
            open loop from then on, not from when a connection was free.
        unsent: requests of an open loop that found no connection until the end; in `latencies` they stand
            with what they had waited by then.
        errors: what went wrong over the whole run, and how often.
        first_error: the beginning of the first bad answer, for people.
        cpu_seconds: that the load itself took over the whole run.
    """

    answered: int = 0
    requests: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    unsent: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    first_error: str = ""
    cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.answered / self.seconds


def run_load(plan: LoadPlan) -> Load:
    """Runs the load; returns when the last request was answered or given up.

    Raises:
        LoadError: no connection can be made, at the start or again.
    """
    run = _LoadRun(plan)
    try:
        return run.run()
    finally:
        run.close()


class _LoadRun:
    def __init__(self, plan: LoadPlan):
        self.plan = plan
        self.load = Load(seconds=plan.seconds)
        self.selector = selectors.DefaultSelector()
        self.serial = random.Random(plan.seed).randrange(10**8)
        self.connections = [
            Connection((plan.host, plan.port), plan.requests, plan.expect, plan.timeout, index)
            for index in range(plan.connections)
        ]
        self.watched: dict[Connection, tuple[int, int]] = {}  # descriptor and events that are registered
        self.start = self.end = 0.0

    def run(self) -> Load:
        cpu = time.process_time()
        for connection in self.connections:
            connection.open()
            self._watch(connection)
        began = time.perf_counter()
        self.start = began + self.plan.warm_up
        self.end = self.start + self.plan.seconds
        if self.plan.rate is None:
            self._closed()
        else:
            self._open(_arrivals(began, self.end, self.plan.rate, self.plan.seed))
        self.load.cpu_seconds = time.process_time() - cpu
        return self.load

    def close(self) -> None:
        for connection in self.connections:
            self._hang_up(connection)
        self.selector.close()

    def _closed(self) -> None:
        free = deque(self.connections)
        while (now := time.perf_counter()) < self.end or len(free) < len(self.connections):
            while free and now < self.end:
                self._begin(free.popleft(), now)
            free.extend(self._wait(_NAP))

    def _open(self, arrivals: deque[float]) -> None:
        free = deque(self.connections)
        while arrivals or len(free) < len(self.connections):
            now = time.perf_counter()
            while arrivals and free and arrivals[0] <= now < self.end:
                self._begin(free.popleft(), arrivals.popleft())
            if arrivals and now >= self.end:
                waited = [now - due for due in arrivals if due >= self.start]
                self.load.unsent = len(waited)
                self.load.latencies += waited
                arrivals.clear()
            free.extend(self._wait(max(0.0, arrivals[0] - now) if arrivals and free else _NAP))

    def _begin(self, connection: Connection, intended: float) -> None:
        if connection.fileno() < 0:
            connection.open()
        self.serial += 1
        connection.begin(self.serial, intended, time.perf_counter())
        self._watch(connection)

    def _wait(self, seconds: float) -> list[Connection]:
        """Moves bytes, waiting at most so long for some; returns the connections that became free."""
        free: list[Connection] = []
        for key, events in self.selector.select(min(seconds, _NAP)):
            connection: Connection = key.data
            if events & selectors.EVENT_WRITE:
                connection.write()
            if events & selectors.EVENT_READ:
                self._read(connection, free)
            self._watch(connection)
        overdue = time.perf_counter() - self.plan.timeout
        for connection in self.connections:
            if connection.busy and connection.sent < overdue:
                self._hang_up(connection)
                self._count(BadAnswerError(f"no response within {self.plan.timeout:g} s"))
                free.append(connection)
        return free

    def _read(self, connection: Connection, free: list[Connection]) -> None:
        was_busy = connection.busy
        try:
            if connection.read():
                self._answered(connection)
        except BadAnswerError as error:
            self._count(error)
        if was_busy and not connection.busy:
            free.append(connection)

    def _answered(self, connection: Connection) -> None:
        now, load = time.perf_counter(), self.load
        load.requests += 1
        if self.start <= now < self.end:
            load.answered += 1
        if self.start <= connection.intended < self.end:
            load.latencies.append(now - connection.intended)

    def _count(self, error: BadAnswerError) -> None:
        self.load.errors[str(error)] = self.load.errors.get(str(error), 0) + 1
        self.load.first_error = self.load.first_error or error.detail or str(error)

    def _hang_up(self, connection: Connection) -> None:
        connection.close()
        self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Has the selector look for what the connection can do next."""
        descriptor = connection.fileno()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.wants_to_write else 0)
        wanted = None if descriptor < 0 else (descriptor, events)
        watched = self.watched.get(connection)
        if wanted == watched:
            return
        if watched is not None:
            self.selector.unregister(watched[0])
            del self.watched[connection]
        if wanted is not None:
            self.selector.register(*wanted, connection)
            self.watched[connection] = wanted


def _arrivals(begin: float, end: float, rate: float, seed: int) -> deque[float]:
    """Times of a Poisson process."""
    chance = random.Random(seed)
    due = deque[float]()
    now = begin + chance.expovariate(rate)
    while now < end:
        due.append(now)
        now += chance.expovariate(rate)
    return due


def main() -> int:
    """The script: a plan as JSON comes in, a load as JSON goes out; 1 if no connection can be made."""
    given = json.load(sys.stdin)
    given["requests"] = [base64.b64decode(text) for text in given["requests"]]
    given["expect"] = base64.b64decode(given["expect"])
    try:
        load = run_load(LoadPlan(**given))
    except LoadError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(load)))
    return 0


def to_json(plan: LoadPlan) -> str:
    """What the script reads."""
    document = asdict(plan)
    document["requests"] = [base64.b64encode(request).decode() for request in plan.requests]
    document["expect"] = base64.b64encode(plan.expect).decode()
    return json.dumps(document)


if __name__ == "__main__":
    sys.exit(main())
