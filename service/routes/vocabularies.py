"""`/v1/vocabularies`: class lists that a request can name."""

from fastapi import APIRouter

from model.vocabulary import Vocabulary
from service.errors import NotFoundError
from service.openapi import problems
from service.schemas import StoredClass, VocabularyDetails, VocabularyList, VocabularySummary

router = APIRouter()


@router.get("/v1/vocabularies", summary="List the class lists", responses=problems(500))
def vocabularies() -> VocabularyList:
    """The benchmarks' class lists."""
    return VocabularyList(
        vocabularies=[
            VocabularySummary(name=name, size=len(Vocabulary.builtin(name)), builtin=True)
            for name in Vocabulary.builtin_names()
        ]
    )


@router.get("/v1/vocabularies/{name}", summary="Show a class list", responses=problems(404, 500))
def vocabulary(name: str) -> VocabularyDetails:
    """One class list, in its order, with synonyms."""
    if name not in Vocabulary.builtin_names():
        raise NotFoundError("there is no vocabulary of this name; GET /v1/vocabularies lists them")
    classes = [
        StoredClass(name=item.name, synonyms=list(item.synonyms)) for item in Vocabulary.builtin(name).classes
    ]
    return VocabularyDetails(name=name, size=len(classes), builtin=True, classes=classes)
