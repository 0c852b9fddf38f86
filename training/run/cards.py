"""The card of what was trained: from what it started from, the data, the scores, and what its maker says."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.confidence.card import MOST_ENTRIES, MOST_TEXT, MOST_WORDS, Card, DataSource, check_license
from model.errors import CheckpointError
from model.storage.manifest import MANIFEST, Manifest
from training.config import TrainConfig
from training.data.mixture import Mixture
from training.errors import TrainingError
from training.evaluation.calibrate import title

CARD_SCORES = ("miou_all", "miou_trained", "miou_new", "pixel_accuracy", "pictures", "data", "split")
DIGITS = 2  # of percents
UNKNOWN_TERMS = "not said; `ebseg publish --card FILE` says it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """What a manifest says of a model beside its files."""

    license: str | None = None
    card: Card | None = None


def described_run(config: TrainConfig, data: Mixture, metrics: Mapping[str, Any]) -> Described:
    """Of a run's checkpoint: the text tower stays as it was, so words come from what the run started from.

    Args:
        config: of the run.
        data: what it was trained on.
        metrics: of `evaluate`, may be empty.
    """
    start = _of_start(config)
    names = list(dict.fromkeys(title(folder) for folder in data.folders))
    called = ", ".join(names)
    scores = scores_of(metrics)
    if start.card is None:
        words = tuple(item.name for item in data.classes)[:MOST_WORDS]
        fresh = tuple(DataSource(name=name, terms=UNKNOWN_TERMS) for name in names)[:MOST_ENTRIES]
        card = Card(domain=domain_of(called), words=words, training_data=fresh, scores=scores)
        return Described(license=start.license, card=card)
    known = start.card.training_data
    former = {one.name for one in known}
    added = [DataSource(name=name, terms=UNKNOWN_TERMS) for name in names if name not in former]
    sources = (*known, *added)[-MOST_ENTRIES:]
    domain = domain_of(called) if added else start.card.domain
    # nothing that was measured on other weights stays
    card = Card(
        domain=domain,
        words=start.card.words,
        training_data=sources,
        parts=start.card.parts,
        scores=scores,
        notes=start.card.notes,
    )
    return Described(license=start.license, card=card)


def domain_of(called: str) -> str:
    """The card's words for where a model is at home; a long list is cut."""
    return f"images like those of {called}"[:MOST_TEXT]


def scores_of(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What of metrics.json stands on a card."""
    given = {name: metrics[name] for name in CARD_SCORES if metrics.get(name) is not None}
    return {name: round(x, DIGITS) if isinstance(x, float) else x for name, x in given.items()}


def _of_start(config: TrainConfig) -> Described:
    """What the checkpoint says that a run started from, if it is still there."""
    if config.init is None:
        return Described()
    try:
        manifest = Manifest.from_json((Path(config.init) / MANIFEST).read_bytes())
    except (OSError, CheckpointError):
        return Described()
    return Described(license=manifest.license, card=manifest.card)


def amended(described: Described, *, license: str | None, file: Path | None) -> Described:
    """With what its maker says.

    Args:
        described: so far.
        license: instead of the one so far.
        file: JSON object of the card's fields that are to be others.

    Raises:
        TrainingError: the file cannot be read, or a field of it or the licence cannot be.
    """
    try:
        if license is not None:
            check_license(license, "--license")
        card = described.card
        if file is not None:
            given = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(given, dict):
                raise CheckpointError("it must hold an object of the card's fields")
            card = Card.from_dict(({} if card is None else card.to_dict()) | given)
    except (OSError, ValueError, RecursionError, CheckpointError) as error:
        what = str(file) if license is None or file is not None else "--license"
        raise TrainingError(f"{what}: {error}") from None
    return dataclasses.replace(described, license=license or described.license, card=card)
