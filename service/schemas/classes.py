"""The classes of a request and of a stored list, as JSON."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from model.vocabulary.classes import MAX_CLASSES, ClassName
from service.schemas.lists import listed

COLOR = r"^#[0-9A-Fa-f]{6}$"


class Strict(BaseModel):
    """Base of what goes in."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ClassEntry(Strict):
    """One class of a request."""

    name: str = Field(description="what the model looks for", examples=["tree"])
    synonyms: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="further words for it, which the model looks for as well, see `synonym_mode`; with the "
        "name they decide trained or new",
    )
    trained: bool | None = Field(
        default=None, description="whether the class counts as trained; by its words if left out"
    )
    color: str | None = Field(
        default=None,
        pattern=COLOR,
        description="of the class in images",
        examples=["#2e8b57"],
    )
    threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description='pixels of this class with a lower confidence become "other", whatever `background` says',
        examples=[0.6],
    )
    ignore: bool = Field(
        default=False,
        description='the class competes for every pixel and is not answered; what it wins is "other"',
    )

    def for_model(self) -> ClassName:
        """The same for the model, which looks for the name and all synonyms."""
        return ClassName(
            name=self.name,
            synonyms=(self.name, *self.synonyms) if self.synonyms else (),
            trained=self.trained,
            prompts=tuple(self.synonyms),
            threshold=self.threshold,
            ignored=self.ignore,
        )


_KINDS = {type(None): "null", bool: "true or false", int: "a number", float: "a number", list: "a list"}


def _named(value: Any) -> Any:
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict | ClassEntry):
        return value
    raise ValueError(
        f"must be a name, or an object with a name, and is {_KINDS.get(type(value), 'something else')}"
    )


NamedClass = Annotated[ClassEntry, BeforeValidator(_named, str | ClassEntry)]


def _read(value: Any) -> Any:
    return listed([value]) if isinstance(value, str) else value


_Names = Annotated[list[NamedClass], Field(max_length=MAX_CLASSES, json_schema_extra={"minItems": 1})]
ClassList = Annotated[_Names, BeforeValidator(_read, _Names | Annotated[str, Field(min_length=1)])]
"""Classes as JSON has them, or as a text that `lists.listed` reads; an empty list is left to `Vocabulary`."""
