"""A request of Hugging Face's task image-segmentation, from bytes to what the pipeline takes."""

from starlette.datastructures import QueryParams
from starlette.requests import Request

from service.errors import FieldProblem, InvalidRequestError, invalid
from service.http.body import read_body
from service.http.form_fields import document_of, problems_of_names
from service.http.parsed_request import (
    PARSED,
    ParsedRequest,
    decoded,
    media_type,
    refuse_encoded,
    validated,
)
from service.runtime import HttpSide
from service.scheduling.host_memory import HostAccount
from service.schemas.image_task import TaskParameters, TaskRequest
from service.schemas.segment import SegmentRequest

IN_TASK_QUERY = ("classes", "vocabulary", "templates", "model", "version", "timeout_ms")


async def read_task(request: Request, service: HttpSide, memory: HostAccount) -> tuple[ParsedRequest, float]:
    """Reads a request: the picture as the body, or a JSON document with parameters.

    Args:
        request: whose body was not read; clients send pictures under any media type, or none.
        service: whose threads parse.
        memory: where the body's bytes are reserved as they come.

    Returns:
        The request, and the least score of a segment.

    Raises:
        MalformedRequestError, InvalidRequestError, UnsupportedMediaError: it cannot be used.
        HostMemoryError, TooMuchMemoryError: as of `HostAccount.take`.
    """
    refuse_encoded(request)
    chunks = await read_body(request, memory)
    memory.hold(PARSED * memory.nbytes)
    document = media_type(request) == "application/json"
    parsed = await service.in_pool(_parsed, request.query_params, chunks, document)
    memory.hold(0)
    return parsed


def _parsed(query: QueryParams, chunks: list[bytes], document: bool) -> tuple[ParsedRequest, float]:
    body = b"".join(chunks)
    chunks.clear()
    parameters = TaskParameters()
    if document:
        whole = validated(TaskRequest, body)
        parameters = whole.parameters
        body = decoded("inputs", whole.inputs)
    return ParsedRequest(_spec(query, parameters), [body].pop), parameters.threshold


def _spec(query: QueryParams, parameters: TaskParameters) -> SegmentRequest:
    if problems := problems_of_names(query, IN_TASK_QUERY):
        raise InvalidRequestError(problems)
    fields = document_of(query)
    for name in ("classes", "vocabulary"):
        value = getattr(parameters, name)
        if value is not None:
            if name in fields:
                raise invalid(name, "give it in the query or in parameters")
            fields[name] = value
    if "classes" not in fields and "vocabulary" not in fields:
        why = "say what to look for: parameters.classes, or ?classes=sky,tree behind the address"
        raise InvalidRequestError([FieldProblem("classes", why)])
    if parameters.mask_threshold is not None:
        fields["background"] = {"threshold": parameters.mask_threshold}
    return validated(SegmentRequest, fields)
