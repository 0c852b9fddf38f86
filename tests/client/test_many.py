"""Many pictures at a time, and the client of asyncio, against the service itself."""

import itertools
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from ebseg_client import (
    AsyncEBSegClient,
    EBSegClient,
    FieldsRefusedError,
    InputError,
    KeyRefusedError,
    PictureRefusedError,
)
from ebseg_client.requests import Picture
from tests.service.fakes import PNG, FakeEngine, encoded, live, picture
from tests.waiting import WAIT

CLASSES = ["sky", "tree", "road"]


def test_many_pictures_some_at_a_time_in_order() -> None:
    taken = []

    def pictures() -> Iterator[Picture]:
        for width in range(2, 32):
            taken.append(width)
            yield encoded(picture(4, width)) if width != 20 else b"broken"

    with live(max_pending=4) as (address, _), EBSegClient(address, timeout=WAIT) as client:
        results = client.segment_many(pictures(), CLASSES, parallel=4)
        first = next(results)
        assert len(taken) <= 10  # pictures are taken as they are needed
        done = [first, *results]
    widths = [one.result.width if one.result else None for one in done]
    assert widths == [None if width == 20 else width for width in range(2, 32)]
    assert isinstance(done[18].error, PictureRefusedError)
    with pytest.raises(PictureRefusedError):
        done[18].get()
    assert done[0].get() is done[0].result


def test_stopping_early_begins_nothing_more() -> None:
    engine = FakeEngine()
    with live(engine) as (address, _), EBSegClient(address) as client:
        results = client.segment_many(itertools.repeat(PNG, 1000), CLASSES, parallel=2)
        next(results)
        results.close()
    assert 1 <= sum(engine.batches) <= 8


@pytest.mark.anyio
async def test_async_client_gives_the_same(url: str, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(PNG)
    with EBSegClient(url, timeout=WAIT) as client:
        reference = client.segment(PNG, CLASSES, background=0.5)
    async with AsyncEBSegClient(url, timeout=WAIT) as other:
        answer = await other.segment(tmp_path / "p.png", CLASSES, background=0.5)
        assert (answer.labels == reference.labels).all()
        assert answer.classes == reference.classes
        with pytest.raises(FieldsRefusedError):
            await other.segment(PNG, ["sky", "sky"])
        with pytest.raises(InputError):
            await other.segment("nowhere.jpg", CLASSES)
        stored = await other.put_vocabulary("async", ["sky"])
        assert await other.vocabulary("async") == stored
        assert "async" in {entry.name for entry in await other.vocabularies()}
        await other.delete_vocabulary("async")
        (model,) = await other.models()
        assert await other.model("fake") == model
        for change in (other.pin("fake", 1), other.unpin("fake"), other.rollback("fake")):
            with pytest.raises(KeyRefusedError):
                await change
        with pytest.raises(KeyRefusedError):
            await other.reload("fake")
        assert (await other.health()).ready


@pytest.mark.anyio
async def test_async_many_in_order_and_closed_early() -> None:
    engine = FakeEngine(seconds=0.01)
    images = [encoded(picture(4, width)) for width in range(2, 22)]
    with live(engine, max_pending=8) as (address, _):
        async with AsyncEBSegClient(address, timeout=WAIT) as client:
            widths = [one.get().width async for one in client.segment_many(images, CLASSES, parallel=8)]
            assert widths == list(range(2, 22))
            before = sum(engine.batches)
            many = client.segment_many(itertools.repeat(PNG, 1000), CLASSES, parallel=2)
            async with aclosing(many) as results:
                async for one in results:
                    assert one.error is None
                    break
            with pytest.raises(InputError):
                await anext(client.segment_many(images, CLASSES, parallel=0))
    assert sum(engine.batches) - before <= 8
