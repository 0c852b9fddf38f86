"""Whose a folder is, what goes with `--fresh`, and what a killed process leaves."""

import dataclasses
from pathlib import Path

import pytest

from training.config import TrainConfig
from training.errors import TrainingError
from training.run.folder import CHECKPOINT, RUN_CONFIG, STATE, TENSORBOARD, read_config, take_folder

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
