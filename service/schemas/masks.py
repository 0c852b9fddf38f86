"""Masks in responses: run lengths and polygons."""

from typing import Annotated, Protocol

from pydantic import BaseModel, Field, PlainSerializer, PlainValidator


class Rle(BaseModel):
    """A mask as COCO's compressed run lengths; pycocotools reads them.

    The runs go down the columns, from the left one to the right one; they are outside and inside of the
    mask by turns, and the first, which may be 0, is outside. Each is written as a number: the first three
    as they are, every later one minus the run two before it. A number is cut into groups of five bits, in
    two's complement and the lowest first, until the rest is only sign; a group is the character of code
    48 + bits, and 32 more if another group of the number follows.
    """

    size: list[int] = Field(description="[height, width]", examples=[[2, 3]])
    counts: str = Field(description="the run lengths", examples=["2111"])


class CornerArray(Protocol):
    """Integers [N, 2], as NumPy has them; lists of a million corners would cost more than all else."""

    def tolist(self) -> list[list[int]]:
        """The same as lists."""


def _listed(ring: CornerArray) -> list[list[int]]:
    return ring.tolist()


Ring = Annotated[
    CornerArray, PlainValidator(lambda ring: ring), PlainSerializer(_listed, return_type=list[list[int]])
]


class Polygon(BaseModel):
    """One region: rings of [x, y] corners along the pixels' edges, filled by the even-odd rule."""

    exterior: Ring = Field(
        description="the outer ring; [0, 0] is the image's upper left corner, and the last corner is "
        "joined to the first",
        examples=[[[1, 0], [1, 1], [2, 1], [2, 2], [3, 2], [3, 0]]],
    )
    holes: list[Ring] = Field(description="rings around what is left out")
