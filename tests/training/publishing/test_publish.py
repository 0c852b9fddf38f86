"""Publishing in one process: what the version holds, which number it gets, what is refused and cleaned up."""

import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

import training.publishing.publish
from model.errors import CheckpointError
from model.storage.checkpoint import Provenance, check_golden, load, save
from model.storage.manifest import FILES, MANIFEST
from model.storage.verify import verify
from model.storage.versions import Versions
from tests.training.publishing.publish_runs import SCORES, make_run, small_ebseg, write_scores
from training.errors import TrainingError
from training.publishing.publish import QualityGate, publish


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "scenes")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A run whose scores may be changed."""
    return Path(shutil.copytree(made, tmp_path / "scenes", copy_function=os.link)).resolve()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "registry" / "ebseg-tiny"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the golden picture, for tests of numbers and places."""
    monkeypatch.setattr(training.publishing.publish, "check_golden", lambda _: 0.0)


def rescore(run: Path, **scores: Any) -> None:
    (run / "metrics.json").unlink()
    write_scores(run, **scores)


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_first_version(run: Path, place: Path) -> None:
    published = publish(run, place)
    assert published.location == f"{place}/1"
    loaded = load(place / "1")
    assert check_golden(loaded) <= 1e-6
    manifest = loaded.manifest
    assert manifest == published.manifest
    assert (manifest.name, manifest.version, manifest.parent) == ("ebseg-tiny", 1, None)
    assert loaded.metrics == SCORES
    assert manifest.training == {
        "step": 1200,
        "run": "scenes",
        "source": verify(run / "checkpoint").digest,
        "measured": {"data": "storybook", "split": "validation"},
        "stored_as": "float32",
        "ebseg": manifest.training["ebseg"],
    }
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", manifest.training["ebseg"])
    assert names(place) == {"1", ".claims"}
    assert names(place / "1") == {*FILES, MANIFEST}
    wanted = load(run / "checkpoint").ebseg.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.ebseg.state_dict().items())


def test_next_version_knows_its_parent(run: Path, place: Path) -> None:
    first = publish(run, str(place)).manifest
    rescore(run, miou_new=33.0)
    second = publish(run, place.as_uri())  # file:///...
    assert (second.manifest.version, second.manifest.parent) == (2, first.digest)
    assert [(score.old, score.new) for score in second.scores] == [(60.0, 60.0), (75.0, 75.0), (32.5, 33.0)]
    assert Versions(place).numbers() == [1, 2]


def test_a_checkpoint_folder_with_its_scores_inside(run: Path, place: Path) -> None:
    publish(run, place)
    again = publish(place / "1", place.with_name("other")).manifest
    assert (again.name, again.version, again.training["run"]) == ("other", 1, "1")
    assert load(place.with_name("other") / "1").metrics == SCORES


def test_scores_of_another_step_are_not_the_checkpoints(run: Path, place: Path) -> None:
    rescore(run, step=600)  # a crash between writing the checkpoint and its scores
    with pytest.raises(TrainingError, match="none of miou_all, miou_trained, miou_new was measured"):
        publish(run, place)
    rescore(run, step=1200)
    assert publish(run, place).manifest.version == 1


def test_half_precision_is_stored_and_float32_computed(run: Path, place: Path) -> None:
    publish(run, place)
    published = publish(run, place, dtype="float16").manifest
    assert (
        published.files["model.safetensors"].bytes
        < 0.55 * verify(place / "1").files["model.safetensors"].bytes
    )
    loaded = load(place / "2")
    assert check_golden(loaded) <= 1e-6
    assert loaded.ebseg.text_digest() == published.text_digest
    full = load(place / "1").ebseg.state_dict()
    for name, tensor in loaded.ebseg.state_dict().items():
        assert tensor.dtype == full[name].dtype, name
        assert torch.equal(tensor, full[name].half().float() if tensor.is_floating_point() else full[name])
    assert published.training["stored_as"] == "float16"
    assert publish(place / "2", place).manifest.files["model.safetensors"].bytes > 1e6  # float32 again


def test_what_half_precision_cannot_hold_is_refused(tmp_path: Path, place: Path) -> None:
    ebseg = small_ebseg()
    with torch.no_grad():
        ebseg.background[0, 0] = 7e4
    run = make_run(tmp_path / "run", ebseg=ebseg)
    with pytest.raises(CheckpointError, match=r"in torch\.float16, tensor background holds NaN or infinity"):
        publish(run, place, dtype="float16")
    assert names(place) == set()
    with pytest.raises(TrainingError, match="float32 or float16, not as int8"):
        publish(run, place, dtype="int8")
    with pytest.raises(CheckpointError, match=r"in torch\.float16, not in torch\.bfloat16"):
        save(
            small_ebseg(),
            tmp_path / "1",
            Provenance(name="x", version=1, untrained=True),
            store_as=torch.bfloat16,
        )


def test_a_version_that_computes_something_else_is_never_seen(
    run: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(*args: Any, **kwargs: Any) -> Any:
        loaded = load(*args, **kwargs)
        if loaded.directory.name == "version":
            loaded.ebseg.transformer_decoder.query_features.data.add_(1)
        return loaded

    monkeypatch.setattr(training.publishing.publish, "load", other)
    with pytest.raises(CheckpointError, match="golden image's outputs are off"):
        publish(run, place)
    assert names(place) == set()


@pytest.mark.usefixtures("quick")
def test_the_gate_stays_shut_until_forced(run: Path, place: Path) -> None:
    publish(run, place)
    rescore(run, miou_all=59.0)
    with pytest.raises(TrainingError, match=r"miou_all fell from 60\.00 \(version 1\) to 59\.00.*--force"):
        publish(run, place)
    assert names(place) == {"1", ".claims"}
    assert "forced" not in publish(run, place, gate=QualityGate(margin=1, force=True)).manifest.training
    rescore(run, miou_all=50.0)
    forced = publish(run, place, gate=QualityGate(force=True, reason="new labels")).manifest
    assert forced.training["forced"] == {
        "reason": "new labels",
        "overridden": ["miou_all fell from 59.00 (version 2) to 50.00, below the limit 58.50 (margin 0.5)"],
    }
    assert "forced" not in publish(place / "3", place).manifest.training  # version 4 was not


@pytest.mark.usefixtures("quick")
def test_untrained_weights_need_force(tmp_path: Path, place: Path) -> None:
    run = make_run(tmp_path / "run", untrained=True)
    with pytest.raises(TrainingError, match="the checkpoint is untrained: its masks mean nothing"):
        publish(run, place)
    manifest = publish(run, place, gate=QualityGate(force=True)).manifest
    assert manifest.untrained
    assert manifest.training["forced"]["reason"] is None


@pytest.mark.usefixtures("quick")
def test_forced_scores_that_are_no_numbers_become_null(run: Path, place: Path) -> None:
    rescore(run, miou_new=float("nan"))
    with pytest.raises(TrainingError, match="miou_new is nan"):
        publish(run, place)
    publish(run, place, gate=QualityGate(force=True))
    assert json.loads((place / "1" / "metrics.json").read_text())["miou_new"] is None


@pytest.mark.usefixtures("quick")
def test_a_registry_is_no_model(run: Path, place: Path) -> None:
    (place.parent / "notes").mkdir(parents=True)
    publish(run, place)
    with pytest.raises(TrainingError, match=r"registry holds models \(ebseg-tiny\): .*registry/ebseg-tiny$"):
        publish(run, place.parent)
    assert names(place.parent) == {"ebseg-tiny", "notes"}
    assert publish(run, place).manifest.version == 2


@pytest.mark.usefixtures("quick")
def test_numbers_are_never_given_twice(run: Path, place: Path) -> None:
    (place / "7").mkdir(parents=True)
    (place / "7" / "half").touch()
    (place / "notes").mkdir()
    assert publish(run, place).manifest.version == 8
    shutil.rmtree(place / "8")
    assert publish(run, place).manifest.version == 9
    (place / ".claims" / "12").touch()
    assert publish(run, place).manifest.version == 13
    assert (place / "7" / "half").exists()


@pytest.mark.usefixtures("quick")
def test_a_place_that_fills_after_all(run: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename
    tried: list[Path] = []

    def late(source: Path, target: Path) -> None:
        if Path(target).name.isdigit() and not tried:  # `ebseg import --out .../1`, say
            tried.append(Path(target))
            Path(target).mkdir()
            (Path(target) / "theirs").touch()
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    assert publish(run, place).manifest.version == 2
    assert names(place / "1") == {"theirs"}
    assert verify(place / "2").version == 2


def test_a_faster_publisher_is_what_counts(run: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two begin on an empty registry; the one that ends last has to be as good as the one that ends first."""

    def overtaken(_: object) -> float:
        monkeypatch.setattr(training.publishing.publish, "check_golden", lambda _: 0.0)
        rescore(run, miou_all=70.0)
        publish(run, place)
        return 0.0

    monkeypatch.setattr(training.publishing.publish, "check_golden", overtaken)
    with pytest.raises(TrainingError, match=r"fell from 70\.00 \(version 1\) to 60\.00"):
        publish(run, place)
    assert names(place) == {"1", ".claims"}


@pytest.mark.usefixtures("quick")
def test_a_damaged_version_is_passed_over(run: Path, place: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = publish(run, place).manifest
    publish(run, place)
    (place / "2" / "golden.safetensors").unlink()
    assert publish(run, place).manifest.parent == first.digest
    assert any("golden.safetensors is missing" in message for message in caplog.messages)


def test_dry_run_checks_all_and_writes_nothing(run: Path, place: Path) -> None:
    published = publish(run, place, dry_run=True)
    assert published.location == f"{place}/1"
    assert not place.exists()
    assert publish(run, place).manifest.digest == published.manifest.digest
    rescore(run, miou_all=1.0)
    with pytest.raises(TrainingError, match="miou_all fell"):
        publish(run, place, dry_run=True)


def test_what_cannot_be_published(run: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"empty holds no checkpoint.*ebseg train"):
        publish(tmp_path / "empty", place)
    with pytest.raises(TrainingError, match="ends in a version's number"):
        publish(run, place / "1")
    with pytest.raises(CheckpointError, match="a model's name must be"):
        publish(run, tmp_path / "no name")
    weights = run / "checkpoint" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not match its sha256"):
        publish(run, place)
    assert not place.exists()


@pytest.mark.usefixtures("quick")
def test_objects_in_memory(run: Path, tmp_path: Path) -> None:
    """Any fsspec file system; this one lives in the process."""
    url = f"memory://{uuid.uuid4().hex}/ebseg-tiny"
    steps: dict[str, tuple[int, int]] = {}
    first = publish(run, url, progress=lambda step, done, total: steps.update({step: (done, total)}))
    assert publish(run, url).manifest.parent == first.manifest.digest
    versions = Versions(url)
    assert versions.numbers() == [1, 2]
    assert versions.fetch(1, tmp_path / "fetched") == first.manifest
    assert {step for step in steps if step.startswith("uploading")} == {f"uploading {name}" for name in FILES}
    assert all(done == total > 0 for done, total in steps.values())
    assert versions.fs.ls(f"{versions.root}/.claims", detail=False) == [
        f"{versions.root}/.claims/1",
        f"{versions.root}/.claims/2",
    ]
