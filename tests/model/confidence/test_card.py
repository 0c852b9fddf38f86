"""Cards: what they hold comes back, and what they must not hold is refused, with the field's name."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.confidence.card import Card, DataSource, LicensedPart, check_license
from model.errors import CheckpointError
from model.released.cards import RELEASED_LICENSE, released, untrained
from model.storage.checkpoint import load
from model.storage.manifest import Manifest
from tests.model.checkpoints import make, write

FULL = Card(
    domain="drawn scenes",
    words=("sky", "Bäume"),
    training_data=(DataSource(name="Storybook", terms="MIT"),),
    parts=(LicensedPart(name="all", license="MIT"),),
    scores={"miou_all": 77.5, "data": "Storybook, seed 0", "voc-20": None},
    threshold=0.5,
    threshold_note="measured",
    calibration={"f1_named": 0.8, "pictures": 200},
    confidence=((0.01, 0.2), (0.5, 0.6)),
    notes="a note",
)


@pytest.mark.parametrize(
    "card", [FULL, untrained(), released("base"), released("tiny"), released("large", own_classes=True)]
)
def test_round_trip(card: Card) -> None:
    assert Card.from_dict(json.loads(json.dumps(card.to_dict()))) == card


def test_quantiles_come_back_in_order_from_any_order() -> None:
    assert Card.from_dict(FULL.to_dict() | {"confidence": {"0.5": 0.6, "0.01": 0.2}}) == FULL


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("domain", "", "domain must be text, and not empty"),
        ("domain", "x" * 1001, "domain has 1001 characters, at most 1000"),
        ("domain", "a\nb", "domain holds a control character"),
        ("domain", 3, "domain must be of type str, got 3"),
        ("words", [], "words must have 1 to 2048 entries, not 0"),
        ("words", ["w"] * 2049, "words must have 1 to 2048 entries, not 2049"),
        ("words", [7], "words must be of type str, got 7"),
        ("words", ["w" * 201], "words has 201 characters"),
        ("words", {"a": 1}, "words must be a list or of type str, got {'a': 1}"),
        ("training_data", [{"name": "x"}], "training_data: field 'terms' is missing"),
        ("training_data", "x", "training_data must be a list"),
        (
            "training_data",
            [{"name": "x", "terms": ["y"]}],
            r"data.terms must be of type str, got \['y'\]",
        ),
        ("parts", [{"name": "x", "license": "see the web"}], "card: parts: a licence is written as SPDX"),
        ("scores", {"Bad Key": 1}, "scores has an odd name"),
        ("scores", {"a": [1]}, r"scores\.a must be of type str, int, float or bool, got \[1\]"),
        ("scores", {"a": float("nan")}, r"scores\.a must be text, a number"),
        ("scores", {f"k{i}": i for i in range(33)}, "scores must be an object of at most 32 facts"),
        ("calibration", [], "calibration must be an object"),
        ("threshold", 1.5, "threshold must be a number from 0 to 1"),
        ("threshold", True, "threshold must be of type float, got True"),
        ("threshold", 10**400, r"threshold is too large a number: 10+\.\.\.0+$"),
        ("threshold", "0.5", "threshold must be of type float, got '0.5'"),
        ("threshold_note", None, "threshold_note must be of type str, got None"),
        ("confidence", {}, "confidence must have 1 to 32 entries"),
        ("confidence", [0.5], "confidence must be an object"),
        ("confidence", {"half": 1}, "shares to confidences"),
        ("confidence", {"nan": 1}, "numbers from 0 to 1"),
        ("confidence", {"0.1": 0.5, "0.5": 0.4}, "must ascend"),
        ("confidence", {"0.1": "x"}, "confidence must be of type float, got 'x'"),
        ("notes", 7, "notes must be of type str, got 7"),
        ("surprise", 1, "field 'surprise' is unknown"),
    ],
)
def test_nonsense_is_refused(field: str, value: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        Card.from_dict(FULL.to_dict() | {field: value})


@pytest.mark.parametrize("values", [None, [], "card", {"domain": "x"}])
def test_what_is_no_card_is_refused(values: Any) -> None:
    with pytest.raises(CheckpointError, match=r"card must be an object|card: field 'words' is missing"):
        Card.from_dict(values)


def test_licences() -> None:
    for text in (
        "MIT",
        RELEASED_LICENSE,
        "Apache-2.0 WITH LLVM-exception",
        "(MIT OR BSD-3-Clause) AND CC0-1.0",
    ):
        check_license(text)
    for wrong in ("", "MIT and Apache", "M I T", " MIT", "MIT\n", "x" * 201, None, ["MIT"]):
        with pytest.raises(CheckpointError, match="license: a licence is written as SPDX does"):
            check_license(wrong)


def test_a_folder_keeps_licence_and_card(tmp_path: Path) -> None:
    manifest = write(make(), tmp_path / "1", license=RELEASED_LICENSE, card=FULL)
    assert load(tmp_path / "1").manifest == manifest
    assert (manifest.license, manifest.card) == (RELEASED_LICENSE, FULL)
    plain = write(make(), tmp_path / "2")
    assert plain.digest == manifest.digest  # of the files, so that a card changes no version's identity
    with pytest.raises(CheckpointError, match="license: a licence is written"):
        write(make(), tmp_path / "3", license="no licence")
    assert not (tmp_path / "3").exists()


SCHEMA_1 = Path(__file__).with_name("manifest_schema_1.json")


def test_folders_without_card_are_still_read() -> None:
    text = SCHEMA_1.read_text(encoding="utf-8")
    manifest = Manifest.from_json(text)
    assert (manifest.schema, manifest.license, manifest.card) == (1, None, None)
    assert manifest.to_json() == text
