"""Which confidence is too low for a class: the request's word, or else the card's."""

from dataclasses import dataclass
from typing import Literal

from model.confidence.card import Card

Source = Literal["request", "card", "uncalibrated"]


@dataclass(frozen=True, slots=True)
class BackgroundRule:
    """When a pixel belongs to no class.

    Attributes:
        threshold: pixels of a lower confidence are "other"; None: every pixel gets a class.
        source: who said so: the request, the checkpoint's card, or nobody, for the card has no threshold.
    """

    threshold: float | None
    source: Source

    @property
    def least(self) -> float:
        """The threshold for `Segmenter.label_map`."""
        return self.threshold or 0.0


def asked(threshold: float | None) -> BackgroundRule:
    """What a request says; None for a class on every pixel, as benchmarks count."""
    return BackgroundRule(threshold, "request")


def of_card(card: Card | None) -> BackgroundRule:
    """What holds where a request says nothing."""
    if card is None or card.threshold is None:
        return BackgroundRule(None, "uncalibrated")
    return BackgroundRule(card.threshold, "card")
