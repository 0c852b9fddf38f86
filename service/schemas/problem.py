"""Errors as JSON."""

from pydantic import BaseModel, Field


class FieldError(BaseModel):
    """One wrong field."""

    field: str = Field(description="its path in the request; lists count from 0", examples=["classes.3"])
    message: str = Field(description="what is wrong with it", examples=["class 3 has an empty name"])


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(
        description="urn:ebseg:problem: and a word by which programs tell errors apart; each operation "
        "lists the words of its errors",
        examples=["urn:ebseg:problem:too-many-pixels"],
    )
    title: str = Field(description="the type in words", examples=["The image is too large"])
    status: int = Field(description="the response's HTTP status", examples=[413])
    detail: str = Field(description="what is wrong this time, and what to do about it")
    request_id: str = Field(description="the same as in X-Request-ID; the service's log has it, too")
    errors: list[FieldError] | None = Field(default=None, description="field by field, for invalid requests")
