"""Regions, and the documents that are made of them, as JSON."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from service.options import MOST_REGIONS
from service.schemas.classes import Strict
from service.schemas.masks import Polygon, Rle

DEFAULT_REGIONS = 1000


class RegionSpec(Strict):
    """Which regions a response has."""

    min_area: int = Field(default=1, ge=1, description="pixels; smaller regions are left out", examples=[64])
    max_count: int = Field(
        default=DEFAULT_REGIONS, ge=1, le=MOST_REGIONS, description="the largest so many are answered"
    )
    shape: Literal["rle", "polygon", "none"] = Field(
        default="rle", description="how `regions` writes the pixels of each: run lengths, rings or not at all"
    )


class RegionAnswer(BaseModel):
    """Pixels of one class that touch along an edge."""

    id: int = Field(description="from 1 on; by class, the largest first", examples=[1])
    label: int = Field(description="of its class", examples=[2])
    name: str = Field(description="of its class", examples=["tree"])
    bbox: list[int] = Field(
        min_length=4,
        max_length=4,
        description="left, top, width and height, pixels",
        examples=[[12, 40, 96, 80]],
    )
    area: int = Field(description="pixels")
    score: float = Field(description="mean confidence over its pixels, 0..1", examples=[0.8312])
    rle: Rle | None = Field(default=None, description='its pixels, if regions.shape is "rle"')
    polygon: Polygon | None = Field(default=None, description='its outline, if regions.shape is "polygon"')


class LeftOut(BaseModel):
    """Regions that were too small, or beyond the largest `max_count`."""

    count: int = Field(description="how many")
    area: int = Field(description="their pixels together")


class Panoptic(BaseModel):
    """One image of a data set in COCO's panoptic format."""

    png: str = Field(
        description="RGB PNG in base64; R + 256 G + 65,536 B is the id of a pixel's segment, 0 of none"
    )
    document: dict[str, Any] = Field(
        description="images, annotations with segments_info, and categories, as panopticapi reads them"
    )
