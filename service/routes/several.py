"""`POST /v1/segment/batch`: several images and one list of class names in, as many masks out."""

from functools import partial

from fastapi import APIRouter, Request, Response

from service.http.auth import ApiKeys
from service.http.negotiate import form_of_parts, wants_parts
from service.http.openapi import SEVERAL_ANSWERS, SEVERAL_BODY, problems
from service.http.parsed_several import read_several
from service.runtime import HttpSide
from service.segmentation.answering import HeldResponse, reserving, unless_gone
from service.segmentation.door import Door
from service.segmentation.resolved import chosen_vocabulary
from service.segmentation.several import joined, segment_all

router = APIRouter(tags=["segmentation"])


@router.post(
    "/v1/segment/batch",
    operation_id="segment_batch",
    summary="Segment several images",
    response_class=Response,
    responses={
        200: SEVERAL_ANSWERS,
        **problems(400, 401, 404, 406, 408, 413, 415, 422, 429, 500, 503, pictures=True),
    },
    openapi_extra={"requestBody": SEVERAL_BODY},
)
async def segment_batch(request: Request) -> Response:
    """Finds the same classes in several images, which share batches on the device.

    Send each image as a part `image` of one multipart form, or its address as a field `url`, and the
    rest of the request once. The response is a JSON array in the order of the images, each with a `status`
    and an `answer` or a `problem`, as `/v1/segment` would answer it alone. With
    `Accept: multipart/mixed, image/png`, or another form, it is multipart: each part has its own
    `Content-Type`, and its status in `X-Status`.

    An image that cannot be read, or for which there is no room, fails alone. All share one time limit.
    """
    service: HttpSide = request.app.state.service
    door: Door = request.app.state.door
    accept = request.headers.get("accept")
    await door.knock()
    form, parts = form_of_parts(accept), wants_parts(accept)
    keys: ApiKeys = request.app.state.keys
    used = partial(keys.using, keys.check(request.scope))
    with reserving(service) as memory:
        parsed = await read_several(request, service, memory)
        await chosen_vocabulary(service, door, parsed.spec)  # what is wrong with all of them is said once
        answers = await unless_gone(request, segment_all(request, service, door, parsed, form, used))
        body, media_type = joined(answers, parts, memory)
        return HeldResponse(body, memory, headers={"Vary": "Accept"}, media_type=media_type)
