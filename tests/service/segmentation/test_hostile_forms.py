"""Label maps that make answers large: what cannot be held is refused, and time is bounded by the deadline."""

import time

import numpy as np
import pytest

from service.errors import InvalidRequestError
from service.segmentation.polygons import polygons
from tests.service.fakes import FakeEngine, encoded, fields, post, problem, running
from tests.waiting import until

ALL = ["rle", "png", "polygons", "npy", "regions", "coco", "panoptic", "geojson", "confidence", "overlay"]
ONE = ["cutout", "soft_mask"]


def noise(side: int) -> bytes:
    pixels = np.full((side, side, 3), 200, np.uint8)
    pixels[..., 0] = np.random.default_rng(1).integers(0, 256, (side, side))
    return encoded(pixels, compress_level=1)


@pytest.mark.anyio
async def test_outlines_of_noise_are_refused_before_they_are_made() -> None:
    document = {"classes": ["a", "b", "c"], "outputs": [*ALL, "cutout"], "subject": "b"}
    async with running(FakeEngine()) as (client, service):
        image = noise(1000)
        answer = await post(client, document, image=image)
        assert "corners, too many for polygons" in fields(problem(answer, 422))["outputs"]
        assert service.memory.reserved == 0
        document["outputs"] = [name for name in document["outputs"] if name not in ("polygons", "geojson")]
        assert (await post(client, document, image=image)).status_code == 200


@pytest.mark.anyio
async def test_all_forms_end_at_the_deadline() -> None:
    document = {"classes": ["a", "b"], "outputs": [*ALL, *ONE], "subject": "b", "timeout_ms": 400}
    async with running(FakeEngine()) as (client, service):
        pixels = np.full((3000, 3600, 3), 200, np.uint8)
        pixels[::7, ::5, 0] = 0
        began = time.monotonic()
        answer = await post(client, document, image=encoded(pixels, compress_level=1))
        problem(answer, 504)
        assert time.monotonic() - began < 15
        await until(lambda: service.memory.reserved == 0)  # and the thread that worked for it has ended


@pytest.mark.anyio
async def test_what_is_more_than_there_is_memory_for_is_refused_by_the_header() -> None:
    document = {"classes": ["a", "b"], "outputs": [*ALL, *ONE], "subject": "b"}
    engine = FakeEngine()
    async with running(engine, max_host_bytes=200 << 20) as (client, _):
        image = encoded(np.zeros((2000, 2000, 3), np.uint8))
        problem(await post(client, document, image=image), 413)
        assert engine.batches == []


def test_corners_are_counted_against_the_label_map() -> None:
    few = np.kron(np.indices((200, 200)).sum(0) % 2 + 1, np.ones((8, 8), int)).astype(np.uint16)
    assert sum(len(one) for one in polygons(few, 2)) == 2  # squares that touch at their corners
    with pytest.raises(InvalidRequestError):
        polygons((np.indices((1000, 1000)).sum(0) % 2 + 1).astype(np.uint16), 2)
