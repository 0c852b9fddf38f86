"""The load: many clients that send without a pause, and what came of it."""

import asyncio
import contextlib
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

from service.bench.process import HOST
from service.bench.requests import segment_request
from tests.load.client import Answer, Connection
from tests.load.judge import Asked, Judge
from tests.load.server import Server
from tests.load.workload import FORM_SHARES, FORMS, Workload, poison

MOST_VIOLATIONS = 50  # that are kept; the rest would say the same
SAMPLE_S = 0.25  # between two looks at the server's memory
WINDOW = 0.1  # of the load's time: memory at its start, middle and end is the median over so much


@dataclass(kw_only=True, slots=True)
class Options:
    """How the load is.

    Attributes:
        clients: at the same time.
        renew_s: seconds until one of the unseen vocabularies is replaced by another.
        cancelling: share of requests whose client hangs up before its answer.
        poisoned: share of requests with a file that is no usable picture.
        seed: of all choices.
    """

    clients: int
    renew_s: float
    cancelling: float = 0.0
    poisoned: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Tally:
    """What the clients saw.

    Attributes:
        statuses: answers by status, those to poison apart.
        poison: answers to poison by status.
        cancelled: requests that were given up.
        latencies: seconds of the good answers.
        first_seen: when a version first answered, by `time.monotonic`.
        violations: what must not happen.
    """

    statuses: "Counter[int]" = field(default_factory=Counter)
    poison: "Counter[int]" = field(default_factory=Counter)
    cancelled: int = 0
    latencies: list[float] = field(default_factory=list)
    first_seen: dict[int, float] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def complain(self, text: str) -> None:
        """Notes a violation."""
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(text)


class Load:
    """Clients of one server; a context manager while they send.

    Args:
        server: that takes requests.
        workload: what to send.
        options: how.
    """

    def __init__(self, server: Server, workload: Workload, options: Options):
        self.tally = Tally()
        self.judge = Judge(workload)
        self.seconds = 0.0
        self.cpu_seconds = 0.0  # of the server
        self.memory: list[tuple[float, int]] = []  # seconds since the start, bytes
        self._server = server
        self._workload = workload
        self._options = options
        self._poison = poison()
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self._began = 0.0

    async def warm_up(self) -> None:
        """Has each vocabulary that is to be a known one asked for once."""
        connection = Connection(HOST, self._server.port)
        for number in self._workload.kept:
            await self._ask(connection, random.Random(number), 0, number)
        await connection.closed()
        self.tally.latencies.clear()
        self.tally.statuses.clear()

    async def start(self) -> None:
        """Lets the clients begin."""
        self._began = time.monotonic()
        self.cpu_seconds = -self._server.cpu_seconds()
        clients = [self._client(number) for number in range(self._options.clients)]
        self._tasks = [asyncio.create_task(work) for work in (*clients, self._renew(), self._watch())]

    async def stop(self) -> None:
        """Lets the clients finish what they began."""
        self._ending = True
        await asyncio.gather(*self._tasks)
        self.seconds = time.monotonic() - self._began
        self.cpu_seconds += self._server.cpu_seconds()

    def rss(self) -> dict[str, float]:
        """Memory at the start, in the middle and at the end, MiB, and the end relative to the middle."""
        whole = self.memory[-1][0]

        def at(share: float) -> float:
            low, high = (share - WINDOW / 2) * whole, (share + WINDOW / 2) * whole
            return statistics.median(size for when, size in self.memory if low <= when <= high) / 2**20

        start, middle, end = at(WINDOW / 2), at(0.5), at(1 - WINDOW / 2)
        return {
            "start_mib": round(start, 1),
            "middle_mib": round(middle, 1),
            "end_mib": round(end, 1),
            "end_to_middle": round(end / middle, 4),
        }

    async def _client(self, number: int) -> None:
        rng = random.Random(f"{self._options.seed}:{number}")
        connection = Connection(HOST, self._server.port)
        cancelling = self._options.cancelling
        while not self._ending:
            chance = rng.random()
            if chance < cancelling:
                await self._ask_and_hang_up(connection, rng)
            elif chance < cancelling + self._options.poisoned:
                await self._send_poison(connection, rng)
            else:
                await self._ask(connection, rng, *self._workload.choose(rng))
        await connection.closed()

    async def _ask(self, connection: Connection, rng: random.Random, picture: int, vocabulary: int) -> None:
        form = rng.choices(list(FORMS), FORM_SHARES)[0]
        request_id = f"soak-{rng.getrandbits(64):016x}"
        request = self._request(rng, picture, vocabulary, form, request_id)
        began = time.monotonic()
        answer = await self._answer(connection, request, request_id)
        if answer is None:
            return
        self.tally.statuses[answer.status] += 1
        if answer.status != 200:
            self.tally.complain(f"status {answer.status}: {answer.body[:300].decode(errors='replace')}")
            return
        now = time.monotonic()
        self.tally.latencies.append(now - began)
        if answer.headers.get("content-type") != FORMS[form]:
            self.tally.complain(f"{answer.headers.get('content-type')} instead of {FORMS[form]}")
            return
        version = int(answer.headers["x-ebseg-model"].rpartition("/")[2])
        self.tally.first_seen.setdefault(version, now)
        wrong = self.judge.keep(Asked(version, picture, vocabulary, form), answer.body, request_id)
        if wrong:
            self.tally.complain(wrong)

    async def _send_poison(self, connection: Connection, rng: random.Random) -> None:
        image, status = rng.choice(self._poison)
        document = self._workload.vocabularies[rng.choice(self._workload.kept)].document()
        request_id = f"soak-{rng.getrandbits(64):016x}"
        request = segment_request(
            image, document, accept="application/json", headers={"X-Request-ID": request_id}
        )
        answer = await self._answer(connection, request, request_id)
        if answer is None:
            return
        self.tally.poison[answer.status] += 1
        problem = answer.headers.get("content-type") == "application/problem+json"
        if answer.status != status or not problem:
            self.tally.complain(f"status {answer.status} instead of {status}: {answer.body[:300]!r}")

    async def _ask_and_hang_up(self, connection: Connection, rng: random.Random) -> None:
        picture, vocabulary = self._workload.choose(rng)
        request_id = f"soak-{rng.getrandbits(64):016x}"
        request = self._request(rng, picture, vocabulary, "json", request_id)
        self.tally.cancelled += 1
        if rng.random() < 0.2:  # in the midst of its body
            with contextlib.suppress(OSError):
                await connection.send_part(request[: rng.randrange(len(request))])
            return
        longest = 2 * statistics.median(self.tally.latencies[-50:] or [1.0])
        try:
            async with asyncio.timeout(rng.uniform(0, longest)):
                await self._answer(connection, request, request_id)
        except TimeoutError:
            pass

    def _request(
        self, rng: random.Random, picture: int, vocabulary: int, form: str, request_id: str
    ) -> bytes:
        document = self._workload.vocabularies[vocabulary].document()
        image = self._workload.image(picture, rng)
        return segment_request(image, document, accept=FORMS[form], headers={"X-Request-ID": request_id})

    async def _answer(self, connection: Connection, request: bytes, request_id: str) -> Answer | None:
        try:
            answer = await connection.ask(request)
        except (OSError, EOFError) as error:  # a time-out is an OSError, too
            self.tally.complain(f"no whole answer: {type(error).__name__}: {error}")
            return None
        if answer.headers.get("x-request-id") != request_id:
            self.tally.complain("another request's answer")
        if "retry-after" in answer.headers:
            await asyncio.sleep(int(answer.headers["retry-after"]))
        return answer

    async def _renew(self) -> None:
        while not self._ending:
            await asyncio.sleep(self._options.renew_s)
            self._workload.renew()

    async def _watch(self) -> None:
        while not self._ending:
            self.memory.append((time.monotonic() - self._began, self._server.resident()))
            await asyncio.sleep(SAMPLE_S)
