"""The short list of padded shapes: what it costs, how it fills batches, and that company changes nothing."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.errors import PictureError
from model.network.config import VARIANTS
from model.network.pictures import STRIDE, padded_size
from model.segmenter import Segmenter
from model.transforms import network_size
from service.scheduling.padded_shapes import MOST_PADDING, few_shapes, listed
from service.scheduling.torch_engine import TorchEngine, load_engine
from service.settings import SettingsError
from tests.pretended import pretended_device
from tests.service.scheduling.scheduler_fakes import (
    NumberEngine,
    held,
    job,
    prepared,
    running,
    settled,
    submitted,
)
from tests.service.scheduling.test_engine_device import picture

BASE = VARIANTS["base"]
# Long and short sides, pixels, as cameras, phones, screens and public data sets have them
USUAL_SIZES = [
    *[
        (4032, 3024),
        (4000, 3000),
        (4608, 3456),
        (3264, 2448),
        (1600, 1200),
        (1024, 768),
        (800, 600),
        (640, 480),
    ],
    *[(6000, 4000), (5472, 3648), (4896, 3264), (3888, 2592), (5184, 3456), (6720, 4480), (1200, 800)],
    *[(1920, 1080), (3840, 2160), (1280, 720), (640, 360), (4000, 2250), (2560, 1440)],
    *[(1080, 1080), (2048, 2048), (640, 640), (1350, 1080), (1440, 1080), (2340, 1080), (2048, 1365)],
    *[(640, 427), (640, 426), (640, 425), (640, 428), (640, 424), (612, 612), (640, 512), (500, 375)],
    *[(500, 333), (500, 334), (683, 512), (768, 512), (2048, 1024), (480, 360), (1024, 683), (1000, 667)],
]


def pixels(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def shapes_of(size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """A picture's own padded shape, and the listed one, for EBSeg-base."""
    resized = network_size(size, BASE.short_side, BASE.long_side)
    return padded_size(resized), listed(resized, few_shapes(BASE.short_side))


def test_the_list() -> None:
    assert few_shapes(640) == [(640, 640), (640, 960), (960, 640), (640, 1280), (1280, 640)]
    assert few_shapes(192) == [(192, 192), (192, 288), (288, 192), (192, 384), (384, 192)]
    assert all(side % STRIDE == 0 for shape in few_shapes(500) for side in shape)


def test_padding_of_usual_sizes() -> None:
    """At most 15 % of the arithmetic, and nothing for squares and 3:2."""
    both = [size for long, short in USUAL_SIZES for size in ((long, short), (short, long))]
    found = [shapes_of(size) for size in both]
    padding = sum(pixels(ours) for _, ours in found) / sum(pixels(own) for own, _ in found) - 1
    assert padding <= 0.15
    assert round(padding, 3) == pytest.approx(0.08, abs=0.02)
    assert all(own == ours for size in ((640, 640), (4000, 6000)) for own, ours in [shapes_of(size)])


def test_every_picture_fits_its_shape() -> None:
    random.seed(0)
    for _ in range(2000):
        own, ours = shapes_of((random.randint(1, 6000), random.randint(1, 6000)))
        assert ours[0] >= own[0]
        assert ours[1] >= own[1]
        assert pixels(own) <= pixels(ours) <= MOST_PADDING * pixels(own)
        assert ours == own or ours in few_shapes(BASE.short_side)


def test_pictures_that_are_far_from_all_listed_ones_keep_their_own_shape() -> None:
    for size in ((500, 5000), (300, 900), (5000, 500)):
        own, ours = shapes_of(size)
        assert own == ours
        assert ours not in few_shapes(BASE.short_side)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(5))
async def test_sixty_four_pictures_make_twelve_batches(seed: int) -> None:
    """Of any sizes whose sides are no further apart than 2:1, waiting together."""
    chance = random.Random(seed)
    sizes: list[tuple[int, int]] = []
    while len(sizes) < 64:
        size = (chance.randint(200, 3000), chance.randint(200, 3000))
        if max(size) <= 2 * min(size):
            sizes.append(size)
    assert len({network_size(size, BASE.short_side, BASE.long_side) for size in sizes}) > 55
    engine = NumberEngine()
    engine.batch = 8
    async with running() as device:
        async with held(device):
            tasks = await submitted(
                device,
                *(
                    job(engine, number, prepared=prepared(number, shapes_of(size)[1]))
                    for number, size in enumerate(sizes)
                ),
            )
        await settled(tasks)
    assert len(engine.batches) <= 12
    assert sorted(number for batch in engine.batches for number in batch) == list(range(64))


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretended_device() as found:
        yield found


def test_company_changes_nothing_and_labels_come_out_at_the_pictures_own_size(
    tiny_checkpoint: Path, device: torch.device
) -> None:
    loaded = load_engine(tiny_checkpoint, golden=False)
    shapes = [(192, 288)]
    for place, closeness in ((None, 0.0), (device, 2e-5)):
        segmenter = Segmenter(loaded.segmenter.ebseg, short_side=None)
        if place is not None:
            segmenter.ebseg.to(place)
        engine = TorchEngine(segmenter, loaded.info, "digest", shapes)
        assert engine.cost((180, 230)) == 192 * 288
        sizes = [(180, 230), (192, 288), (170, 250)]
        ready = [engine.prepare(picture(size, seed)) for seed, size in enumerate(sizes)]
        assert {one.shape for one in ready} == {(192, 288)}
        assert {one.cost for one in ready} == {192 * 288}
        together = engine.predict(ready)
        for size, one, own in zip(sizes, ready, together, strict=True):
            (alone,) = engine.predict([one])
            assert own.masks.image_size == size
            assert own.masks.mask_logits.shape[-2:] == (48, 72)
            for name, tensor in own.masks.tensors().items():
                other = alone.masks.tensors()[name]
                assert (tensor - other).abs().max().item() <= closeness * other.abs().max().item(), name


def test_what_cannot_be_padded(tiny_checkpoint: Path) -> None:
    ebseg = load_engine(tiny_checkpoint, golden=False).segmenter.ebseg
    one = torch.zeros(3, 40, 70, dtype=torch.uint8)
    for shape in ((32, 96), (64, 64), (64, 100)):
        with pytest.raises(PictureError, match="cannot be padded to"):
            ebseg.predict_each([one], shape)


def test_a_cpu_refuses_it(tiny_checkpoint: Path) -> None:
    with pytest.raises(SettingsError, match="padding: few is of use on a GPU"):
        load_engine(tiny_checkpoint, padding="few")
