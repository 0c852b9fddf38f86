"""Moving average of the trained weights: shadow = decay * shadow + (1 - decay) * weight after each step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Average of some parameters, beginning with their present values.

    Args:
        parameters: by name.
        decay: share of the average that a step leaves, 0..1.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float):
        self.decay = decay
        self.parameters = dict(parameters)
        self.shadow = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes one step's weights in."""
        for name, parameter in self.parameters.items():
            self.shadow[name].lerp_(parameter, 1 - self.decay)

    @torch.no_grad()
    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Goes on from saved averages."""
        for name, value in self.shadow.items():
            value.copy_(shadow[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages in the parameters' place for a while.

        By copies in place, which the model's caches of position tables notice.
        """
        kept = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self._fill(self.shadow)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])
