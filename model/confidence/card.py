"""A checkpoint's card: what its model is for, which words it knows, and how sure it is where it knows.

It stands in the manifest, beside the licence. Needs no torch, as the manifest needs none.
"""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.errors import CheckpointError
from model.network.json_reading import read

MOST_TEXT = 1000  # characters of a text
MOST_NAME = 200  # characters of a name, a word or a licence
MOST_WORDS = 2048
MOST_ENTRIES = 32  # of any other list
LARGEST = 2**53  # of a number: what every reader of JSON holds exactly
ANY_NOUN = "any English noun: CLIP's vocabulary"

# an SPDX expression as far as its letters go: MIT, Apache-2.0 OR MIT, LicenseRef-own
_LICENSE = re.compile(r"\(?[A-Za-z0-9][A-Za-z0-9.+:-]*\)?( (AND|OR|WITH) \(?[A-Za-z0-9][A-Za-z0-9.+:-]*\)?)*")
_KEY = re.compile(r"[a-z][a-z0-9_-]{0,49}")
Fact = str | int | float | bool | None
Quantiles = tuple[tuple[float, float], ...]
"""Shares of all, ascending, each with the value that this share stays below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSource:
    """A data set that weights were trained on, and the terms that it comes with."""

    name: str
    terms: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LicensedPart:
    """A part of the weights, and the licence that covers it."""

    name: str
    license: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """What a checkpoint tells of itself, for people and for the service.

    Attributes:
        domain: which pictures it is for, a sentence or less.
        words: the words that it knows, or a sentence where it knows more than can be listed.
        training_data: what it was trained on.
        parts: what of the weights is under which licence, where that is more than one.
        scores: figures by name, such as "miou_all", percent; and what they were measured on.
        threshold: a pixel of a lower confidence is better called "other"; None if it was never measured.
        threshold_note: how it was measured, or why not.
        calibration: the figures of that measurement.
        confidence: quantiles over pictures of its own domain that it was not trained on, of what
            `domain.OwnWords.confidence` tells of a picture; None if it was never measured.
        notes: whatever else is to be known.

    Raises:
        CheckpointError: a value of the wrong kind, empty or too long; the message names the field.
    """

    domain: str
    words: tuple[str, ...] | str
    training_data: tuple[DataSource, ...] = ()
    parts: tuple[LicensedPart, ...] = ()
    scores: Mapping[str, Fact] = dataclasses.field(default_factory=dict)
    threshold: float | None = None
    threshold_note: str = "not measured"
    calibration: Mapping[str, Fact] = dataclasses.field(default_factory=dict)
    confidence: Quantiles | None = None
    notes: str = ""

    def __post_init__(self) -> None:
        _check_text("domain", self.domain)
        if isinstance(self.words, str):
            _check_text("words", self.words)
        else:
            _check_list("words", self.words, MOST_WORDS, least=1)
            for word in self.words:
                _check_text("words", word, MOST_NAME)
        _check_list("training_data", self.training_data, MOST_ENTRIES)
        for source in self.training_data:
            _check_text("training_data", source.name, MOST_NAME)
            _check_text("training_data", source.terms)
        _check_list("parts", self.parts, MOST_ENTRIES)
        for part in self.parts:
            _check_text("parts", part.name, MOST_NAME)
            check_license(part.license, "card: parts")
        _check_facts("scores", self.scores)
        _check_facts("calibration", self.calibration)
        if self.threshold is not None and not (_number(self.threshold) and 0 <= self.threshold <= 1):
            raise _wrong("threshold", f"must be a number from 0 to 1, or null, not {self.threshold!r}")
        _check_text("threshold_note", self.threshold_note)
        if self.confidence is not None:
            _check_quantiles(self.confidence)
        if self.notes != "":
            _check_text("notes", self.notes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }
        if self.confidence is not None:
            values["confidence"] = {f"{share:g}": value for share, value in self.confidence}
        return values | {"scores": dict(self.scores), "calibration": dict(self.calibration)}

    @classmethod
    def from_dict(cls, values: Any) -> "Card":
        """The opposite of `to_dict`; what has a default may be left out.

        Raises:
            CheckpointError: a field is missing, unknown, or cannot be.
        """
        card: Card = read(cls, card_values(values), "card", CheckpointError)
        return card


def card_values(values: Any) -> Any:
    """What `to_dict` made, as the fields of a card have it: quantiles in pairs.

    Raises:
        CheckpointError: what should be quantiles is none.
    """
    if not isinstance(values, dict) or values.get("confidence") is None:
        return values
    return values | {"confidence": _quantiles(values["confidence"])}


def check_license(text: object, field: str = "license") -> None:
    """Refuses what is no licence in the style of SPDX, as "MIT" or "MIT AND Apache-2.0".

    Raises:
        CheckpointError: with the field's name.
    """
    if not isinstance(text, str) or len(text) > MOST_NAME or _LICENSE.fullmatch(text) is None:
        raise CheckpointError(
            f'{field}: a licence is written as SPDX does, as in "MIT AND Apache-2.0" or "LicenseRef-own"; '
            f"got {str(text)[:MOST_NAME]!r}"
        )


def _wrong(field: str, what: str) -> CheckpointError:
    return CheckpointError(f"card: {field} {what}" if field else f"card: {what}")


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST and math.isfinite(value)


def _check_text(field: str, text: object, most: int = MOST_TEXT) -> None:
    if not isinstance(text, str) or not text.strip():
        raise _wrong(field, f"must be text, and not empty; got {str(text)[:60]!r}")
    if len(text) > most:
        raise _wrong(field, f"has {len(text)} characters, at most {most} are allowed")
    if not text.isprintable():
        raise _wrong(field, f"holds a control character: {text[:60]!r}")


def _check_list(field: str, values: tuple[Any, ...], most: int, least: int = 0) -> None:
    if not least <= len(values) <= most:
        raise _wrong(field, f"must have {least} to {most} entries, not {len(values)}")


def _check_facts(field: str, facts: Any) -> None:
    if not isinstance(facts, Mapping) or len(facts) > MOST_ENTRIES:
        raise _wrong(field, f"must be an object of at most {MOST_ENTRIES} facts")
    for key, value in facts.items():
        if not isinstance(key, str) or _KEY.fullmatch(key) is None:
            raise _wrong(field, f"has an odd name: {str(key)[:60]!r}")
        if isinstance(value, str):
            _check_text(f"{field}.{key}", value, MOST_NAME)
        elif not (value is None or isinstance(value, bool) or _number(value)):
            raise _wrong(
                f"{field}.{key}", f"must be text, a number, true, false or null, not {value!r}"[:200]
            )


def _check_quantiles(pairs: Quantiles) -> None:
    _check_list("confidence", pairs, MOST_ENTRIES, least=1)
    for share, value in pairs:
        if not (_number(share) and 0 <= share <= 1 and _number(value) and 0 <= value <= 1):
            raise _wrong("confidence", f"must hold numbers from 0 to 1, not {share!r}: {value!r}"[:200])
    for before, after in itertools.pairwise(pairs):
        if not (before[0] < after[0] and before[1] <= after[1]):
            raise _wrong("confidence", "must ascend")


def _quantiles(values: Any) -> Quantiles:
    if not isinstance(values, dict):
        raise _wrong("confidence", f"must be an object, got a {type(values).__name__}")
    try:
        return tuple(sorted((float(share), value) for share, value in values.items()))
    except (ValueError, TypeError):  # a share that is no number; values that have no order
        raise _wrong("confidence", f"must be shares to confidences, not {sorted(values)[:5]}") from None
