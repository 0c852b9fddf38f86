"""`/v1/vocabularies`: class lists that a request can name."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from service.http.openapi import json_body, problems
from service.http.parsed_request import read_document
from service.runtime import Service
from service.schemas.vocabularies import StoredClass, VocabularyDetails, VocabularyList, VocabularyRequest
from service.vocabularies.catalog import MOST_BYTES_EACH, NAME, summary_of
from service.vocabularies.stored_vocabulary import StoredVocabulary

MOST_BODY_BYTES = 2 * MOST_BYTES_EACH  # JSON can say the same in more bytes than are stored
_WORDS = (
    "at most 100 lower case letters, digits, dots, dashes and underscores; the first is a letter or a digit"
)
Name = Annotated[str, Path(pattern=NAME, description=_WORDS, examples=["my-street"])]
Known = Annotated[str, Path(pattern=NAME, description=_WORDS, examples=["voc-20"])]
_BODY: dict[str, Any] = {
    name: value
    for name, value in VocabularyRequest.model_json_schema(
        ref_template="#/components/schemas/{model}"
    ).items()
    if name != "$defs"  # the schema of a class is among the components already
}

router = APIRouter(tags=["vocabularies"])


@router.get(
    "/v1/vocabularies",
    operation_id="list_vocabularies",
    summary="List the class lists",
    response_description="Names and sizes",
    response_model_exclude_none=True,
    responses=problems(401, 500, 503),
)
async def vocabularies(request: Request) -> VocabularyList:
    """The benchmarks' class lists, and those that the caller's key stored, or others as shared.

    Admin keys see all; without API keys everybody does.
    """
    service: Service = request.app.state.service
    return VocabularyList(vocabularies=await service.vocabularies.summaries())


@router.get(
    "/v1/vocabularies/{name}",
    operation_id="get_vocabulary",
    summary="Show a class list",
    response_description="The list",
    response_model_exclude_none=True,
    responses=problems(401, 404, 422, 500, 503),
)
async def vocabulary(name: Known, request: Request) -> VocabularyDetails:
    """One class list, in its order, with synonyms."""
    service: Service = request.app.state.service
    return _details(await service.vocabularies.get(name))


@router.put(
    "/v1/vocabularies/{name}",
    operation_id="store_vocabulary",
    summary="Store a class list",
    response_model_exclude_none=True,
    responses={
        200: {"description": "The list, which replaces an older one"},
        201: {"description": "The list, whose name is new", "model": VocabularyDetails},
        **problems(400, 401, 408, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=json_body(_BODY),
)
async def store_vocabulary(name: Name, request: Request, response: Response) -> VocabularyDetails:
    """Stores classes under a name, for requests to name instead of listing them.

    The whole list is replaced. It belongs to the key that stored it first: other keys do not find it unless
    it is `shared`, and only that key and admin keys may change it. With Redis all processes of the service
    know it within 2 s; without, it lives as long as the process.
    """
    service: Service = request.app.state.service
    async with read_document(request, service, VocabularyRequest, MOST_BODY_BYTES) as document:
        stored, created = await service.vocabularies.put(name, document.classes, shared=document.shared)
        if created:
            response.status_code = 201
        return _details(stored)


@router.delete(
    "/v1/vocabularies/{name}",
    operation_id="remove_vocabulary",
    summary="Remove a class list",
    status_code=204,
    response_description="It is gone",
    responses=problems(401, 404, 409, 422, 500, 503),
)
async def remove_vocabulary(name: Name, request: Request) -> None:
    """Removes a stored class list; those that come with the service stay."""
    service: Service = request.app.state.service
    await service.vocabularies.delete(name)


def _details(found: StoredVocabulary) -> VocabularyDetails:
    classes = [
        StoredClass(**{"synonyms": entry.synonyms, **entry.model_dump(exclude_defaults=True)})
        for entry in found.entries
    ]
    summary = summary_of(found.name, found.ending, builtin=found.builtin)
    return VocabularyDetails(**summary.model_dump(), classes=classes)
