"""Hugging Face's task image-segmentation, as JSON."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.schemas.classes import ClassList, Strict
from service.schemas.json_request import TINY_PICTURE


class TaskParameters(Strict):
    """What the task's clients may set, and the classes, which the task has no word for."""

    classes: ClassList | None = Field(
        default=None,
        description="what to look for, as in /v1/segment; or in the query",
        examples=[["sky", "tree"]],
    )
    vocabulary: str | None = Field(
        default=None, description="name of a stored class list, instead of `classes`; or in the query"
    )
    threshold: float = Field(
        default=0.0, ge=0, le=1, description="segments of a lower score are left out", examples=[0.5]
    )
    mask_threshold: float | None = Field(
        default=None, ge=0, le=1, description="pixels of a lower confidence are in no mask", examples=[0.3]
    )
    subtask: Literal["semantic"] = Field(default="semantic", description="the one that there is")


class TaskRequest(Strict):
    """An image and parameters."""

    inputs: str = Field(
        description="the image in base64, or as a data URL",
        json_schema_extra={"format": "byte"},
        examples=[TINY_PICTURE],
    )
    parameters: TaskParameters = Field(
        default_factory=TaskParameters,
        description="of the task; `classes` or `vocabulary` is needed, here or in the query",
        examples=[{"classes": ["sky", "grass"], "threshold": 0.0}],
    )


class TaskSegment(BaseModel):
    """One class that was found."""

    label: str = Field(description="its name", examples=["sky"])
    score: float = Field(description="mean confidence over its pixels, 0..1", examples=[0.9])
    mask: Annotated[
        str, Field(description="grey PNG of the image's size in base64: 255 where it is, 0 elsewhere")
    ]
