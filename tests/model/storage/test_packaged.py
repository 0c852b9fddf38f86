"""The checkpoint that comes with the package."""

import json
from pathlib import Path

import pytest

import ebseg
from model.errors import CheckpointError
from model.storage import packaged
from model.storage.checkpoint import check_golden, load
from model.storage.packaged import packaged_checkpoint
from model.vocabulary.classes import Vocabulary

ALL_BYTES = 16e6  # what a clone or a wheel should have to carry at most
STORYBOOK_TRAINED = 33
PICTURES_DIFFER = 1e-3  # relative error of float32 on another machine


def make_versions(registry: Path, *names: str) -> None:
    for name in names:
        folder = registry / "ebseg-tiny" / name
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")


def test_newest_version_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "PRETRAINED", tmp_path)
    make_versions(tmp_path, "2", "10", "9", ".11", "twelve")
    (tmp_path / "ebseg-tiny" / "13").mkdir()  # never finished
    assert packaged_checkpoint() == tmp_path / "ebseg-tiny" / "10"


def test_missing_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged, "PRETRAINED", tmp_path)
    with pytest.raises(CheckpointError, match=r"ebseg-tiny holds no version.*--checkpoint DIR.*ebseg import"):
        packaged_checkpoint()


def test_it_is_trained_and_whole() -> None:
    loaded = load(packaged_checkpoint())
    assert (loaded.manifest.name, loaded.manifest.untrained) == ("ebseg-tiny", False)
    assert loaded.manifest.variant == "tiny"
    assert check_golden(loaded) <= PICTURES_DIFFER
    assert sum(path.stat().st_size for path in packaged_checkpoint().iterdir()) <= ALL_BYTES
    assert len(loaded.ebseg.training_classes) == STORYBOOK_TRAINED


def test_it_knows_which_words_it_was_trained_on() -> None:
    classes = load(packaged_checkpoint()).ebseg.training_classes
    vocabulary = Vocabulary.of(["house", "mushroom", "Corn Field", "zebra"])
    assert classes.matches(vocabulary) == [True, False, True, False]


def test_inspect_shows_it_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert ebseg.main(["inspect", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["directory"] == str(packaged_checkpoint())
    assert found["untrained"] is False
    assert ebseg.main(["inspect"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"folder {packaged_checkpoint()}" in rows
    (metrics,) = [row for row in rows if row.startswith("metrics ")]
    assert f"miou_all {found['metrics']['miou_all']:.2f}," in metrics
