"""How sure a model is of its own words in a picture, whatever else it is asked for.

Asked for all words that it knows, a model is surer of pictures like those it learned from than of others.
This says something of the picture, not of a request: a picture in which nothing is that a request asks for
looks the same as any other.
"""

from collections.abc import Sequence

import torch

from model.confidence.card import Card
from model.network.predictions import MaskPredictions
from model.segmenter import LabelRequest, Segmenter
from model.vocabulary.classes import TrainingClasses, Vocabulary
from model.vocabulary.reading import as_read
from model.vocabulary.templates import SETS

MOST_OWN_WORDS = 1024  # that are asked for; confidences were measured with so many at most
LONG_SIDE = 64  # pixels of the label map that the mean is over: enough for a mean, a thousandth of the work


class OwnWords:
    """A model asked for its own words: those that its card lists, or else its training classes.

    Args:
        segmenter: the model; the words are embedded here, once, under the plain template.
        card: of its checkpoint.
    """

    def __init__(self, segmenter: Segmenter, card: Card):
        self._segmenter = segmenter
        self._vocabulary = own_vocabulary(card, segmenter.ebseg.training_classes)
        self._text = segmenter.encode_text(self._vocabulary).float()

    def confidence(self, predictions: MaskPredictions, index: int = 0) -> float:
        """Mean confidence over a picture, 0..1; see `Segmenter.label_map`.

        Args:
            predictions: of `Segmenter.predict`.
            index: which picture of the batch.
        """
        return self.confidences([predictions[index]])[0]

    @torch.inference_mode()
    def confidences(self, pictures: Sequence[MaskPredictions]) -> list[float]:
        """The same of several pictures, for which a GPU is waited for once."""
        found = self._segmenter.label_maps(
            [
                LabelRequest(
                    predictions=own,
                    vocabulary=self._vocabulary,
                    output_size=_small(own.image_size),
                    text=self._text,
                )
                for own in pictures
            ]
        )
        return [float(one.confidence.mean(dtype="float64")) for one in found]


def _small(size: tuple[int, int]) -> tuple[int, int]:
    """A picture's size, shrunk to the long side that is enough here."""
    scale = min(1.0, LONG_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def own_vocabulary(card: Card, classes: TrainingClasses) -> Vocabulary:
    """The words that `OwnWords` asks for."""
    names = [item.name for item in classes.classes] if isinstance(card.words, str) else card.words
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(as_read(name), name)
    return Vocabulary.of(list(first.values())[:MOST_OWN_WORDS], templates=SETS["plain"])
