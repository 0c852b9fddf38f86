"""Bad canaries under traffic over HTTP: withdrawn soon, and nobody loses an answer by them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from service.runtime import Service
from service.scheduling.engine import PreparedPicture
from tests.service.fakes import FakePrediction, post, running
from tests.service.hot_loading.model_fakes import (
    SELDOM,
    Loader,
    VersionEngine,
    publish,
    quarantined,
    roles,
    serving,
)
from tests.waiting import until

pytestmark = pytest.mark.anyio
QUICK_S, STABLE_S = 0.02, 0.1  # of a device


@asynccontextmanager
async def trial(registry: Path, load: Loader) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """A service whose version 2 is a canary with half of the requests."""
    own: dict[str, Any] = {"registry": str(registry), "model": "a@canary:50", "registry_poll_s": SELDOM}
    async with running(load=load, device="cpu", **own) as (client, service):
        publish(registry, "a", 2)
        await service.models.reload("a")
        assert roles(service.models) == {1: "current", 2: "canary"}
        yield client, service


def short_of_memory(prepared: Sequence[PreparedPicture]) -> list[FakePrediction]:
    raise torch.OutOfMemoryError("CUDA out of memory")


async def test_one_that_always_runs_out_of_memory(registry: Path) -> None:
    load = Loader()

    def made(engine: VersionEngine) -> None:
        if engine.info.version == 2:
            engine.predict = short_of_memory  # type: ignore[method-assign]

    load.made = made
    async with trial(registry, load) as (client, service):
        answers = [await post(client) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 20
        assert {answer.headers["x-ebseg-model"] for answer in answers} == {"a/1"}
        await until(lambda: roles(service.models) == {1: "current"})
        assert quarantined(service.models) == {
            2: "as a canary, 5 of 5 requests failed (5 for want of memory); "
            "of the version beside it 0 of 9 requests failed"
        }
        # by name it was the caller's choice, and is answered as it is
        assert (await post(client, {"classes": ["a"], "model": "a", "version": 2})).status_code == 404


class DeviceClock:
    """A device's time, which goes on by what steps are said to take: no machine is too slow for it."""

    def __init__(self) -> None:
        self.busy_s = 0.0
        self.time_ns = time.time_ns

    def monotonic(self) -> float:
        return time.monotonic() + self.busy_s


@pytest.mark.parametrize("times", [5, 15])
async def test_one_that_is_slower_is_withdrawn_within_thirty_seconds_of_traffic(
    registry: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    load, clock = Loader(), DeviceClock()
    monkeypatch.setattr("service.scheduling.step_runner.time", clock)

    def made(engine: VersionEngine) -> None:
        own, seconds = engine.predict, STABLE_S * (times if engine.info.version == 2 else 1)

        def predict(prepared: Sequence[PreparedPicture]) -> list[FakePrediction]:
            clock.busy_s += seconds
            return own(prepared)

        engine.predict = predict  # type: ignore[method-assign]

    load.made = made
    async with trial(registry, load) as (client, service):
        clock.busy_s = 0.0  # warm-ups are no traffic
        answers: list[httpx.Response] = []
        while 2 in roles(service.models) and clock.busy_s <= 30:
            answers += await asyncio.gather(*(post(client) for _ in range(4)))
        assert quarantined(service.models)[2].startswith("as a canary, 0 of ")
        assert "95 % took up to" in quarantined(service.models)[2]
        assert clock.busy_s <= 30
        assert {answer.status_code for answer in answers} == {200}
        by_stable = sum(answer.headers["x-ebseg-model"] == "a/1" for answer in answers)
        assert len(answers) // 2 <= by_stable  # its share, whatever the canary takes
        assert (await post(client)).headers["x-ebseg-model"] == "a/1"


async def test_one_that_is_too_slow_for_any_request(registry: Path) -> None:
    load = Loader()
    load.made = lambda engine: setattr(engine, "seconds", 1.2 if engine.info.version == 2 else QUICK_S)
    async with trial(registry, load) as (client, service):
        answers = []
        for _ in range(14):
            answers.append(await post(client, {"classes": ["a"], "timeout_ms": 2000}))
            if 2 not in roles(service.models):
                break
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["x-ebseg-model"] for answer in answers} == {"a/1"}
        assert "5 being too late" in quarantined(service.models)[2]


async def test_a_trial_without_traffic_ends(registry: Path) -> None:
    async with serving(registry, "a@canary:10", canary_s=0.05) as (models, _, _):
        publish(registry, "a", 2)
        await models.reload("a")
        assert roles(models) == {1: "current", 2: "canary"}
        await until(lambda: roles(models) == {2: "current"})


async def test_a_trial_that_was_settled_ends_once(registry: Path) -> None:
    async with serving(registry, "a@canary:10", canary_s=0.05) as (models, _, _):
        publish(registry, "a", 2)
        await models.reload("a")
        await models.rollback("a")
        await asyncio.sleep(0.1)
        assert roles(models) == {1: "current"}
