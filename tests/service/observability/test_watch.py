"""What the process notices about itself."""

import asyncio
import logging
import mmap
import threading
import time
from collections.abc import Sequence

import pytest
import torch

from service.observability import watch
from service.observability.metrics import Metrics
from service.observability.watch import Watch, memory_bytes, stalled
from service.settings import Settings
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio


class FakeDevice:
    def __init__(self, name: str, seconds: float = 0.0):
        self.name = name
        self.seconds = seconds

    def stalled_for(self) -> float:
        return self.seconds


class FakeMemory:
    def __init__(self) -> None:
        self.bursts = 0

    def subsided(self) -> bool:
        self.bursts -= 1
        return self.bursts >= 0


class FakeService:
    def __init__(self, *devices: FakeDevice, watchdog_s: float = 120.0):
        self.settings = Settings(watchdog_s=watchdog_s)
        self.metrics = Metrics()
        self.devices: Sequence[FakeDevice] = devices
        self.memory = FakeMemory()

    def lag(self) -> float:
        return value(self, "ebseg_event_loop_lag_seconds")


RSS = {"model": "", "version": "", "kind": "process_rss", "device": "cpu"}


def value(service: FakeService, name: str, **labels: str) -> float:
    found = service.metrics.registry.get_sample_value(name, labels)
    return -1.0 if found is None else found


async def test_event_loop_lag() -> None:
    service = FakeService()
    watching = Watch(service, interval_s=0.005)
    watching.start()
    await asyncio.sleep(0.02)
    calm = service.lag()
    time.sleep(0.4)
    await until(lambda: service.lag() > 0.35)
    await asyncio.sleep(0.02)  # a later, calm measurement does not hide the peak from the next scrape
    peak = service.lag()
    await watching.stop()
    assert calm >= 0
    assert 0.35 < peak < WAIT


async def test_an_old_peak_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LAG_WINDOW", 3)
    service = FakeService()
    watching = Watch(service, interval_s=0.005)
    watching.start()
    await asyncio.sleep(0.01)
    time.sleep(0.3)
    await until(lambda: service.lag() > 0.2)
    await until(lambda: service.lag() < 0.2)
    await watching.stop()


async def test_memory() -> None:
    service = FakeService()
    watching = Watch(service)
    watching.start()
    await until(lambda: value(service, "ebseg_device_memory_bytes", **RSS) > 0)
    await watching.stop()
    before = value(service, "ebseg_device_memory_bytes", **RSS)
    with mmap.mmap(-1, 64 << 20) as held:  # pages of its own: an allocator may have some to spare
        held.write(b"x" * (64 << 20))
        assert 10e6 < before < memory_bytes()["process_rss", "cpu"] - 32e6


async def test_a_process_without_a_file_to_open_is_watched_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> dict[tuple[str, str], int]:
        raise OSError(24, "Too many open files")

    service = FakeService(FakeDevice("cpu", 121.2))
    watching = Watch(service, interval_s=0.001)
    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "service.observability.watch"):
        patched.setattr(watch, "memory_bytes", refused)
        watching.start()
        await until(lambda: len(watching._lags) == watch.LAG_WINDOW)  # it goes on, past the next measurement
    logged = [record.getMessage() for record in caplog.records]
    assert [line for line in logged if "Too many open files" in line] == logged[:1]
    assert any("made no progress" in line for line in logged)
    await until(lambda: value(service, "ebseg_device_memory_bytes", **RSS) > 0)
    await watching.stop()


async def test_memory_of_several_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(memory_bytes()) == {("process_rss", "cpu")} or torch.cuda.is_initialized()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 10 + device)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 100 + device)
    kinds = memory_bytes()
    del kinds["process_rss", "cpu"]
    assert kinds == {
        ("cuda_allocated", "cuda:0"): 10,
        ("cuda_allocated", "cuda:1"): 11,
        ("cuda_reserved", "cuda:0"): 100,
        ("cuda_reserved", "cuda:1"): 101,
    }


def test_the_watchdog_barks_when_work_gets_nowhere() -> None:
    assert stalled(FakeService(FakeDevice("cpu"), FakeDevice("cuda:1", 120.0))) == ""
    reason = stalled(FakeService(FakeDevice("cpu"), FakeDevice("cuda:1", 121.2)))
    assert reason == "the device cuda:1 has made no progress for 121 s"


async def test_it_barks_once(caplog: pytest.LogCaptureFixture) -> None:
    device = FakeDevice("cpu", 2.0)
    watching = Watch(FakeService(device, watchdog_s=1.0), interval_s=0.002)
    with caplog.at_level(logging.WARNING, "service.observability.watch"):
        watching.start()
        await until(lambda: caplog.records)
        device.seconds = 3.0
        await asyncio.sleep(0.02)
        device.seconds = 0.0
        await until(lambda: len(caplog.records) == 2)
        await asyncio.sleep(0.02)
        await watching.stop()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


async def test_stopping_twice_or_before_the_start_is_fine() -> None:
    watching = Watch(FakeService())
    await watching.stop()
    watching.start()
    await watching.stop()
    await watching.stop()


async def test_freed_memory_is_returned_after_each_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    returned: list[str] = []
    monkeypatch.setattr(
        watch, "return_freed_memory", lambda: returned.append(threading.current_thread().name)
    )
    monkeypatch.setattr(watch, "MEMORY_EVERY", 1)
    service = FakeService()
    service.memory.bursts = 2
    watching = Watch(service, interval_s=0.001)
    watching.start()
    await until(lambda: service.memory.bursts < -2)
    await watching.stop()
    assert len(returned) == 2
    assert threading.current_thread().name not in returned  # it may take a while
