"""Storybook on disk: the same files from the same seed, whatever draws them, and nothing half made."""

import argparse
import json
import multiprocessing
import shutil
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.commands import storybook
from training.data.layout import SegmentationFolder, check
from training.data.present import CLASSES_FILE
from training.data.writing import write_sample
from training.errors import DatasetError
from training.storybook import generate as module
from training.storybook.classes import CLASSES, NEW, TRAINED
from training.storybook.generate import HEIGHT, HELD_OUT, TRAIN, WIDTH, generate, scene_of
from training.storybook.scene import draw

SEED = 3


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws in this process, which has its sheets of texture already."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=ThreadPool))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 training scenes, which are two chunks, and 6 held-out ones."""
    root = tmp_path_factory.mktemp("book") / "storybook"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=ThreadPool))
        generate(root, train=18, held_out=6, seed=SEED, jobs=1)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_it_is_a_data_set_of_two_splits(book: Path) -> None:
    train, held_out = SegmentationFolder(book, TRAIN), SegmentationFolder(book, HELD_OUT)
    assert (len(train), len(held_out)) == (18, 6)
    for folder in (train, held_out):
        check(folder, progress=False)
        assert [item.name for item in folder.classes] == list(CLASSES)
        assert [name for name, trained in zip(CLASSES, folder.trained, strict=True) if trained] == list(
            TRAINED
        )
        assert folder.title == f"Storybook, seed {SEED}"
    assert {path.name for path in book.iterdir()} == {"images", "labels", "captions", CLASSES_FILE}


def test_samples_are_the_scenes(book: Path) -> None:
    for split, index in ((TRAIN, 17), (HELD_OUT, 0)):
        rng, kind, allowed = scene_of(SEED, split, index)
        scene = draw(rng, kind, height=HEIGHT, width=WIDTH, allowed=allowed)
        sample = SegmentationFolder(book, split)[index]
        assert sample.name == f"{index:06d}"
        assert (sample.labels == scene.labels).all()
        error = np.abs(sample.picture.astype(float) - scene.picture)
        assert error.mean() < 6  # JPEG
        lines = (book / "captions" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(lines[index]) == {"name": sample.name, "caption": scene.caption}


def test_the_training_split_shows_no_new_class(book: Path) -> None:
    new = [CLASSES.index(name) for name in NEW]
    shown = {
        split: np.unique(np.stack([x.labels for x in SegmentationFolder(book, split)]))
        for split in (TRAIN, HELD_OUT)
    }
    assert not np.isin(shown[TRAIN], new).any()
    assert np.isin(shown[HELD_OUT], new).sum() >= 3
    lines = [json.loads(x) for x in (book / "captions" / "train.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == SegmentationFolder(book, TRAIN).names
    assert all(line["caption"] for line in lines)


def test_other_processes_draw_the_same_files(book: Path, tmp_path: Path) -> None:
    """A spawned process shares nothing with this one; fewer scenes are the first of many."""
    generate(tmp_path / "again", train=3, held_out=0, seed=SEED, jobs=1)
    before, again = files(book), files(tmp_path / "again")
    lines = before["captions/train.jsonl"].splitlines(keepends=True)
    assert again.pop("captions/train.jsonl") == b"".join(lines[:3])
    assert len(again) == 7
    assert again == {name: before[name] for name in again}


@pytest.mark.usefixtures("threads")
def test_several_jobs_draw_the_same_files_and_another_seed_others(book: Path, tmp_path: Path) -> None:
    generate(tmp_path / "jobs", train=18, held_out=1, seed=SEED, jobs=2)
    before, jobs = files(book), files(tmp_path / "jobs")
    train = [name for name in before if "train" in name]
    assert len(train) == 37
    assert {name: jobs[name] for name in train} == {name: before[name] for name in train}
    generate(tmp_path / "seed", train=2, held_out=1, seed=SEED + 1, jobs=1)
    pictures = {name: data for name, data in files(tmp_path / "seed").items() if name.startswith("images")}
    assert len(pictures) == 3
    assert not set(pictures.values()) & set(before.values())


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is not empty; give a new folder"):
        generate(tmp_path, train=1, held_out=0, seed=0)
    with pytest.raises(DatasetError, match="thesis"):
        generate(tmp_path / "thesis.txt", train=1, held_out=0, seed=0)
    assert files(tmp_path) == {"thesis.txt": b"mine"}


@pytest.mark.parametrize(("train", "held_out", "seed"), [(-1, 5, 0), (5, -1, 0), (5, 5, -1), (0, 0, 0)])
def test_counts_that_make_no_sense_are_refused(tmp_path: Path, train: int, held_out: int, seed: int) -> None:
    with pytest.raises(DatasetError, match="at least one scene"):
        generate(tmp_path / "book", train=train, held_out=held_out, seed=seed)
    assert not (tmp_path / "book").exists()


@pytest.fixture
def crashing(threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fifth scene cannot be written."""

    def crash(root: str, split: str, name: str, *rest: Any) -> None:
        if name == "000004":
            raise OSError("disk full")
        write_sample(root, split, name, *rest)

    monkeypatch.setattr(module, "write_sample", crash)


@pytest.mark.usefixtures("crashing")
def test_an_error_half_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        generate(tmp_path / "book", train=6, held_out=1, seed=0, jobs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("crashing")
def test_a_kill_half_way_leaves_nothing_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)  # a killed process does not clean up
        with pytest.raises(OSError, match="disk full"):
            generate(tmp_path / "book", train=6, held_out=1, seed=0, jobs=1)
    assert len(files(tmp_path / "book")) == 8
    with pytest.raises(DatasetError, match=CLASSES_FILE):
        SegmentationFolder(tmp_path / "book", TRAIN)
    with pytest.raises(DatasetError, match="is not empty"):
        generate(tmp_path / "book", train=1, held_out=0, seed=0, jobs=1)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    storybook.add(parser.add_subparsers())
    return parser.parse_args(["storybook", *words])


@pytest.mark.usefixtures("threads")
def test_the_command_draws_and_says_so(
    book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "book"
    args = parsed(str(root), "--train", "2", "--val", "1", "--seed", str(SEED), "--jobs", "1")
    assert args.run(args) == 0
    trained = capsys.readouterr()
    assert trained.out.startswith(f"{root}: 2 training scenes, 1 held-out scenes\n")
    assert "drawing train: 2 of 2" in trained.err
    found = files(root)
    assert found[CLASSES_FILE] == files(book)[CLASSES_FILE]
    with Image.open(root / "images" / "val" / "000000.jpg") as picture:
        assert picture.size == (WIDTH, HEIGHT)


def test_the_commands_defaults_and_errors(tmp_path: Path) -> None:
    args = parsed("somewhere")
    assert (args.folder, args.train, args.val, args.seed, args.jobs) == (
        Path("somewhere"),
        6000,
        300,
        0,
        None,
    )
    args = parsed(str(tmp_path / "book"), "--train", "0", "--val", "0")
    with pytest.raises(DatasetError, match="not negative"):
        args.run(args)
