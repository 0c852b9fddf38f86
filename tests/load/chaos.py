"""Faults one after another, while the load goes on: Redis, the registry, and what the metrics say of them."""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.bench.process import HOST
from service.caches.text_cache import PREFIX
from tests.load import versions
from tests.load.client import Answer, Connection, json_request
from tests.load.clients import Load
from tests.load.server import Metrics, Server
from tests.service.caches.redis_server import RedisServer
from tests.waiting import WAIT

# A busy machine is no fault of the service: these are when the soak gives up, and its report has the times.
NOTICED_S = WAIT  # until a fault must show in the metrics
LIVE_S = WAIT  # until a new version must answer, from its manifest on
SETTLED_S = WAIT  # until its trial as a canary must be over
REFUSED_S = WAIT  # until a bad one must be in quarantine
POLL_S = 0.1
STORED = "/v1/vocabularies/soak"
Sign = Callable[[Metrics, Metrics], bool]  # of the metrics before and now
GARBAGE = ("wrong magic", "truncated", "random bytes", "another key's entry", "wrong type")


@dataclass(slots=True)
class Staged:
    """Versions that wait to be published, the bad ones with words of the reason to be given for each."""

    better: Path
    bad: list[tuple[str, Path, str]]
    last: Path
    slow: Path

    @classmethod
    def make(cls, folder: Path) -> "Staged":
        """Makes them; takes seconds."""
        first = versions.first_number()
        better = versions.other_weights(folder / "better", first + 1)
        bad = [
            ("flipped byte", versions.flipped_byte(folder / "flipped", first + 2), "sha256"),
            ("NaN weights", versions.with_nan(folder / "nan", first + 3), "NaN"),
            ("wrong shape", versions.wrong_shape(folder / "shape", first + 4), "has shape"),
            ("wrong results", versions.wrong_results(folder / "golden", first + 5, better), "golden"),
        ]
        same = [versions.same_weights(folder / name, first + at) for at, name in ((6, "last"), (7, "slow"))]
        return cls(better, bad, *same)


@dataclass(slots=True)
class Chaos:
    """The faults, and what came of each.

    Args:
        server, redis, registry: what they happen to.
        load: that goes on meanwhile.
        staged: versions to publish.

    Attributes:
        events: one a fault: its name, what showed in which metric, and how long it took.
        good: folders of the versions that may answer.
    """

    server: Server
    redis: RedisServer
    registry: Path
    load: Load
    staged: Staged
    seed: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    good: dict[int, Path] = field(default_factory=dict)

    async def run_once(self) -> None:
        """All faults of Redis, registry and clients; what goes wrong is noted with the load's violations."""
        first = versions.first_number()
        self.good[first] = self.registry / versions.NAME / str(first)
        self.good[first + 1] = self.staged.better
        self.good[first + 6] = self.staged.last
        await self._put_vocabulary({200, 201})
        await self._healthy_redis("at first")
        await self.redis_faults()
        await self._good_version(self.staged.better, "good version")
        for name, folder, words in self.staged.bad:
            await self._bad_version(name, folder, words)
        await self._good_version(self.staged.last, "good version after bad ones")
        await self._clients_gone_and_poison()

    async def redis_faults(self) -> None:
        """Those of Redis alone, which can be had again and again."""
        await self._redis_killed()
        await self._redis_frozen()
        await self._garbage()

    async def _healthy_redis(self, when: str) -> None:
        signs: dict[str, Sign] = {
            "cache_ops text l2 stored": _rose("cache_ops", cache="text", tier="l2", result="stored"),
            "cache_ops text l2 hit": _rose("cache_ops", cache="text", tier="l2", result="hit"),
            "redis_breaker_state 0": lambda _, now: now.value("redis_breaker_state") == 0,
        }
        await self._expect(f"redis healthy {when}", signs)

    async def _redis_killed(self) -> None:
        before = await self.metrics()
        await asyncio.to_thread(self.redis.kill)
        signs: dict[str, Sign] = {
            "cache_ops text l2 skipped": _rose("cache_ops", cache="text", tier="l2", result="skipped"),
            "redis_breaker_state 2": lambda _, now: now.value("redis_breaker_state") == 2,
        }
        await self._expect("redis killed", signs, before)
        await self._put_vocabulary({503})
        await self._ready("redis killed")
        await asyncio.to_thread(self.redis.start)
        await self._healthy_redis("restarted, empty")
        await self._put_vocabulary({200, 201})

    async def _redis_frozen(self) -> None:
        before = await self.metrics()
        self.redis.freeze()
        signs: dict[str, Sign] = {
            "cache_ops text l2 timeout": _rose("cache_ops", cache="text", tier="l2", result="timeout"),
            "cache_ops text l2 skipped": _rose("cache_ops", cache="text", tier="l2", result="skipped"),
            "redis_breaker_state 2": lambda _, now: now.value("redis_breaker_state") == 2,
        }
        await self._expect("redis frozen", signs, before)
        await self._ready("redis frozen")
        self.redis.thaw()
        await self._healthy_redis("thawed")

    async def _garbage(self) -> None:
        """Puts garbage under all of our keys, again and again until the service has met some."""
        before = await self.metrics()
        corrupt = _rose("cache_ops", cache="text", tier="l2", result="corrupt")
        written = 0
        with self.event("redis filled with garbage") as event:
            end = time.monotonic() + NOTICED_S
            rounds = 0
            while rounds < 3 or not corrupt(before, await self.metrics()):
                rounds += 1
                written += await asyncio.to_thread(self._fill_with_garbage)
                if time.monotonic() > end:
                    self.load.tally.complain("garbage in Redis never showed in the metrics")
                    break
                await asyncio.sleep(POLL_S)
            now = await self.metrics()
            event["keys_overwritten"] = written
            event["cache_ops text l2 corrupt"] = gain(
                before, now, "cache_ops", cache="text", tier="l2", result="corrupt"
            )
        await self._healthy_redis("after the garbage")

    def _fill_with_garbage(self) -> int:
        client = self.redis.client()
        rng = random.Random(self.seed)
        keys = list(client.scan_iter(match=PREFIX + b"*", count=1000))
        values = client.mget(keys) if keys else []
        kinds = itertools.cycle(GARBAGE)
        written = 0
        for key, value, other, kind in zip(keys, values, [*values[1:], *values[:1]], kinds, strict=False):
            if not isinstance(value, bytes) or not isinstance(other, bytes):
                continue
            written += 1
            if kind == "wrong type":
                client.delete(key)
                client.lpush(key, value)
                continue
            garbage = {
                "wrong magic": b"XXXX" + value[4:],
                "truncated": value[: len(value) // 2],
                "random bytes": rng.randbytes(len(value)),
                "another key's entry": other,
            }[kind]
            client.set(key, garbage, ex=3600)
        return written

    async def _good_version(self, folder: Path, name: str) -> None:
        before = await self.metrics()
        number = await asyncio.to_thread(versions.publish, folder, self.registry)
        published = time.monotonic()
        with self.event(name) as event:
            seen = self.load.tally.first_seen
            while number not in seen and time.monotonic() < published + LIVE_S:
                await asyncio.sleep(POLL_S)
            if number not in seen:
                self.load.tally.complain(f"version {number} had answered nothing after {LIVE_S:g} s")
            details = await self.details()
            while details["version"] != number and time.monotonic() < published + SETTLED_S:
                await asyncio.sleep(POLL_S)
                details = await self.details()
            event["version"] = number
            event["first_answer_after_s"] = round(seen.get(number, float("inf")) - published, 2)
            event["live_after_s"] = round(time.monotonic() - published, 2)  # its trial is over
            event["load_s"] = details["versions"][0]["load_seconds"]
            now = await self.metrics()
            event["model_loads loaded"] = gain(before, now, "model_loads", result="loaded")
            info = now.value("model_info", model=versions.NAME, version=str(number))
            event[f"model_info version {number}"] = info
            if details["version"] != number or event["model_loads loaded"] != 1 or info != 1:
                self.load.tally.complain(f"version {number} is not reported: {event}, {details}")

    async def _bad_version(self, name: str, folder: Path, words: str) -> None:
        before = await self.metrics()
        number = await asyncio.to_thread(versions.publish, folder, self.registry)
        with self.event(f"bad version: {name}") as event:
            reason = await self.refusal(number, REFUSED_S)
            details = await self.details()
            now = await self.metrics()
            event["version"], event["reason"] = number, reason
            event["model_loads quarantined"] = gain(before, now, "model_loads", result="quarantined")
            if reason is None or words not in reason or event["model_loads quarantined"] != 1:
                self.load.tally.complain(f"version {number} ({name}) was not refused as it should: {event}")
            if details["version"] == number or now.value("model_info", version=str(number)):
                self.load.tally.complain(f"version {number} ({name}) became live")
        await self._ready(name)

    async def refusal(self, number: int, seconds: float) -> str | None:
        """Why a version is in quarantine, as soon as it is; None if it does not get there in time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for entry in (await self.details())["quarantined"]:
                if entry["version"] == number:
                    return str(entry["reason"])
            await asyncio.sleep(POLL_S)
        return None

    async def _clients_gone_and_poison(self) -> None:
        signs: dict[str, Sign] = {
            f"requests /v1/segment {code}": _exceeds("requests", route="/v1/segment", code=code)
            for code in ("400", "413", "415", "499")
        }
        signs["rejected client-gone"] = _exceeds("rejected", reason="client-gone")
        signs["rejected too-many-pixels"] = _exceeds("rejected", reason="too-many-pixels")
        await self._expect("clients gone, and poison", signs)

    async def _expect(self, name: str, signs: dict[str, Sign], before: Metrics | None = None) -> None:
        """Waits until every sign has been seen; they need not be there at the same time."""
        before = before or await self.metrics()
        with self.event(name) as event:
            began = time.monotonic()
            while len(event) < 1 + len(signs) and time.monotonic() < began + NOTICED_S:
                now = await self.metrics()
                for sign, seen in signs.items():
                    if sign not in event and seen(before, now):
                        event[sign] = f"after {time.monotonic() - began:.1f} s"
                await asyncio.sleep(POLL_S)
            missing = sorted(signs.keys() - event.keys())
            if missing:
                self.load.tally.complain(f"{name}: the metrics never showed {', '.join(missing)}")

    async def _ready(self, when: str) -> None:
        status, body = await asyncio.to_thread(self.server.get, "/readyz")
        if status != 200:
            self.load.tally.complain(f"{when}: not ready: {body[:300]!r}")

    async def _put_vocabulary(self, statuses: set[int]) -> None:
        end = time.monotonic() + NOTICED_S
        answer = await self._ask(json_request("PUT", STORED, {"classes": ["sky", "tree"]}))
        while answer.status not in statuses and time.monotonic() < end:  # it has a second, and may miss it
            await asyncio.sleep(1.0)
            answer = await self._ask(json_request("PUT", STORED, {"classes": ["sky", "tree"]}))
        if answer.status not in statuses or (answer.status == 503 and "retry-after" not in answer.headers):
            self.load.tally.complain(f"PUT of a vocabulary: {answer.status} {answer.body[:300]!r}")

    async def _ask(self, request: bytes) -> Answer:
        connection = Connection(HOST, self.server.port)
        try:
            return await connection.ask(request)
        finally:
            await connection.closed()

    async def details(self) -> dict[str, Any]:
        details: dict[str, Any] = await asyncio.to_thread(self.server.json, f"/v1/models/{versions.NAME}")
        return details

    async def metrics(self) -> Metrics:
        return await asyncio.to_thread(self.server.metrics)

    @contextmanager
    def event(self, name: str) -> Iterator[dict[str, Any]]:
        event: dict[str, Any] = {"fault": name}
        self.events.append(event)
        began = time.monotonic()
        yield event
        event["seconds"] = round(time.monotonic() - began, 2)


def gain(before: Metrics, now: Metrics, name: str, **labels: str) -> float:
    counter = f"{name}_total"
    return now.value(counter, **labels) - before.value(counter, **labels)


def _rose(name: str, **labels: str) -> Sign:
    return lambda before, now: gain(before, now, name, **labels) > 0


def _exceeds(name: str, **labels: str) -> Sign:
    return lambda before, now: now.value(f"{name}_total", **labels) > 0
