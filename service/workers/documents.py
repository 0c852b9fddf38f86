"""What passes between the processes, as JSON has it."""

import functools
import json
from dataclasses import asdict, replace
from typing import Any

from model.confidence.card import Card
from model.network.balance import Balance
from model.network.json_reading import read
from model.vocabulary.classes import Vocabulary
from model.vocabulary.remembered import remembered
from service.scheduling.engine import ModelInfo

_KEPT = 256  # descriptions of versions whose meaning is remembered: the same come with every request
_LISTED_NAMES_KEPT = 1 << 16  # of class lists, likewise; in JSON one takes about 64 characters


class _Same:
    """A version's description, which is equal to itself alone, since its card has no hash."""

    def __init__(self, info: ModelInfo):
        self.info = info

    def __hash__(self) -> int:
        return id(self.info)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.info is self.info


def info_text(info: ModelInfo) -> str:
    """A version's description."""
    return _info_text(_Same(info))


@functools.lru_cache(_KEPT)
def _info_text(same: _Same) -> str:
    info = same.info
    card = None if info.card is None else info.card.to_dict()
    return json.dumps(asdict(replace(info, card=None)) | {"card": card})


@functools.lru_cache(_KEPT)
def info_of(text: str) -> ModelInfo:
    """The opposite of `info_text`."""
    values = json.loads(text)
    card = values.pop("card")
    info: ModelInfo = read(ModelInfo, values, "version", ValueError)
    return info if card is None else replace(info, card=Card.from_dict(card))


@remembered(_LISTED_NAMES_KEPT, lambda vocabulary: len(vocabulary.words))
def vocabulary_text(vocabulary: Vocabulary) -> str:
    """A class list."""
    return json.dumps(asdict(vocabulary))


@remembered(_LISTED_NAMES_KEPT, lambda text: len(text) >> 6)
def vocabulary_of(text: str) -> Vocabulary:
    """The opposite of `vocabulary_text`."""
    vocabulary: Vocabulary = read(Vocabulary, json.loads(text), "vocabulary", ValueError)
    return vocabulary


def balance_of(values: Any) -> Balance | None:
    """A balance, of what `asdict` makes of one."""
    balance: Balance | None = None if values is None else read(Balance, values, "balance", ValueError)
    return balance
