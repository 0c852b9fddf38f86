"""Calibration: counts against brute force, the best threshold, and where its figures go."""

import argparse
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.confidence.card import Card
from model.confidence.domain import OwnWords, own_vocabulary
from model.errors import CheckpointError
from model.segmenter import Segmenter
from model.storage.checkpoint import LoadedCheckpoint, Provenance, check_golden, load, save
from model.storage.manifest import rewrite
from model.storage.packaged import packaged_checkpoint
from model.storage.verify import verify
from model.vocabulary.classes import TrainingClasses, Vocabulary
from tests.training.publishing.publish_runs import SCORES
from tests.training.run.runs import CLASSES, micro_run, small_set, write_dataset, write_places
from training.commands import calibrate as command
from training.data.layout import SegmentationFolder
from training.errors import TrainingError
from training.evaluation.calibrate import THRESHOLDS, ConfidenceCounts, calibrate, drawn
from training.evaluation.confusion_counts import Options
from training.publishing.publish import QualityGate, publish
from training.run.cards import Described, amended
from training.run.trainer import train
from training.storybook.classes import CLASSES as STORYBOOK

QUIET = Options(shown=False)
CARD = Card(domain="coloured squares", words=CLASSES)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    checkpoint, data = write_places(tmp_path_factory.mktemp("places"), pictures=5)
    return Path(checkpoint), Path(data)


@pytest.fixture(scope="module")
def loaded(places: tuple[Path, Path]) -> LoadedCheckpoint:
    return load(places[0])


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    args = parser.parse_args(["calibrate", *map(str, words)])
    code: int = args.run(args)
    return code


def test_counts_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    classes, pictures = 4, []
    tally = ConfidenceCounts.of(classes)
    for _ in range(6):
        truth = rng.integers(-1, classes, (9, 11))
        asked = set(rng.permutation(classes)[: int(rng.integers(1, classes + 1))].tolist())
        got = rng.choice(list(asked), truth.shape)
        # exact levels, 0 and 1 are the places where a comparison may go wrong
        confidence = (rng.integers(0, THRESHOLDS + 1, truth.shape) / THRESHOLDS).astype(np.float32)
        confidence[::2] = rng.random(confidence[::2].shape, np.float32)
        tally.add(truth, got, confidence, asked)
        pictures.append((truth, got, confidence, asked))
    for level in (0, 1, 300, 511, 1023, THRESHOLDS):
        right = named = called = truly_other = found_other = called_other = 0
        ious = []
        for index in range(classes):
            hits = union = 0
            for truth, got, confidence, asked in pictures:
                kept = (confidence >= level / THRESHOLDS) & (truth >= 0)
                mine = (truth == index) & (index in asked)
                hits += int((kept & (got == index) & mine).sum())
                union += int(((kept & (got == index)) | mine).sum())
            ious.append(hits / union)
        for truth, got, confidence, asked in pictures:
            counted, kept = truth >= 0, confidence >= level / THRESHOLDS
            other = counted & ~np.isin(truth, list(asked))
            right += int((counted & kept & (got == truth)).sum())
            called += int((counted & kept).sum())
            named += int((counted & ~other).sum())
            truly_other += int(other.sum())
            found_other += int((other & ~kept).sum())
            called_other += int((counted & ~kept).sum())
        assert tally.f1_named()[level] == 2 * right / (called + named)
        assert tally.f1_other()[level] == 2 * found_other / (truly_other + called_other)
        assert tally.other_found()[level] == pytest.approx(found_other / truly_other, abs=1e-12)
        assert tally.miou_named()[level] == pytest.approx(100 * np.mean(ious), abs=1e-9)


def test_what_is_asked_for_depends_on_seed_and_picture_only() -> None:
    assert [drawn(5, 3, index) for index in range(20)] == [drawn(5, 3, index) for index in range(20)]
    draws = [tuple(drawn(5, 3, index)) for index in range(200)]
    assert {len(draw) for draw in draws} == {1, 2, 3, 4, 5}
    assert all(list(draw) == sorted(set(draw)) for draw in draws)
    assert draws != [tuple(drawn(5, 4, index)) for index in range(200)]


def test_the_threshold_is_the_best_one(places: tuple[Path, Path], loaded: LoadedCheckpoint) -> None:
    folder = SegmentationFolder(places[1], "val")
    found = calibrate(loaded.ebseg, folder, CARD, seed=1, options=QUIET)
    segmenter, best = Segmenter(loaded.ebseg), {}
    text = segmenter.encode_text(Vocabulary.of(CLASSES))
    for threshold in (found.threshold, 0.0, found.threshold - 0.02, found.threshold + 0.02):
        right = called = named = 0
        for index, sample in enumerate(folder):
            asked = drawn(len(CLASSES), 1, index)
            labels = segmenter.label_map(
                segmenter.predict([segmenter.prepare(sample.picture)]),
                Vocabulary.of([CLASSES[one] for one in asked]),
                output_size=sample.labels.shape,
                text=text[asked],
                threshold=threshold,
            ).labels
            got = np.array([-2, *asked])[labels]
            counted = sample.labels >= 0
            right += int((counted & (got == sample.labels)).sum())
            called += int((counted & (got >= 0)).sum())
            named += int(np.isin(sample.labels, asked).sum())
        best[threshold] = round(2 * right / (called + named), 4)
    assert found.facts["f1_named"] == best[found.threshold] == max(best.values())
    assert found.facts["f1_named_without"] == best[0.0]
    assert found.facts["pictures"] == 5
    again = calibrate(loaded.ebseg, folder, CARD, seed=1, options=QUIET)
    assert again == found
    assert found.into(CARD).threshold == found.threshold


def test_own_words_do_not_depend_on_the_request(places: tuple[Path, Path], loaded: LoadedCheckpoint) -> None:
    folder, segmenter = SegmentationFolder(places[1], "val"), Segmenter(loaded.ebseg)
    found = calibrate(loaded.ebseg, folder, CARD, options=QUIET)
    own = OwnWords(segmenter, CARD)
    sure = [own.confidence(segmenter.predict([segmenter.prepare(one.picture)])) for one in folder]
    assert dict(found.confidence)[0.5] == round(float(np.median(sure)), 4)
    both = segmenter.predict([segmenter.prepare(folder[index].picture) for index in (0, 1)])
    assert own.confidence(both, 1) == pytest.approx(sure[1], abs=1e-5)
    any_noun = dataclasses.replace(CARD, words="any English noun")
    assert own_vocabulary(any_noun, TrainingClasses.of(["sky", "sea"])).names == ["sky", "sea"]
    doubled = dataclasses.replace(CARD, words=("Sky", "sea", "sky"))
    assert own_vocabulary(doubled, TrainingClasses.of(["x"])).names == ["Sky", "sea"]


def test_what_cannot_be_calibrated(
    places: tuple[Path, Path], loaded: LoadedCheckpoint, tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "data", pictures=1)
    folder = SegmentationFolder(data, "val")
    # the one picture is asked for all classes by some seed: nothing is left out
    seed = next(seed for seed in range(100) if len(drawn(len(CLASSES), seed, 0)) == len(CLASSES))
    with pytest.raises(TrainingError, match=r"1 images of .* leave nothing to compare: take more"):
        calibrate(loaded.ebseg, folder, CARD, seed=seed, options=QUIET)
    shutil.rmtree(data)
    small_set(data)
    with pytest.raises(TrainingError, match="has one class; a threshold needs another one"):
        calibrate(loaded.ebseg, SegmentationFolder(data, "val"), CARD, options=QUIET)


def test_the_command_prints_and_writes(
    places: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Path(shutil.copytree(places[0], tmp_path / "micro" / "3"))
    before = verify(checkpoint)
    assert run(checkpoint, places[1]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("threshold 0.")
    assert "calibrating: 5 of 5" in printed.err
    assert verify(checkpoint) == before

    (tmp_path / "card.json").write_text(json.dumps({"domain": "squares", "words": ["red", "green"]}))
    line = (checkpoint, places[1], "--write", "--license", "MIT", "--card", tmp_path / "card.json", "--json")
    assert run(*line) == 0
    values = json.loads(capsys.readouterr().out)
    after = verify(checkpoint)
    assert after.card is not None
    assert (after.license, after.card.domain, after.card.words) == ("MIT", "squares", ("red", "green"))
    assert after.card.threshold == values["threshold"]
    assert after.card.calibration == values["calibration"]
    assert after.digest == before.digest
    assert dataclasses.replace(after, license=None, card=None) == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["3"]
    check_golden(load(checkpoint))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--license", "MIT"], "--license is for --write"),
        (["--write", "--license", "my own"], "--license: a licence is written as SPDX does"),
        (["--card", "absent.json"], "absent.json"),
        (["--card", "broken.json"], "broken.json"),
        (["--card", "list.json"], "must hold an object of the card's fields"),
        (["--card", "odd.json"], "odd.json: card: field 'surprise' is unknown"),
    ],
)
def test_the_command_refuses_what_cannot_be(
    places: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in (("broken", "{"), ("list", "[]"), ("odd", '{"surprise": 1}')):
        (tmp_path / f"{name}.json").write_text(text)
    with pytest.raises(TrainingError, match=reason):
        run(*places, *words)


def test_another_folders_manifest_is_not_written(places: tuple[Path, Path], tmp_path: Path) -> None:
    place = tmp_path / "x" / "1"
    mine = save(
        load(places[0]).ebseg,
        place,
        Provenance(name="x", version=1, untrained=False, metrics={"miou_all": 1}),
    )
    other = verify(places[0])
    with pytest.raises(CheckpointError, match="is of other files"):
        rewrite(place, other)
    assert verify(place) == mine


def trained(folder: Path, **fields: Any) -> Path:
    """A finished run whose scores pass the gate."""
    out = train(micro_run(folder, steps=1, **fields), folder / "run")
    (out / "metrics.json").write_text(json.dumps(SCORES | {"step": 1}))
    return out


def test_publishing_measures_on_the_runs_validation_data(tmp_path: Path) -> None:
    out = trained(tmp_path, val_split="val")
    steps = []
    first = publish(
        out,
        tmp_path / "registry" / "micro",
        progress=lambda step, done, total: steps.append((step, done, total)),
    ).manifest
    assert first.card is not None
    folder = SegmentationFolder(tmp_path / "data", "val")
    measured = calibrate(load(out / "checkpoint").ebseg, folder, first.card, options=QUIET)
    assert first.card.threshold == measured.threshold
    assert first.card.confidence == measured.confidence
    assert first.card.domain == "images like those of micro"
    assert first.card.words == CLASSES  # what it started from had no card
    assert first.card.scores["miou_new"] == SCORES["miou_new"]
    assert ("calibrating", 6, 6) in steps
    assert load(tmp_path / "registry" / "micro" / "1").manifest == first

    printed = tmp_path / "card.json"
    printed.write_text(json.dumps({"domain": "squares"}))
    second = publish(out, tmp_path / "registry" / "micro", card=printed, license="CC0-1.0").manifest
    assert second.card == dataclasses.replace(first.card, domain="squares")
    assert second.license == "CC0-1.0"

    shutil.move(tmp_path / "data", tmp_path / "moved")
    third = publish(out, tmp_path / "registry" / "micro").manifest
    assert third.card is not None
    assert third.card.threshold is None
    assert third.card.threshold_note.startswith("not measured: the run's validation data was not there")
    fourth = publish(out, tmp_path / "registry" / "micro", data=tmp_path / "moved").manifest
    assert fourth.card is not None
    assert fourth.card.threshold == first.card.threshold


def test_a_run_keeps_words_and_licence_of_what_it_started_from(tmp_path: Path) -> None:
    config = micro_run(tmp_path)
    start = tmp_path / "micro" / "1"
    card = Card(domain="photographs", words="any noun", threshold=0.3, threshold_note="measured")
    rewrite(start, dataclasses.replace(verify(start), license="MIT", card=card))
    out = trained(tmp_path, init=config.init)
    described = verify(out / "checkpoint")
    assert described.license == "MIT"
    assert described.card is not None
    assert (described.card.words, described.card.threshold) == ("any noun", None)
    assert [one.name for one in described.card.training_data] == ["micro"]
    published = publish(out, tmp_path / "registry" / "micro", gate=QualityGate(force=True)).manifest
    assert published.card is not None
    assert published.card.threshold_note == (
        "not measured: the run names no validation data; `ebseg publish --data DIR` does"
    )


def test_amending_nothing_changes_nothing() -> None:
    assert amended(Described(license="MIT", card=CARD), license=None, file=None) == Described(
        license="MIT", card=CARD
    )


def test_ebseg_tiny_is_calibrated() -> None:
    manifest = verify(packaged_checkpoint())
    card = manifest.card
    assert manifest.license == "MIT"
    assert card is not None
    assert card.words == STORYBOOK
    assert card.threshold == 511 / THRESHOLDS
    facts = card.calibration
    assert (facts["data"], facts["pictures"], facts["seed"]) == ("Storybook, seed 101", 200, 0)
    assert facts["f1_named"] == pytest.approx(0.846, abs=0.001)
    assert facts["f1_named_without"] == pytest.approx(0.644, abs=0.001)
