"""An engine that returns at once: what is left of a service's time is the service's own.

As a script it serves such an engine with the service's defaults, until a signal comes.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from model.network.balance import Balance
from service.bench.pictures import label_map
from service.scheduling.engine import EngineResult, Job, Measurement, ModelInfo, PreparedPicture

WIDTH = 4  # of a text embedding

INFO = ModelInfo(
    name="instant",
    version=1,
    digest="0" * 64,
    untrained=False,
    variant="tiny",
    device="cpu",
    dtype="float32",
    balance=Balance.arithmetic(),
)


class InstantPrediction:
    """Nothing."""

    nbytes = 0


class InstantEngine:
    """Answers every picture with the same label map, which is at hand."""

    info = INFO
    text_digest = "0" * 64
    batch = 256  # no picture of a batch waits for another
    classified_at_once = 1

    def room(self, shape: tuple[int, int]) -> int:
        """No fewer than are worth it."""
        return self.batch

    def cost(self, size: tuple[int, int]) -> int:
        """All pixels."""
        return size[0] * size[1]

    def prepare(self, picture: NDArray[np.uint8]) -> PreparedPicture:
        """The picture as it is."""
        return PreparedPicture(pixels=picture, shape=picture.shape[:2], cost=self.cost(picture.shape[:2]))

    def tokens(self, names: Sequence[str], templates: Sequence[str]) -> list[int]:
        """One a name and template."""
        return [len(templates)] * len(names)

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[InstantPrediction]:
        """As many predictions of nothing."""
        return [InstantPrediction()] * len(prepared)

    def classify(self, prediction: InstantPrediction, job: Job) -> EngineResult:
        """The label map of this size and so many classes."""
        labels, confidence = label_map(job.output_size, len(job.vocabulary))
        return EngineResult(
            labels=labels,
            confidence=confidence,
            scores=None,
            trained=[False] * len(job.vocabulary),
            seconds={"classify": 0.0},
        )

    def classify_each(
        self, predictions: Sequence[InstantPrediction], jobs: Sequence[Job]
    ) -> list[EngineResult]:
        """One after the other."""
        return [self.classify(one, job) for one, job in zip(predictions, jobs, strict=True)]

    def to_host(self, prediction: InstantPrediction) -> InstantPrediction:
        """It is there."""
        return prediction

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        """The same unit vector for every class."""
        return torch.full((len(names), WIDTH), WIDTH**-0.5)

    def warm(self, shape: tuple[int, int]) -> Sequence[Measurement]:
        """There is nothing to warm."""
        return ()

    def close(self) -> None:
        """There is nothing to free."""


def main(argv: Sequence[str] | None = None) -> int:
    """The script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args(argv)

    from service.settings import load_settings
    from service.workers.serve import serve

    settings = load_settings({"port": args.port})
    return serve(settings, InstantEngine())


if __name__ == "__main__":
    sys.exit(main())
