"""How a large image is cut into tiles, as JSON."""

from typing import Self

from pydantic import Field, model_validator

from model.tiling import LARGEST_TILE, OVERLAP_SHARE, SMALLEST_TILE, Tiling
from service.schemas.classes import Strict


class TilingSpec(Strict):
    """Tiles that a large image is segmented in; where they overlap, their scores are blended."""

    size: int = Field(
        ge=SMALLEST_TILE,
        le=LARGEST_TILE,
        description="of a tile's sides, pixels of the image; an image that fits into one stays whole",
        examples=[1024],
    )
    overlap: int | None = Field(
        default=None,
        ge=0,
        description=f"pixels that neighbours share at least; left out: size / {OVERLAP_SHARE}",
        examples=[256],
    )

    @model_validator(mode="after")
    def _smaller(self) -> Self:
        if self.overlap is not None and self.overlap >= self.size:
            raise ValueError(f"overlap must be below size, got {self.overlap} of {self.size}")
        return self

    def for_model(self) -> Tiling:
        """The same as the model has it."""
        return Tiling.of(self.size, self.overlap)
