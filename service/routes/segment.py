"""`POST /v1/segment`: a picture and class names in, the mask out."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response

from service.errors import ClientGoneError
from service.intake import read_request
from service.negotiate import negotiate
from service.openapi import SEGMENT_ANSWERS, SEGMENT_BODY, problems
from service.pipeline import segment as run
from service.runtime import Service

router = APIRouter()
T = TypeVar("T")


@router.post(
    "/v1/segment",
    summary="Segment a picture",
    response_class=Response,
    responses={200: SEGMENT_ANSWERS, **problems(400, 401, 404, 406, 408, 413, 415, 422, 429, 500, 503, 504)},
    openapi_extra={"requestBody": SEGMENT_BODY},
)
async def segment(request: Request) -> Response:
    """Finds the classes that you name in a picture.

    Send the picture as the part `image` of a multipart form, with a JSON document in the part `request`
    or with plain form fields; or one JSON document with the picture in base64. The `Accept` header
    chooses the form of the answer: `application/json`, `image/png` (indexed label map), `image/webp` (the
    picture under its mask) or `application/x-npy` (label map, uint16).
    """
    service: Service = request.app.state.service
    service.refuse_unless_ready()
    form = negotiate(request.headers.get("accept"))
    with service.admission.admit() as ticket:
        async with read_request(request, service) as intake:
            work = run(service, intake, ticket, form, request.state.request_id)
            answer = await _unless_gone(request, work)
    request.state.seconds = answer.seconds
    info = answer.info
    request.state.model = f"{info.name}/{info.version}"
    headers = {"X-EBSeg-Model": request.state.model, "Vary": "Accept"}
    if info.untrained:
        headers["X-EBSeg-Untrained"] = "true"
    return Response(answer.body, headers=headers, media_type=answer.media_type)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Runs `work`, and cancels it when the client hangs up.

    Raises:
        ClientGoneError: it did.
    """
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGoneError("the client hung up before its answer was ready")
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
