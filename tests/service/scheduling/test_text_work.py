"""Class names on several devices: whoever is free takes some."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch

from service.scheduling.deadline import Deadline
from service.scheduling.scheduler import _FIRST_TOKENS
from tests.service.scheduling.scheduler_fakes import NumberEngine, running, soon
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio


class SplitEngine(NumberEngine):
    """Embeds one name at a time; more of them fail, once `before` has had its say on the device's thread."""

    def __init__(self, before: Callable[[], None]):
        super().__init__()
        self.before = before

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        if len(names) > 1:
            self.before()
            raise ValueError("too many names")
        return super().embed(names, templates)


async def test_a_long_list_is_embedded_by_all_devices_that_are_free() -> None:
    others = threading.Barrier(2)

    class Meeting(NumberEngine):
        def embed(self, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
            if len(names) > 1:
                others.wait(WAIT)
            return super().embed(names, templates)

    engine = Meeting()
    async with running(names=["cuda:0", "cuda:1"]) as device:
        await soon(asyncio.gather(*(one.call(lambda: None) for one in device.scheduler.devices)))
        await until(lambda: device.scheduler._queue.idle == 2)
        names = [f"name {number}" for number in range(2 * _FIRST_TOKENS)]
        tokens = engine.tokens(names, ["{}"])
        work = device.scheduler.embed((engine, engine), names, ["{}"], tokens, Deadline(60))
        assert (await soon(work)).shape == (len(names), 4)


async def test_names_that_failed_together_are_embedded_by_a_device_that_is_free() -> None:
    gate, loop = threading.Event(), asyncio.get_running_loop()
    held: list[asyncio.Task[bool]] = []
    async with running(names=["cuda:0", "cuda:1"]) as device:
        scheduler = device.scheduler

        def keep_busy() -> None:
            """The device that fails has something else to do next."""
            index = [f"ebseg-{one.name}" for one in scheduler.devices].index(threading.current_thread().name)
            call = scheduler.devices[index].call(partial(gate.wait, WAIT))
            loop.call_soon_threadsafe(lambda: held.append(asyncio.ensure_future(call)))
            while not scheduler._queue._calls[index]:
                time.sleep(0.001)

        engine = SplitEngine(keep_busy)
        await soon(asyncio.gather(*(one.call(lambda: None) for one in scheduler.devices)))
        await until(lambda: scheduler._queue.idle == 2)
        names = ["sky", "tree"]
        work = scheduler.embed((engine, engine), names, ["{}"], engine.tokens(names, ["{}"]), Deadline(60))
        try:
            assert (await soon(work)).shape == (2, 4)
        finally:
            gate.set()
        await soon(held[0])
