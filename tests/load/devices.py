"""Faults of devices, under load and at its end: one that hangs, and a canary that is slow on them."""

import asyncio
import time
from pathlib import Path

from service.bench.process import HOST
from service.bench.requests import segment_request
from tests.load import versions
from tests.load.chaos import NOTICED_S, POLL_S, REFUSED_S, Chaos, gain
from tests.load.client import Connection
from tests.load.faulty import Faults

WATCHDOG_S = 10  # of the service, so that a device that hangs is noticed soon
GRACE_S = 5  # of the service
LATE_S = 20  # that it may take beyond it, with a loaded machine
WITHDRAWN_S = 30  # of traffic, that a slow version may have
SLOWNESS = 10  # times as long as the version beside it


async def slow_canary(chaos: Chaos, faults: Faults, folder: Path) -> None:
    """Publishes a version that is slow; the trial has to end it, and nobody loses an answer by it."""
    number = versions.number_of(folder)
    chaos.good[number] = folder  # what it answers is right, if late
    faults.slow(number).write_text(str(SLOWNESS))
    before = await chaos.metrics()
    with chaos.event("slow canary") as event:
        await asyncio.to_thread(versions.publish, folder, chaos.registry)
        reason = await chaos.refusal(number, REFUSED_S)
        seen, now = chaos.load.tally.first_seen.get(number), await chaos.metrics()
        event["version"], event["reason"] = number, reason
        event["withdrawn_after_s"] = seen and round(time.monotonic() - seen, 2)  # from its first answer on
        event["model_loads rolled_back"] = gain(before, now, "model_loads", result="rolled_back")
        if reason is None or "took up to" not in reason or event["model_loads rolled_back"] != 1:
            chaos.load.tally.complain(f"version {number} was slow, and not withdrawn for it: {event}")
        elif not seen or event["withdrawn_after_s"] > WITHDRAWN_S:
            chaos.load.tally.complain(f"version {number} was slow, and withdrawn late: {event}")
        details = await chaos.details()
        if details["version"] == number:
            chaos.load.tally.complain(f"version {number} was slow, and took over")


async def device_hangs(chaos: Chaos, faults: Faults) -> None:
    """A device hangs until the probes tell, then gets on; all that waited for it are answered."""
    with chaos.event("device hangs") as event:
        began = time.monotonic()
        faults.hang.touch()
        try:
            noticed = await _probes(chaos, 503, NOTICED_S + WATCHDOG_S)
            event["livez and readyz 503"] = noticed and f"after {time.monotonic() - began:.1f} s"
        finally:
            faults.hang.unlink()
        answered, began = chaos.load.tally.statuses[200], time.monotonic()
        well = await _probes(chaos, 200, NOTICED_S)
        event["livez and readyz 200"] = well and f"after {time.monotonic() - began:.1f} s"
        while chaos.load.tally.statuses[200] == answered and time.monotonic() < began + NOTICED_S:
            await asyncio.sleep(POLL_S)
        event["answers"] = chaos.load.tally.statuses[200] - answered
        if not (noticed and well and event["answers"]):
            chaos.load.tally.complain(f"a device that hung: {event}")


async def device_hangs_for_good(chaos: Chaos, faults: Faults, picture: bytes) -> None:
    """Once the load is over: SIGTERM while a device hangs ends the process, in time and with a reason."""
    connection = Connection(HOST, chaos.server.port)
    request = segment_request(picture, {"classes": ["sky"]}, accept="application/json")
    before = await chaos.metrics()
    with chaos.event("device hangs for good") as event:
        faults.hang.touch()
        asked = asyncio.create_task(connection.ask(request))
        began = time.monotonic()
        while gain(before, await chaos.metrics(), "batches") <= 0 and time.monotonic() < began + NOTICED_S:
            await asyncio.sleep(POLL_S)
        began = time.monotonic()
        chaos.server.terminate()
        code = await asyncio.to_thread(chaos.server.ended)
        event["exit code"], event["ended_after_s"] = code, round(time.monotonic() - began, 2)
        (answer,) = await asyncio.gather(asked, return_exceptions=True)
        event["answer"] = type(answer).__name__ if isinstance(answer, BaseException) else answer.status
        reasons = [line["message"] for line in chaos.server.log_lines() if line["level"] == "critical"]
        event["reason"] = reasons
        noticed = len(reasons) == 1 and "hangs: no progress" in reasons[0]
        in_time = GRACE_S - 1 <= event["ended_after_s"] < GRACE_S + LATE_S
        if code != 1 or not noticed or event["answer"] == 200 or not in_time:
            chaos.load.tally.complain(f"a device that hung at the end: {event}")


async def _probes(chaos: Chaos, status: int, seconds: float) -> bool:
    """Whether both probes say so before long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = [await asyncio.to_thread(chaos.server.get, path) for path in ("/livez", "/readyz")]
        if {code for code, _ in found} == {status}:
            return True
        await asyncio.sleep(POLL_S)
    return False
