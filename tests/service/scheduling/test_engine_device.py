"""TorchEngine on the pretended accelerator: its waits, batches by padded shape, and a version's end."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model.errors import PictureError
from model.network.copies import copies_of
from model.segmenter import Segmenter
from model.vocabulary.classes import Vocabulary
from service.scheduling.classified import Prediction
from service.scheduling.deadline import Deadline
from service.scheduling.engine import Job, PreparedPicture
from service.scheduling.torch_engine import TorchEngine, load_engine
from tests.pretended import LateStreams, counted, pretended_device

VOCABULARY = Vocabulary.of(["sky", "tree"])
SIZES = [(190, 250), (192, 256), (180, 230)]  # all 192 x 256 when padded, as they are taken here


@pytest.fixture
def device() -> Iterator[torch.device]:
    with pretended_device() as found:
        yield found


def picture(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def on(folder: Path, device: torch.device | None) -> TorchEngine:
    engine = load_engine(folder, golden=False)
    segmenter = Segmenter(engine.segmenter.ebseg, short_side=None)
    if device is not None:
        segmenter.ebseg.to(device)
    return TorchEngine(segmenter, engine.info, "digest")


def job(engine: TorchEngine, *, scores: bool = False) -> Job:
    return Job(
        engines=(engine,),
        prepared=None,
        prediction=None,
        vocabulary=VOCABULARY,
        text=engine.embed(VOCABULARY.names, VOCABULARY.templates),
        output_size=(100, 130),
        threshold=0.0,
        balance=None,
        scores=scores,
        deadline=Deadline(60),
    )


def test_pictures_of_one_padded_shape_share_a_batch(tiny_checkpoint: Path, device: torch.device) -> None:
    """Each gets what it gets alone, on a CPU bit for bit."""
    for place, closeness in ((None, 0.0), (device, 2e-5)):
        engine = on(tiny_checkpoint, place)
        prepared = [engine.prepare(picture(size, seed)) for seed, size in enumerate(SIZES)]
        assert {one.shape for one in prepared} == {(192, 256)}
        together = engine.predict(prepared)
        for size, one, own in zip(SIZES, prepared, together, strict=True):
            (alone,) = engine.predict([one])
            assert own.masks.image_size == alone.masks.image_size == size
            for name, tensor in own.masks.tensors().items():
                other = alone.masks.tensors()[name]
                assert (tensor - other).abs().max().item() <= closeness * other.abs().max().item(), name
    with pytest.raises(PictureError, match="one padded shape"):
        engine.predict([prepared[0], engine.prepare(picture((193, 250), 0))])


def test_waits_of_a_batch(tiny_checkpoint: Path, device: torch.device) -> None:
    """One after predict, that errors and seconds be its own; one for a label map, one for all scores."""
    plain, engine = on(tiny_checkpoint, None), on(tiny_checkpoint, device)
    prepared = [engine.prepare(picture(size, seed)) for seed, size in enumerate(SIZES)]
    wanted = [plain.classify(one, job(plain, scores=True)) for one in plain.predict(prepared)]
    own = job(engine, scores=True)
    with counted() as counts:
        predictions = engine.predict(prepared)
    assert len(counts.waits) == 1, counts
    with counted() as counts:
        hosted = [engine.to_host(one) for one in predictions]
    assert len(counts.waits) == len(SIZES), counts
    assert {one.masks.device for one in hosted} == {torch.device("cpu")}
    with counted() as counts:
        found = [engine.classify(one, own) for one in predictions]
    assert len(counts.waits) == 2 * len(SIZES), counts
    with counted() as counts:
        from_host = [engine.classify(one, own) for one in hosted]  # as the prediction cache has them
    assert len(counts.waits) == 2 * len(SIZES), counts
    assert engine.classified_at_once > 1
    with counted() as counts:
        at_once = engine.classify_each(hosted, [replace(own, scores=False)] * len(SIZES))
    assert len(counts.waits) == 1, counts
    for a, b in zip(found, at_once, strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.confidence, b.confidence)
    for a, b, c in zip(found, from_host, wanted, strict=True):
        assert np.array_equal(a.labels, b.labels)
        assert (a.labels == c.labels).mean() >= 0.999
        assert a.scores is not None
        assert c.scores is not None
        assert np.abs(a.scores.astype(float) - c.scores.astype(float)).max() <= 2e-3 * c.scores.max()


def test_names_are_embedded_with_one_wait(tiny_checkpoint: Path, device: torch.device) -> None:
    engine = on(tiny_checkpoint, device)
    with counted() as counts:
        means = engine.embed(["sky", "a tree"], ["a {}.", "{}"])
    assert len(counts.waits) == 1
    wanted = on(tiny_checkpoint, None).embed(["sky", "a tree"], ["a {}.", "{}"])
    assert (means - wanted).abs().max() <= 1e-5


def test_warm_up_finds_a_batch_and_another_version_takes_over(
    tiny_checkpoint: Path, device: torch.device
) -> None:
    first = on(tiny_checkpoint, device)
    steps = [one.step for one in first.warm((64, 96))]
    assert steps == ["predict", "embed", "embed", "classify"]
    assert first.batch >= 1
    prediction = first.predict([first.prepare(picture((64, 96), 0))])[0]
    second = on(tiny_checkpoint, device)
    second.warm((64, 96))
    first.close()
    assert isinstance(prediction, Prediction)
    again = second.predict([second.prepare(picture((64, 96), 0))])[0]
    assert torch.equal(again.masks.frozen.cpu(), prediction.masks.frozen.cpu())


class DeviceClock:
    """Time that goes on by what batches are said to take."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "most", "best"),
    [
        (lambda size: max(1.0, size / 8), 64, 8),  # as long alone as eight together
        (lambda size: size, 64, 1),  # one after the other
        (lambda size: 0.96 * size if size > 1 else 1.0, 64, 1),  # 4 % are not worth a wait
        (lambda size: 1 + 0.1 * size, 64, 64),  # the largest that is tried
        (lambda size: 1 + 0.1 * size, 16, 16),  # and the largest that the memory takes
    ],
)
def test_the_warm_up_chooses_the_batch_that_the_device_makes_best(
    tiny_checkpoint: Path,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    seconds: Callable[[int], float],
    most: int,
    best: int,
) -> None:
    engine, clock, tried = on(tiny_checkpoint, device), DeviceClock(), []
    monkeypatch.setattr("service.scheduling.torch_engine.time", clock)
    own = engine.predict

    def predict(prepared: Sequence[PreparedPicture]) -> list[Prediction]:
        if len(prepared) > most:
            raise torch.OutOfMemoryError
        tried.append(len(prepared))
        clock.now += seconds(len(prepared))
        return own(prepared[:1]) * len(prepared)

    monkeypatch.setattr(engine, "predict", predict)
    measured = engine.warm((64, 96))
    assert engine.batch == best
    assert max(tried) == most  # all that may be worth it were tried
    assert [one.seconds for one in measured if one.step == "predict"] == [pytest.approx(seconds(1))]
    engine.warm((96, 64))
    assert engine.batch == best  # other shapes change nothing


def early(folder: Path, device: torch.device) -> TorchEngine:
    """An engine whose pictures come to the device as soon as they are prepared."""
    loaded = load_engine(folder, golden=False)
    segmenter = Segmenter(loaded.segmenter.ebseg.to(device), short_side=None)
    return TorchEngine(segmenter, loaded.info, "digest", early=True)


def test_a_batch_is_uploaded_while_another_one_runs(tiny_checkpoint: Path, device: torch.device) -> None:
    """By the threads that prepare it: predict copies nothing, and neither side waits for the other."""
    late, engine = on(tiny_checkpoint, device), early(tiny_checkpoint, device)
    wanted = late.predict([late.prepare(picture(size, seed)) for seed, size in enumerate(SIZES)])
    running = copies_of(device).download([wanted[0].masks.frozen])  # has not ended
    with counted() as counts:
        with ThreadPoolExecutor(3) as pool:
            ready = list(pool.map(engine.prepare, [picture(size, s) for s, size in enumerate(SIZES)]))
        assert {one.pixels.device for one in ready} == {device}
        masks = engine.segmenter.predict_each([one.pixels for one in ready], ready[0].shape)
    assert counts.waits == []
    running.wait()
    for own, other in zip(masks, wanted, strict=True):
        assert own.image_size == other.masks.image_size
        assert torch.equal(own.mask_logits.cpu(), other.masks.mask_logits.cpu())


def test_a_picture_that_is_read_before_it_has_arrived_would_be_seen(
    tiny_checkpoint: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = early(tiny_checkpoint, device)
    shown = picture(SIZES[0], 0)
    (sound,) = engine.predict([engine.prepare(shown)])
    monkeypatch.setattr(LateStreams, "compute_after", lambda self, mark: None)
    (hasty,) = engine.predict([engine.prepare(shown)])
    assert not torch.equal(sound.masks.frozen.cpu(), hasty.masks.frozen.cpu())
