"""Prices of the real engine: what its warm-up feeds is what its steps take."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.scheduling.price import PREDICT
from service.scheduling.torch_engine import TorchEngine, load_engine
from tests.service.fakes import running

PRETRAINED = Path(__file__).parents[3] / "model" / "pretrained"
SHAPES, GOOD, FACTOR = 200, 190, 1.5


class ProcessorTime:
    """Seconds that this process worked: however busy the machine is, others' work is none of them."""

    perf_counter = staticmethod(time.process_time)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # others would spin while they wait
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.usefixtures("one_thread")
async def test_two_hundred_random_shapes_after_a_services_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.scheduling.torch_engine.time", ProcessorTime)
    own = random.Random(0)
    factors: list[float] = []
    settings: dict[str, Any] = {
        "registry": str(PRETRAINED),
        "model": "ebseg-tiny",
        "device": "cpu",
        "registry_poll_s": 1000,
    }
    async with running(load=load_engine, **settings) as (_, service):
        assert service.prices.trusted
        with service.models.lease() as lease:
            (engine,) = lease.engines
            assert isinstance(engine, TorchEngine)
            for _ in range(SHAPES):
                size = own.randint(1, 640), own.randint(1, 640)
                prepared = engine.prepare(np.full((*size, 3), 127, np.uint8))
                expected = service.prices.step_seconds(engine.info, PREDICT, prepared.cost)
                began = time.process_time()
                engine.predict([prepared])
                took = time.process_time() - began
                factors.append(expected / took)
                service.prices.observe(engine.info, PREDICT, prepared.cost, took)  # as each step does
    assert len(factors) == SHAPES
    good = sum(1 / FACTOR <= factor <= FACTOR for factor in factors)
    assert good >= GOOD, sorted(factors)
    assert 1 / 3 <= factors[0] <= 3  # by the warm-up alone: of a service that was not fed it would be 0
