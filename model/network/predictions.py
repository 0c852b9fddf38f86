"""What the network gives: predictions of pictures, and in training those of every decoder stage.

Shapes: B pictures, Q queries, C CLIP's joint width, H and W the padded picture's rows and columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

PredictionsT = TypeVar("PredictionsT", bound="Predictions")


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Tensors whose first axis is the pictures, as one thing.

    Attributes:
        mask_logits: [B, Q, H / 4, W / 4], of the padded pictures; their sigmoid is the probability, 0..1,
            that a pixel is inside, so above 0 it is.
        supervised: embeddings A, [B, Q, C], of one length, that is learned and at most 10.
        mask_attention: embeddings B, [B, Q, C], of unit length.
    """

    mask_logits: Tensor
    supervised: Tensor
    mask_attention: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def map(self: PredictionsT, function: Callable[[Tensor], Tensor]) -> PredictionsT:
        """The same with a function of each tensor in its place."""
        return replace(self, **{name: function(tensor) for name, tensor in self.tensors().items()})

    @classmethod
    def cat(cls: type[PredictionsT], parts: Sequence[PredictionsT]) -> PredictionsT:
        """Predictions of several batches, of pictures of one size, as those of one batch."""
        by_part = [part.tensors() for part in parts]
        return replace(parts[0], **{name: torch.cat([own[name] for own in by_part]) for name in by_part[0]})

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.mask_logits.device

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def __len__(self) -> int:
        return self.mask_logits.shape[0]

    def __getitem__(self: PredictionsT, index: int) -> PredictionsT:
        """One picture's predictions, as a batch of one."""
        return self.map(lambda tensor: tensor[index : index + 1])


@dataclass(frozen=True, kw_only=True, slots=True)
class StagePredictions(Predictions):
    """Training outputs of one decoder stage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPredictions(Predictions):
    """What the model says of pictures before it knows any class name; all tensors float32.

    Attributes:
        frozen: embeddings D, [B, Q, C], means of unit vectors: of length 0..1, and 0 for an empty mask.
        image_size: rows and columns of the pictures before padding, pixels.
    """

    frozen: Tensor
    image_size: tuple[int, int]
