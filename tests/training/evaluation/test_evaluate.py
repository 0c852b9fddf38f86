"""Scores of a micro model, against the segmenter and torchmetrics; in one process and in several."""

import dataclasses
import json
import logging
import math
import multiprocessing
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from model import Balance, EBSeg, LabelMap, MaskPredictions, Segmenter, TrainingClasses, Vocabulary
from model.network.build import build
from model.storage.checkpoint import LoadedCheckpoint, Provenance, load, save
from model.vocabulary.classes import ClassName
from tests.model.conftest import rough
from tests.training.run.runs import CLASSES, micro_config, scene, write_dataset
from training.data.layout import SegmentationFolder
from training.data.writing import write_classes, write_sample
from training.errors import DatasetError, TrainingError
from training.evaluation import confusion_counts as counting
from training.evaluation.confusion_counts import Options
from training.evaluation.evaluate import CONTACT_SHEET, Evaluation, count_plan, evaluate, evaluate_checkpoint
from training.evaluation.metrics import Confusion
from training.evaluation.tally import Tally
from training.progress import progress

PICTURES = 5
SILENT = Options(shown=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SegmentationFolder:
    return SegmentationFolder(write_dataset(tmp_path_factory.mktemp("data"), pictures=PICTURES), "val")


@pytest.fixture(scope="module")
def ebseg() -> EBSeg:
    """Random, with names far enough apart that it finds several classes."""
    made = rough(build(micro_config(), TrainingClasses.of(CLASSES[:3]), seed=1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        made.clip_text.token_embedding.weight.mul_(10)
        projection = made.clip_text.text_projection
        projection.copy_(torch.randn(projection.shape, generator=generator))
    return made


@pytest.fixture(scope="module")
def loaded(ebseg: EBSeg, tmp_path_factory: pytest.TempPathFactory) -> LoadedCheckpoint:
    place = tmp_path_factory.mktemp("registry") / "micro" / "1"
    save(ebseg, place, Provenance(name="micro", version=1, untrained=False))
    return load(place)


def example(counts: list[list[int]], trained: tuple[bool, ...]) -> Evaluation:
    tally = Tally(len(counts), 2)
    tally.confusion.merge(Confusion.of(np.array(counts, np.int64)))
    tally.bands[:] = [[1], [2]]
    return Evaluation(
        tally=tally,
        names=("sky", "sea", "sand")[: len(trained)],
        trained=trained,
        pictures=2,
        data="beach",
        split="val",
    )


# --- one process


def test_scores_are_those_of_the_segmenter(ebseg: EBSeg, folder: SegmentationFolder) -> None:
    found = evaluate(ebseg, folder, shown=False)
    segmenter = Segmenter(ebseg)
    vocabulary = Vocabulary.of(CLASSES, trained=[True, True, True, False])
    jaccard = MulticlassJaccardIndex(4, average="none", ignore_index=-1)
    predicted = set()
    for sample in folder:
        labels = segmenter.segment(sample.picture, vocabulary).labels.astype(int) - 1
        predicted |= set(np.unique(labels).tolist())
        jaccard.update(torch.from_numpy(labels), torch.from_numpy(sample.labels))
    each = [100 * value for value in jaccard.compute().tolist()]
    assert len(predicted) > 1
    assert all(found.confusion.present)
    assert found.pictures == PICTURES
    assert found.trained == (True, True, True, False)
    assert found.miou_all == pytest.approx(np.mean(each), abs=1e-3)
    assert found.miou_trained == pytest.approx(np.mean(each[:3]), abs=1e-3)
    assert found.miou_new == pytest.approx(each[3], abs=1e-3)


def test_the_model_says_what_it_was_trained_on(folder: SegmentationFolder) -> None:
    """Not the folder, which calls red, green and blue fit for training: of ADE20K, COCO-Stuff is some."""
    other = build(micro_config(), TrainingClasses.of(["Red", "yellow", "purple"]), seed=0)
    vocabulary = count_plan(other, folder, (None,)).vocabulary
    assert vocabulary.names == list(CLASSES)
    assert [item.trained for item in vocabulary.classes] == [True, False, False, True]


class Spy(Segmenter):
    """Remembers what label maps are made with."""

    seen: ClassVar[list[tuple[object, ...]]] = []

    def label_map(self, predictions: MaskPredictions, vocabulary: Vocabulary, **options: Any) -> LabelMap:
        size = predictions.image_size
        self.seen.append((self.short_side, self.long_side, size, options["output_size"], options["balance"]))
        return super().label_map(predictions, vocabulary, **options)


def test_balance_limit_and_sides_are_used(
    ebseg: EBSeg, folder: SegmentationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "Segmenter", Spy)
    other = Balance.arithmetic()
    evaluate(ebseg, folder, limit=1, shown=False)
    evaluate(ebseg, folder, limit=2, short_side=96, balance=other, shown=False)
    evaluate(ebseg, folder, limit=1, short_side=128, long_side=100, shown=False)
    evaluate(ebseg, folder, limit=1, short_side=None, shown=False)
    assert Spy.seen == [
        (64, 256, (64, 64), (64, 64), None),
        (96, 256, (96, 96), (64, 64), other),
        (96, 256, (96, 96), (64, 64), other),
        (128, 100, (100, 100), (64, 64), None),
        (None, 256, (64, 64), (64, 64), None),
    ]


def test_a_limit_takes_the_first_pictures(ebseg: EBSeg, folder: SegmentationFolder) -> None:
    first = evaluate(ebseg, folder, limit=2, shown=False)
    assert first.pictures == 2
    assert first.confusion.counts.sum() == sum((folder[i].labels >= 0).sum() for i in range(2))
    assert evaluate(ebseg, folder, limit=99, shown=False).pictures == PICTURES


def test_batches_change_nothing(ebseg: EBSeg, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for number, side in enumerate((64, 96, 64, 64, 96)):
        write_sample(tmp_path, "val", str(number), *scene(rng, side))
    write_classes(tmp_path, [ClassName(name=name) for name in CLASSES], [True] * 4, 255, "sizes")
    folder = SegmentationFolder(tmp_path, "val")
    shapes: list[tuple[int, ...]] = []
    alone = evaluate(ebseg, folder, short_side=None, shown=False)
    predict = Segmenter.predict

    def seen(self: Segmenter, prepared: Sequence[torch.Tensor]) -> MaskPredictions:
        shapes.append((len(prepared), *prepared[0].shape))
        return predict(self, prepared)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Segmenter, "predict", seen)
        together = evaluate(ebseg, folder, short_side=None, batch=2, shown=False)
    assert shapes == [(2, 3, 64, 64), (2, 3, 96, 96), (1, 3, 64, 64)]
    assert together.to_json() == alone.to_json()
    mious = [miou for _, miou in alone.worst]
    assert len(mious) == 5
    assert mious == sorted(mious)


def test_the_models_mode_is_left_as_it_was(ebseg: EBSeg, folder: SegmentationFolder) -> None:
    for training in (True, False):
        ebseg.train(training)
        evaluate(ebseg, folder, limit=1, shown=False)
        assert ebseg.training is training


def test_pictures_are_left(ebseg: EBSeg, folder: SegmentationFolder, tmp_path: Path) -> None:
    evaluate(ebseg, folder, pictures=tmp_path / "shown", picture_count=2, shown=False)
    names = sorted(path.name for path in (tmp_path / "shown").iterdir())
    assert names == sorted([CONTACT_SHEET, "val0.png", "val1.png"])


def test_progress_is_told(
    ebseg: EBSeg, folder: SegmentationFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(ebseg, folder, limit=2)
    assert "evaluating: 2 of 2" in capsys.readouterr().err


def test_a_model_of_nan_is_refused(folder: SegmentationFolder) -> None:
    broken = build(micro_config(), TrainingClasses.of(CLASSES), seed=0)
    with torch.no_grad():
        broken.transformer_decoder.query_features.fill_(math.nan)
    with pytest.raises(TrainingError, match="of the image val0 hold NaN"):
        evaluate(broken, folder, shown=False)


def test_a_wrong_file_is_named(ebseg: EBSeg, folder: SegmentationFolder, tmp_path: Path) -> None:
    write_sample(tmp_path, "val", "odd", folder[0].picture, np.full((64, 64), 9))
    write_classes(tmp_path, folder.classes, folder.trained, 255, "")
    with pytest.raises(DatasetError, match=r"odd\.png holds labels 9"):
        evaluate(ebseg, SegmentationFolder(tmp_path, "val"), shown=False)


def test_what_cannot_be_meant() -> None:
    with pytest.raises(TrainingError, match="at least one image, got 0"):
        Options(limit=0)
    with pytest.raises(TrainingError, match="at least one image must be shown, got 0"):
        Options(pictures=Path("x"), picture_count=0)


# --- several processes


@pytest.fixture(scope="module")
def alone(loaded: LoadedCheckpoint, folder: SegmentationFolder) -> Evaluation:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return evaluate_checkpoint(loaded, folder, options=SILENT)
    finally:
        torch.set_num_threads(threads)


def test_processes_count_what_one_does(
    loaded: LoadedCheckpoint, folder: SegmentationFolder, alone: Evaluation, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        options = dataclasses.replace(SILENT, pictures=tmp_path, picture_count=3)
        found = evaluate_checkpoint(loaded, folder, processes=2, options=options)
    finally:
        torch.set_num_threads(threads)
    assert (found.confusion.counts == alone.confusion.counts).all()
    assert found.to_json() == alone.to_json()
    assert len(list(tmp_path.iterdir())) == 4
    assert not multiprocessing.active_children()


def test_a_dead_process_ends_the_evaluation(loaded: LoadedCheckpoint, folder: SegmentationFolder) -> None:
    def kill_one() -> None:
        while not multiprocessing.active_children():
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(TrainingError, match=r"process \d of the evaluation died; if memory ran out"):
        evaluate_checkpoint(loaded, folder, processes=2, options=SILENT)
    killer.join()
    assert not multiprocessing.active_children()


def test_a_processs_error_is_told(ebseg: EBSeg, folder: SegmentationFolder, tmp_path: Path) -> None:
    """The worker's side and the parent's, both in this process: another one takes seconds to start."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    what = count_plan(ebseg, folder, (None,), SILENT)
    try:
        counting._work(writer, tmp_path / "gone", what, 0, 1, torch.get_num_threads(), "cpu")
    finally:
        logging.disable(logging.NOTSET)
    with (
        progress("evaluating", total=PICTURES, shown=False) as bar,
        pytest.raises(TrainingError, match="gone is not a folder"),
    ):
        counting._collect({reader: 0}, what, bar)


def test_no_process_is_too_few(loaded: LoadedCheckpoint, folder: SegmentationFolder) -> None:
    with pytest.raises(TrainingError, match="at least one process is needed, got 0"):
        evaluate_checkpoint(loaded, folder, processes=0, options=SILENT)


# --- what is reported


def test_json_has_no_nan() -> None:
    """Class 1 is not in the truth and no class is new: None, where a number would be a lie."""
    found = example([[6, 2, 0], [0, 0, 0], [0, 0, 2]], (True, True, True))
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert values == {
        "miou_all": 87.5,
        "miou_trained": 87.5,
        "miou_new": None,
        "pixel_accuracy": 80.0,
        "mean_accuracy": 87.5,
        "fwiou": 80.0,
        "boundary_iou": 50.0,
        "pictures": 2,
        "data": "beach",
        "split": "val",
        "confused": [{"truth": "sky", "prediction": "sea", "pixels": 2, "percent": 25.0}],
        "worst": [],
        "classes": [
            {"name": "sky", "trained": True, "iou": 75.0, "boundary_iou": 50.0, "pixels": 8},
            {"name": "sea", "trained": True, "iou": None, "boundary_iou": None, "pixels": 0},
            {"name": "sand", "trained": True, "iou": 100.0, "boundary_iou": 50.0, "pixels": 2},
        ],
    }
    lists = {name: values[name] for name in ("classes", "confused", "worst")}
    assert values == found.summary() | lists


def test_table_lists_classes_and_means() -> None:
    lines = example([[3000, 1000], [0, 0]], (True, False)).table().splitlines()
    assert [line.split() for line in lines] == [
        ["class", "kind", "IoU", "pixels"],
        ["sky", "trained", "75.0", "4,000"],
        ["sea", "new", "-", "0"],
        [],
        ["mIoU,", "all", "classes", "75.0"],
        ["mIoU,", "trained", "75.0"],
        ["mIoU,", "new", "-"],
        ["pixel", "accuracy", "75.0"],
        ["mean", "accuracy", "75.0"],
        ["frequency", "weighted", "IoU", "75.0"],
        ["boundary", "IoU", "50.0"],
        ["images", "2"],
        [],
        ["taken", "for", "one", "another", "most:"],
        ["25.0", "%", "of", "sky", "taken", "for", "sea:", "1,000", "pixels"],
    ]
    columns = {line.index(value) + len(value) for line, value in ((lines[1], "75.0"), (lines[4], "75.0"))}
    assert len(columns) == 1


def test_a_folder_without_a_title_goes_by_its_name(
    ebseg: EBSeg, folder: SegmentationFolder, tmp_path: Path
) -> None:
    write_sample(tmp_path / "beach", "val", "a", folder[0].picture, folder[0].labels)
    write_classes(tmp_path / "beach", folder.classes, folder.trained, 255, "")
    assert evaluate(ebseg, SegmentationFolder(tmp_path / "beach", "val"), shown=False).data == "beach"
    assert evaluate(ebseg, folder, limit=1, shown=False).data == "micro"
