"""Frames of animations and pages of documents, through every way that pictures come in by."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from ebseg_client import EBSegClient, FieldsRefusedError
from service.batch.segmenter import BatchSegmenter
from service.errors import InvalidRequestError, TooManyPixelsError
from service.segmentation.decode import decode
from tests.service.cli_calls import run
from tests.service.fakes import fields, live, post, problem, running

MOST = 10_000
COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
FORMS = ("GIF", "PNG", "WEBP", "TIFF", "HEIC")


def frames(form: str, *sizes: tuple[int, int]) -> bytes:
    """A file of a red, a green and a blue frame."""
    images = [
        Image.new("RGB", size, color) for size, color in zip(sizes or 3 * [(24, 16)], COLORS, strict=False)
    ]
    stream = io.BytesIO()
    if form == "HEIC":
        file = pillow_heif.from_pillow(images[0])
        for image in images[1:]:
            file.add_from_pillow(image)
        file.save(stream, quality=-1, chroma=444, save_all=True, primary_index=1)
    else:
        more: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
        images[0].save(stream, form, save_all=True, append_images=images[1:], **more)
    return stream.getvalue()


def color_of(data: bytes, frame: int | None, most: int = MOST) -> tuple[int, ...]:
    picture = decode(data, max_pixels=most, frame=frame)
    assert np.ptp(picture.reshape(-1, 3).astype(int), axis=0).max() <= 2
    return tuple(int(round(value / 255) * 255) for value in picture[0, 0])


@pytest.mark.parametrize("form", FORMS)
def test_each_frame_is_found(form: str) -> None:
    data = frames(form)
    assert [color_of(data, frame) for frame in (2, 0, 1)] == [COLORS[2], COLORS[0], COLORS[1]]
    assert color_of(data, None) == COLORS[form == "HEIC"]
    for missing in (3, 9999):
        with pytest.raises(InvalidRequestError) as seen:
            decode(data, max_pixels=MOST, frame=missing)
        assert f"no frame {missing}" in seen.value.fields[0].message


@pytest.mark.parametrize("form", ["JPEG", "BMP", "AVIF"])
def test_a_single_picture_has_frame_0(form: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), COLORS[0]).save(stream, form)
    assert decode(stream.getvalue(), max_pixels=MOST, frame=0).shape == (16, 24, 3)
    with pytest.raises(InvalidRequestError):
        decode(stream.getvalue(), max_pixels=MOST, frame=1)


def test_every_page_has_the_limit_of_a_picture() -> None:
    pages = frames("TIFF", (24, 16), (240, 160), (48, 32))
    assert decode(pages, max_pixels=MOST, frame=2).shape == (32, 48, 3)
    seen: list[tuple[int, int]] = []
    with pytest.raises(TooManyPixelsError):
        decode(pages, max_pixels=MOST, frame=1, accept=seen.append)
    assert seen == []
    assert decode(pages, max_pixels=38_400, frame=1, accept=seen.append).shape == (160, 240, 3)
    assert seen == [(160, 240)]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_frames_whose_way_is_too_long_are_refused_at_once(form: str) -> None:
    data = frames(form, *3 * [(1000, 1000)])
    assert decode(data, max_pixels=1_000_000, frame=2).shape == (1000, 1000, 3)
    with pytest.raises(InvalidRequestError) as seen:
        decode(data, max_pixels=1_000_000, frame=201)
    assert "too far away" in seen.value.fields[0].message


@pytest.mark.anyio
async def test_the_service_and_its_cache_tell_frames_apart() -> None:
    data = frames("GIF")
    async with running(prediction_cache_bytes=1 << 20) as (client, _):
        request = {"classes": ["a", "b", "c"]}
        label: dict[Any, list[int]] = {}
        caches = []
        for frame in (None, 0, 1, None, 1):
            answer = await post(client, request | ({} if frame is None else {"frame": frame}), image=data)
            assert answer.status_code == 200, answer.text
            areas = [one["area"] for one in answer.json()["classes"]]
            assert label.setdefault(frame, areas) == areas
            caches.append(answer.json()["caches"]["prediction"])
        assert label[None] == label[0] != label[1]  # the fake engine's classes are by red
        assert caches == ["miss", "miss", "miss", "hit", "hit"]
        form = await client.post(
            "/v1/segment", files={"image": data}, data={"classes": "a,b,c", "frame": "1"}
        )
        raw = await client.post(
            "/v1/segment?classes=a,b,c&frame=1", content=data, headers={"Content-Type": "image/gif"}
        )
        for answer in (form, raw):
            assert [one["area"] for one in answer.json()["classes"]] == label[1]
        far = problem(await post(client, request | {"frame": 3}, image=data), 422)
        assert fields(far) == {"frame": "the image has no frame 3; they count from 0"}
        for wrong in (-1, 10_000, "first", 1.5):
            assert set(fields(problem(await post(client, request | {"frame": wrong}), 422))) == {"frame"}


def test_client_and_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pages.tif"
    file.write_bytes(frames("TIFF", (24, 16), (48, 32)))
    common = ("segment", file, "--classes", "sky, tree", "--json", "--frame")
    with live() as (url, _):
        with EBSegClient(url) as client:
            assert client.segment(file, ["sky"]).width == 24
            assert client.segment(file, ["sky"], frame=1).width == 48
            with pytest.raises(FieldsRefusedError, match="no frame 2"):
                client.segment(file, ["sky"], frame=2)
        over = tmp_path / "over.png"
        assert run(*common, "1", "--url", url, "--overlay", over) == 0
        assert json.loads(capsys.readouterr().out)["size"] == {"width": 48, "height": 32}
        with Image.open(over) as image:
            assert image.size == (48, 32)
    assert run(*common, "1", "--device", "cpu") == 0
    assert json.loads(capsys.readouterr().out)["size"] == {"width": 48, "height": 32}
    assert run(*common, "2", "--device", "cpu") == 2
    assert "no frame 2" in capsys.readouterr().err
    (row,) = BatchSegmenter(request={"classes": ["sky"], "frame": 1}, device="cpu")([{"path": str(file)}])
    assert (row["error"], row["width"], row["height"]) == (None, 48, 32)
