"""Probes, with reasons; and the forms of the metrics."""

import threading

import pytest

from service.runtime import Service
from tests.service.fakes import FakeEngine, post, problem, running
from tests.waiting import until

pytestmark = pytest.mark.anyio

PATHS = ("/livez", "/startupz", "/readyz")


def stall(service: Service, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(service.devices[0], "stalled_for", lambda: seconds)


async def test_ready_with_details() -> None:
    async with running() as (client, _):
        answers = [await client.get(path) for path in PATHS]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.json()["status"] for answer in answers] == ["alive", "started", "ready"]
    for answer in answers:
        assert answer.json()["models"] == {"fake": 3}
        assert answer.json()["checks"] == {
            "devices": "ok",
            "redis": "none",
            "registry": "none",
            "models": "ok",
            "versions": "ok",
        }


async def test_platforms_names_for_readiness() -> None:
    async with running(api_keys="a key of some length") as (client, service):
        for path in ("/health", "/ping"):
            assert (await client.get(path)).json() == (await client.get("/readyz")).json()
        service.state = "draining"
        for path in ("/health", "/ping"):
            assert "shutting down" in problem(await client.get(path), 503)["detail"]


async def test_while_loading_failed_and_draining() -> None:
    async with running() as (client, service):
        service.state, service.started = "loading", False
        loading = [await client.get(path) for path in PATHS]
        service.state = "failed"
        failed = [await client.get(path) for path in PATHS]
        service.state, service.started = "draining", True
        draining = [await client.get(path) for path in PATHS]
        statuses = [[answer.status_code for answer in answers] for answers in (loading, failed, draining)]
    assert statuses == [[200, 503, 503], [503, 503, 503], [200, 200, 503]]
    assert "loading" in problem(loading[2], 503)["detail"]
    assert all("could not be loaded" in problem(answer, 503)["detail"] for answer in failed)
    assert "shutting down" in problem(draining[2], 503)["detail"]


async def test_a_stuck_device_fails_liveness_and_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(watchdog_s=5.0) as (client, service):
        stall(service, monkeypatch, 4.9)
        before = [(await client.get(path)).status_code for path in PATHS]
        stall(service, monkeypatch, 7.0)
        live, started, ready = [await client.get(path) for path in PATHS]
        stall(service, monkeypatch, 0.0)
        after = [(await client.get(path)).status_code for path in PATHS]
    for answer in (live, ready):
        assert problem(answer, 503)["detail"] == "the device cpu has made no progress for 7 s"
    assert started.json()["checks"]["devices"] == "the device cpu has made no progress for 7 s"
    assert before == after == [200] * 3


async def test_a_batch_that_hangs_is_noticed() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    async with running(engine, watchdog_s=0.05) as (client, service):
        refused = await post(client, {"classes": ["a"], "timeout_ms": 500})
        assert refused.status_code == 504
        assert engine.running.is_set()
        await until(lambda: service.devices[0].stalled_for() > 0.05)
        stuck = await client.get("/livez")
        gate.set()
        await until(lambda: service.devices[0].stalled_for() == 0)
        assert (await client.get("/livez")).status_code == 200
    assert "no progress" in problem(stuck, 503)["detail"]


@pytest.mark.parametrize(("state", "reported"), [(0, "ok"), (1, "trying"), (2, "away")])
async def test_redis_is_shown_and_never_counts(state: int, reported: str) -> None:
    # nothing listens there
    async with running(redis_url="redis://127.0.0.1:9") as (client, service):
        service.metrics.breaker_state.set(state)
        answer = await client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["checks"]["redis"] == reported


async def test_text_and_openmetrics() -> None:
    browser = "text/html,application/xhtml+xml,*/*;q=0.8"
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    odd = "application/openmetrics-text; version=nonsense"
    async with running() as (client, _):
        plain = [await client.get("/metrics", headers={"Accept": accept}) for accept in ("*/*", browser)]
        opened = [await client.get("/metrics", headers={"Accept": accept}) for accept in (prometheus, odd)]
    for answer in plain:
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert "# EOF" not in answer.text
    for answer in opened:
        assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert answer.text.endswith("# EOF\n")
    for answer in (*plain, *opened):
        assert "\nebseg_event_loop_lag_seconds " in answer.text
        assert 'ebseg_device_memory_bytes{device="cpu",kind="process_rss",model="",version=""}' in answer.text
