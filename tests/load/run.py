"""One run: a real Redis, a real server, the load, maybe faults; then the findings as one document."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.storage import checkpoint
from model.storage.packaged import packaged_checkpoint
from service.observability.quantiles import percentiles
from tests.load import devices, versions
from tests.load.chaos import Chaos, Staged
from tests.load.clients import Load, Options
from tests.load.faulty import Faults
from tests.load.server import Server, serving
from tests.load.workload import Workload
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.waiting import WAIT

MEMORY_GROWTH = 0.10  # from the middle to the end
# Small caches, so that they are full long before the middle, and the memory's growth is a leak's.
PREDICTION_CACHE_BYTES = 32 << 20
# Half of the requests, until so many are answered: more than a trial needs to see that a version is slow, for
# which those whose prediction was cached do not count.
CANARY_PERCENT, CANARY_REQUESTS = 50, 80
FAULT_LINES = ("version refused", "has made no progress", "hangs: no progress")  # what the log says of faults
# With faults around, some thirty classes: the others are asked of Redis again and again.
CHAOS_TEXT_CACHE_BYTES = 48 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        seconds: of load, at least; with chaos until each fault was there, and then again and again.
        clients: at the same time.
        requests: answered ones, at least: a slow machine takes longer than `seconds` for them.
        chaos: whether there are faults.
        registry_poll_s: of the service; None is its default.
        check_memory: whether growth is a violation; a short run says nothing of it.
        seed: of all choices.
    """

    seconds: float
    clients: int
    requests: int = 0
    chaos: bool = False
    registry_poll_s: float | None = None
    check_memory: bool = True
    seed: int = 0


def run(plan: Plan) -> dict[str, Any]:
    """Runs a plan, and compares all answers; the document has `violations`, empty if all is well."""
    known = checkpoint.load(packaged_checkpoint()).ebseg.training_classes.classes
    workload = Workload([item.name for item in known], plan.seed)
    with tempfile.TemporaryDirectory(prefix="ebseg-soak-") as name:
        folder = Path(name)
        registry = versions.registry_with_first(folder / "registry")
        staged = Staged.make(folder) if plan.chaos else None
        faults = Faults(folder / "faults")
        with redis_server() as redis, _served(plan, registry, redis, faults) as server:
            load = Load(server, workload, _options(plan))
            chaos = None if staged is None else Chaos(server, redis, registry, load, staged, plan.seed)
            asyncio.run(_drive(plan, load, chaos, faults))
            report = _figures(load, server)
            if chaos is not None:
                asyncio.run(devices.device_hangs_for_good(chaos, faults, workload.pictures[0].copy(-1)))
            elif (exit_code := server.stop()) != 0:
                load.tally.complain(f"the server left with {exit_code}")
            report["log"] = _log(server, load, faulty=chaos is not None)
        first = versions.first_number()
        good = {first: registry / versions.NAME / str(first)} if chaos is None else chaos.good
        report |= _judged(load, good)
        if chaos is not None:
            report["faults"] = chaos.events
        if plan.check_memory and report["memory"]["end_to_middle"] > 1 + MEMORY_GROWTH:
            load.tally.complain(f"memory grew: {report['memory']}")
    return {"plan": asdict(plan), **report, "violations": load.tally.violations}


@contextmanager
def _served(plan: Plan, registry: Path, redis: RedisServer, faults: Faults) -> Iterator[Server]:
    settings: dict[str, Any] = {
        "registry": registry,
        "model": versions.NAME,
        "redis-url": redis.url,
        "prediction-cache-bytes": PREDICTION_CACHE_BYTES,
        "registry-poll-s": plan.registry_poll_s,
    }
    if plan.chaos:
        settings |= {
            "model": f"{versions.NAME}@canary:{CANARY_PERCENT}",
            "canary-requests": CANARY_REQUESTS,
            "text-cache-bytes": CHAOS_TEXT_CACHE_BYTES,
            "watchdog-s": devices.WATCHDOG_S,
            "drain-timeout-s": devices.GRACE_S,
        }
    words = ["tests.load.faulty", str(faults.folder)] if plan.chaos else ["ebseg", "serve"]
    with serving(*words, **settings) as server:
        yield server


def _options(plan: Plan) -> Options:
    if plan.chaos:
        return Options(clients=plan.clients, renew_s=0.5, cancelling=0.05, poisoned=0.05, seed=plan.seed)
    return Options(clients=plan.clients, renew_s=1.0, seed=plan.seed)


async def _drive(plan: Plan, load: Load, chaos: Chaos | None, faults: Faults) -> None:
    await load.warm_up()
    await load.start()
    end = time.monotonic() + plan.seconds
    try:
        if chaos is not None:
            await chaos.run_once()
            await devices.slow_canary(chaos, faults, chaos.staged.slow)
            await devices.device_hangs(chaos, faults)
            while time.monotonic() < end:
                await chaos.redis_faults()
                await devices.device_hangs(chaos, faults)
        await asyncio.sleep(max(0.0, end - time.monotonic()))
        async with asyncio.timeout(WAIT):
            while load.tally.statuses[200] < plan.requests:
                await asyncio.sleep(0.05)
    finally:
        await load.stop()


def _figures(load: Load, server: Server) -> dict[str, Any]:
    tally, metrics = load.tally, server.metrics()
    good = tally.statuses[200]
    if not good:
        tally.complain("nothing was answered")
    latencies = percentiles(tally.latencies, (50, 95, 99))
    batches = metrics.value("batch_size_count")
    return {
        "seconds": round(load.seconds, 1),
        "requests": good,
        "pictures_per_s": round(good / load.seconds, 2),
        "statuses": _plain(tally.statuses),
        "poison_statuses": _plain(tally.poison),
        "cancelled": tally.cancelled,
        "server_cpu_s": round(load.cpu_seconds, 1),
        "latency_s": {name: s and round(s, 3) for name, s in latencies.items()},
        "mean_batch": round(metrics.value("batch_size_sum") / batches, 2) if batches else None,
        "memory": load.rss(),
        "event_loop_lag_s": round(metrics.value("event_loop_lag_seconds"), 4),
        "batches": metrics.by_label("batches_total", "trigger"),
        "cache_ops": metrics.by_label("cache_ops_total", "cache", "tier", "result"),
        "model_loads": metrics.by_label("model_loads_total", "result"),
        "rejected": metrics.by_label("rejected_total", "reason"),
        "codes": metrics.by_label("requests_total", "code", route="/v1/segment"),
    }


def _judged(load: Load, good: dict[int, Path]) -> dict[str, Any]:
    findings = load.judge.findings(good)
    for complaint in findings.complaints:
        load.tally.complain(complaint)
    return {
        "compared": findings.answers,
        "distinct_answers": findings.distinct,
        "answers_by_version": _plain(findings.by_version),
        "pixels": findings.pixels,
        "differing_pixels": findings.differing_pixels,
        "wrong_pixels": findings.wrong_pixels,
        "largest_confidence_error": findings.largest_confidence_error,
    }


def _log(server: Server, load: Load, *, faulty: bool) -> dict[str, int]:
    """Lines by level; errors are violations, but those that tell of faults that were made."""
    lines = server.log_lines()
    for line in lines:
        made = faulty and any(words in line["message"] for words in FAULT_LINES)
        if line["level"] in ("error", "critical") and not made:
            load.tally.complain(f"the log has an error: {str(line)[:500]}")
    if "Traceback" in server.log_text() and not faulty:
        load.tally.complain("the log has a traceback")
    return _plain(Counter(line["level"] for line in lines))


def _plain(counts: "Counter[Any]") -> dict[str, int]:
    return {str(key): counts[key] for key in sorted(counts)}
