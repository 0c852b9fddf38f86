"""`POST /v1/tasks/image-segmentation`: Hugging Face's task, for clients that speak it already."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from service.http.openapi import SEGMENT_QUERY, problems
from service.http.parsed_task import IN_TASK_QUERY, read_task
from service.runtime import HttpSide
from service.schemas.image_task import TaskSegment
from service.segmentation.answering import HeldResponse, note, reserving, telling, unless_gone
from service.segmentation.door import Door
from service.segmentation.image_task import TaskAnswer, encode_task
from service.segmentation.pipeline import ResponseSpec, handle

router = APIRouter(tags=["segmentation"])
_QUERY: list[dict[str, Any]] = [one for one in SEGMENT_QUERY if one["name"] in IN_TASK_QUERY]
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/TaskRequest"}},
        "image/*": {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "the image itself, told by its content; the rest is the query",
            }
        },
    },
}


@router.post(
    "/v1/tasks/image-segmentation",
    operation_id="segment_task",
    summary="Segment an image, as Hugging Face's task",
    response_description="The classes that were found, in the order that they were asked for",
    responses={
        200: {"model": list[TaskSegment]},
        **problems(400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504, pictures=True),
    },
    openapi_extra={"requestBody": _BODY, "parameters": _QUERY},
)
async def segment_task(request: Request) -> Response:
    """What `InferenceClient.image_segmentation` of `huggingface_hub` asks for.

    The body is the image, or a JSON document of `inputs`, the image in base64, and `parameters`. The task
    has no word for classes: they stand in the query of the address that the client is given, or in
    `parameters`. A mask is a grey PNG of the image's size; the score is the mean confidence over
    its pixels.
    """
    service: HttpSide = request.app.state.service
    door: Door = request.app.state.door
    await door.knock()  # before a body is read for nothing
    with reserving(service) as memory:
        parsed, threshold = await read_task(request, service, memory)
        spec: ResponseSpec[TaskAnswer] = ResponseSpec(
            outputs=frozenset(),
            check=lambda size, classes: None,
            encode=partial(encode_task, threshold=threshold),
        )
        async with door.admit(memory) as place:
            state = request.state
            work = handle(service, door, parsed, place, spec, state.request_id, state.since, telling(request))
            answer = await unless_gone(request, work)
        headers = note(request, answer.info, answer.seconds, answer.warnings)
        return HeldResponse(answer.body, memory, headers=headers, media_type="application/json")
