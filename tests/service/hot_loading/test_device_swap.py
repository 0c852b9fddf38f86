"""A version takes over from another on the pretended accelerator: loaded, checked, warmed, served, freed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from weakref import ref

import numpy as np
import pytest

from model.vocabulary.classes import Vocabulary
from service.hot_loading import loader
from service.hot_loading.loaded import LoadedVersion
from service.hot_loading.loader import LoaderThread, Loading
from service.scheduling import torch_engine
from service.scheduling.deadline import Deadline
from service.scheduling.engine import EngineResult, Job
from service.scheduling.torch_engine import TorchEngine, load_engine
from tests.pretended import NAME, pretended_device
from tests.pretended_graphs import pretended_graphs
from tests.pretended_memory import PretendedMemory, pretended_memory
from tests.service.scheduling.scheduler_fakes import Running, running

pytestmark = pytest.mark.anyio
VOCABULARY = Vocabulary.of(["sky", "tree", "road"])
DEVICE = f"{NAME}:0"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedMemory]:
    monkeypatch.setattr(torch_engine, "_LARGEST_BATCH", 2)  # warm-ups are slow here
    monkeypatch.setattr(torch_engine, "_WORTH", 0.0)
    monkeypatch.setattr(loader, "USUAL_PICTURES", ((192, 192),))
    with pretended_device(), pretended_graphs(), pretended_memory(2**40) as found:
        yield found


def job(engine: TorchEngine, shown: int) -> Job:
    pixels = np.random.default_rng(shown).integers(0, 255, (64, 64, 3), np.uint8)
    return Job(
        engines=(engine,),
        prepared=engine.prepare(pixels),
        prediction=None,
        vocabulary=VOCABULARY,
        text=engine.embed(VOCABULARY.names, VOCABULARY.templates),
        output_size=(20, 30),
        threshold=0.0,
        balance=None,
        scores=False,
        deadline=Deadline(60),
    )


async def answers(device: Running, version: LoadedVersion) -> list[EngineResult]:
    engine = version.engines[0]
    assert isinstance(engine, TorchEngine)
    jobs = [await device.call(partial(job, engine, number)) for number in (1, 2)]
    return [await device.submit(one) for one in jobs]


@pytest.mark.parametrize(
    "dtype",
    [
        "bfloat16",
        pytest.param("float32", marks=pytest.mark.slow),
        pytest.param("float16", marks=pytest.mark.slow),
    ],
)
async def test_versions_follow_each_other(dtype: str, tiny_checkpoint: Path, memory: PretendedMemory) -> None:
    """The second is loaded while the first serves; both answer as on a CPU; the first leaves no memory."""
    thread = LoaderThread()
    async with running(names=[DEVICE], max_batch_size=2) as device:
        loading = Loading(thread, device.scheduler.devices, names=[DEVICE], dtype=dtype, load=load_engine)
        first = await loading.bring_up(tiny_checkpoint)
        engine = first.engines[0]
        assert isinstance(engine, TorchEngine)
        assert engine.info.dtype == dtype
        assert engine.segmenter.ebseg.graphs.counts((192, 192)) == [2, 1]
        one = memory.used
        before = await answers(device, first)
        second = await loading.bring_up(tiny_checkpoint)
        assert memory.used > 1.5 * one
        after = await answers(device, second)
        freed = ref(engine.segmenter)
        loader.close(first.engines)
        del engine, first
        assert freed() is None
        assert memory.used < 1.3 * one
    await thread.stop(10)
    plain = load_engine(tiny_checkpoint, golden=False)
    for number, (a, b) in enumerate(zip(before, after, strict=True), 1):
        assert np.array_equal(a.labels, b.labels)
        wanted = job(plain, number)
        assert wanted.prepared is not None
        (prediction,) = plain.predict([wanted.prepared])
        same = (plain.classify(prediction, wanted).labels == a.labels).mean()
        assert same >= (0.999 if dtype == "float32" else 0.9), same
