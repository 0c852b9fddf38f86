"""Memory that runs out is no fault of a picture: 503, and all that was reserved is given back."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from service.errors import PictureMemoryError
from service.scheduling.engine import PreparedPicture
from service.scheduling.host_memory import decoding_bytes
from service.segmentation import pipeline
from service.segmentation.decode import decode, from_pillow
from tests.service.fakes import PNG, FakeEngine, encoded, picture, post, problem, running

SHORTAGES = [
    MemoryError(),
    OSError("out of memory when reading image file"),  # as Pillow's decoders in C have it
]


@pytest.mark.parametrize("shortage", SHORTAGES)
@pytest.mark.parametrize("place", ["load", "convert", "getexif"])
def test_memory_that_runs_out_while_decoding(
    monkeypatch: pytest.MonkeyPatch, shortage: Exception, place: str
) -> None:
    def fails(*given: Any, **options: Any) -> None:
        raise shortage

    opened = Image.open(io.BytesIO(PNG))
    opened.load()
    monkeypatch.setattr(ImageFile.ImageFile if place == "load" else Image.Image, place, fails)
    with pytest.raises(PictureMemoryError):
        decode(PNG, max_pixels=100)
    if place != "load":
        with pytest.raises(PictureMemoryError):
            from_pillow(opened, max_pixels=100)


def no_room(*given: Any, **options: Any) -> Any:
    raise MemoryError


def no_room_by_opencv(*given: Any, **options: Any) -> Any:
    raise cv2.error("OpenCV(4.13.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes")


def no_room_by_torch(*given: Any, **options: Any) -> Any:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


@pytest.mark.anyio
@pytest.mark.parametrize("fails", [no_room, no_room_by_opencv, no_room_by_torch])
@pytest.mark.parametrize("place", ["decode", "prepare", "resized", "encode_answer", "read"])
async def test_memory_that_runs_out_anywhere(monkeypatch: pytest.MonkeyPatch, place: str, fails: Any) -> None:
    engine = FakeEngine()
    document = {"classes": ["sky"], "outputs": ["overlay"]}
    async with running(engine) as (client, service):
        with monkeypatch.context() as patched:
            if place == "prepare":
                patched.setattr(engine, "prepare", fails)
            elif place == "read":
                patched.setattr("service.http.parsed_request._from_form", no_room)
            else:
                patched.setattr(pipeline, place, fails)
            short = await post(client, document)
        assert problem(short, 503)["type"] == "urn:ebseg:problem:out-of-memory"
        assert int(short.headers["retry-after"]) >= 1
        assert service.memory.reserved == 0
        assert service.admission.pending == 0
        assert (await post(client, document)).status_code == 200


@pytest.mark.anyio
async def test_what_decoding_needs_is_held_until_the_picture_is_prepared() -> None:
    held = []

    class Watched(FakeEngine):
        def prepare(self, picture: NDArray[np.uint8]) -> PreparedPicture:
            held.append(service.memory.reserved)
            return super().prepare(picture)

    async with running(Watched()) as (client, service):
        image = encoded(picture(300, 400))
        small = {"classes": ["sky"], "output_size": {"long_side": 8}}
        assert (await post(client, small, image=image)).status_code == 200
    assert held[0] >= decoding_bytes(300 * 400)
