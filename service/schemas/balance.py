"""How trained and new classes are balanced, as JSON."""

from typing import Literal, Self

from pydantic import Field, model_validator

from model.errors import ModelError
from service.schemas.classes import Strict


class WeightShares(Strict):
    """Shares of the three embeddings; they add up to 1."""

    supervised: float = Field(
        ge=0, le=1, description="of the fully supervised embedding, A in the paper", examples=[0.2]
    )
    mask_attention: float = Field(
        ge=0, le=1, description="of the mask attention embedding, B in the paper", examples=[0.7]
    )
    frozen: float = Field(ge=0, le=1, description="of the frozen embedding, D in the paper", examples=[0.1])

    @model_validator(mode="after")
    def _whole(self) -> Self:
        from model.network.balance import Weights

        try:
            Weights(**self.model_dump())
        except ModelError as error:
            raise ValueError(str(error)) from None
        return self


class BalanceSpec(Strict):
    """How trained and new classes are balanced: a mean, and either both weights or that mean's own."""

    mean: Literal["geometric", "arithmetic"] = Field(
        description="geometric: of the class probabilities; arithmetic: of the embeddings"
    )
    trained: WeightShares | None = Field(default=None, description="for classes that count as trained")
    new: WeightShares | None = Field(default=None, description="for all other classes")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.trained is None) != (self.new is None):
            raise ValueError("give the weights of both, trained and new, or of neither")
        return self
