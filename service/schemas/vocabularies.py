"""What goes into and comes out of the vocabularies' routes, as JSON."""

from pydantic import BaseModel, ConfigDict, Field

from service.schemas.classes import ClassList, Strict


class VocabularyRequest(Strict):
    """A class list to store; its classes are given and checked like those of a segmentation request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"classes": ["sky", {"name": "tree", "synonyms": ["bush"]}], "shared": True}]
        }
    )

    classes: ClassList = Field(
        description="names, or objects with a name; or names in a text, with commas between; no two differ "
        "by case only"
    )
    shared: bool = Field(
        default=False,
        description="whether other API keys may use the list; without API keys everybody may in any case",
    )


class VocabularySummary(BaseModel):
    """A stored class list."""

    name: str = Field(description="what requests say in `vocabulary`", examples=["ade20k-150"])
    size: int = Field(description="number of classes", examples=[150])
    builtin: bool = Field(description="comes with the service and cannot be changed")
    shared: bool = Field(description="whether all API keys may use it")
    owner: str | None = Field(
        default=None,
        description="the API key that stored it, by its name or a part of its digest, shown to itself and to "
        "admin keys; left out of a list that is everybody's",
        examples=["shop"],
    )


class VocabularyList(BaseModel):
    """All stored class lists."""

    vocabularies: list[VocabularySummary] = Field(description="without their classes")


class StoredClass(BaseModel):
    """A class of a stored list."""

    name: str = Field(description="what the model looks for", examples=["tree"])
    synonyms: list[str] = Field(
        description="further words for it. The model looks for those of your own list as well; those of a "
        "built-in one decide trained or new only, as in its benchmark",
        examples=[["bush"]],
    )
    trained: bool | None = Field(default=None, description="left out if the words decide")
    color: str | None = Field(default=None, description="left out if the service chooses one")
    threshold: float | None = Field(
        default=None, description="of this class; left out if that of the request or the model holds"
    )
    ignore: bool | None = Field(default=None, description="left out if the class is answered")


class VocabularyDetails(VocabularySummary):
    """A stored class list with its classes, in order."""

    classes: list[StoredClass] = Field(description="in their order, which is that of the labels")
