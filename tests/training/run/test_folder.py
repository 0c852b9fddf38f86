"""Whose a folder is, what goes with `--fresh`, and what a killed process leaves."""

import dataclasses
import os
from pathlib import Path

import pytest

from tests.training.run.runs import command, log_of, micro_run, start, write_dataset
from tests.waiting import wait_until
from training.config import TrainConfig
from training.data import whole
from training.data.layout import SegmentationFolder
from training.data.whole import refuse_broken_files
from training.errors import DatasetError, TrainingError
from training.run import beginning
from training.run.folder import CHECKPOINT, RUN_CONFIG, STATE, TENSORBOARD, read_config, take_folder
from training.run.trainer import train

CONFIG = TrainConfig(data="d", variant="tiny", steps=3)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with something of each kind in it."""
    folder = tmp_path / "run"
    take_folder(folder, CONFIG, "auto")
    (folder / STATE).write_text("state")
    for name in (TENSORBOARD, CHECKPOINT, ".checkpoint-old"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("content")
    return folder


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_afresh_removes_what_runs_write(run: Path) -> None:
    take_folder(run, dataclasses.replace(CONFIG, seed=7), "never")
    assert names(run) == {RUN_CONFIG}
    assert read_config(run / RUN_CONFIG).seed == 7


def test_afresh_refuses_before_it_removes(run: Path) -> None:
    (run / "notes.txt").write_text("mine")
    before = names(run)
    with pytest.raises(TrainingError, match=r"holds notes\.txt beside its run, and nothing was removed"):
        take_folder(run, dataclasses.replace(CONFIG, seed=7), "never")
    assert names(run) == before
    assert read_config(run / RUN_CONFIG) == CONFIG


def test_afresh_leaves_what_a_link_leads_to(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (run / TENSORBOARD).rename(elsewhere)
    (run / TENSORBOARD).symlink_to(elsewhere)
    take_folder(run, CONFIG, "never")
    assert names(run) == {RUN_CONFIG}
    assert names(elsewhere) == {"file"}


def test_files_that_a_killed_process_had_begun_go(run: Path) -> None:
    for name in (".state.0123.partial.safetensors", ".config.4567.partial.json"):
        (run / name).write_text("half")
    before = names(run)
    take_folder(run, CONFIG, "auto")
    assert before - names(run) == {".state.0123.partial.safetensors", ".config.4567.partial.json"}


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_other_folders_are_left_alone(resume: str, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("mine")
    (tmp_path / ".half.partial").write_text("mine")
    with pytest.raises(TrainingError, match="is no run's folder, and not empty"):
        take_folder(tmp_path, CONFIG, "never" if resume == "never" else "auto")
    (tmp_path / RUN_CONFIG).write_text("[]")
    with pytest.raises(TrainingError, match="must be an object"):
        take_folder(tmp_path, CONFIG, "never" if resume == "never" else "auto")
    assert names(tmp_path) == {"photo.jpg", ".half.partial", RUN_CONFIG}


def test_a_run_of_another_configuration(run: Path) -> None:
    with pytest.raises(TrainingError, match="another configuration: seed was 0, now 7; take another folder"):
        take_folder(run, dataclasses.replace(CONFIG, seed=7), "auto")
    assert read_config(run / RUN_CONFIG) == CONFIG


def test_two_processes_cannot_train_in_one_folder(tmp_path: Path) -> None:
    config = micro_run(tmp_path, steps=10_000, save_every=10_000)
    run = tmp_path / "run"
    with start(command(config, run)) as first:
        try:
            wait_until(lambda: len(log_of(run)) >= 1 or first.poll() is not None)
            with pytest.raises(TrainingError, match=f"another process trains in .*process {first.pid} of "):
                train(config, run)
            with pytest.raises(TrainingError, match="another process trains"):
                train(config, run, resume="never")
        finally:
            first.kill()
    assert log_of(run)
    assert train(dataclasses.replace(config, steps=1), run) == run  # the lock ended with the process


def test_all_broken_files_are_listed_before_the_first_step(tmp_path: Path) -> None:
    config = micro_run(tmp_path, steps=1, val_split="val")
    data, run = tmp_path / "data", tmp_path / "run"
    content_of = {}
    for name in ("images/train/train3.jpg", "labels/val/val1.png"):
        content_of[data / name] = (data / name).read_bytes()
        (data / name).write_bytes(content_of[data / name][: len(content_of[data / name]) // 2])
    with pytest.raises(DatasetError) as refused:
        train(config, run)
    assert "the data: 2 problems" in str(refused.value)
    assert all(path.name in str(refused.value) for path in content_of)
    assert not run.exists()
    for path, content in content_of.items():
        path.write_bytes(content)
    train(config, run)
    assert log_of(run)


def test_data_is_looked_at_again_only_if_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = micro_run(tmp_path, steps=3)
    looked: list[int] = []
    monkeypatch.setattr(beginning, "refuse_broken_files", lambda folders: looked.append(len(folders)))
    for _ in range(2):
        train(config, tmp_path / "run", max_steps=1)
    assert looked == [1]
    os.utime(tmp_path / "data" / "images" / "train" / "train0.jpg")
    train(config, tmp_path / "run", max_steps=1)
    assert looked == [1, 1]


def test_many_pictures_are_read_in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SegmentationFolder(write_dataset(tmp_path, pictures=20), "train")
    monkeypatch.setattr(whole, "FEW", 10)
    refuse_broken_files([folder])
    for name in ("train0", "train19"):
        folder.files(name)[1].unlink()
    with pytest.raises(
        DatasetError, match=r"2 problems\n.*train0\.png is missing\n.*train19\.png is missing"
    ):
        refuse_broken_files([folder])
