"""`POST /v1/segment`: an image and class names in, the mask out."""

from fastapi import APIRouter, Request, Response

from service.http.negotiate import negotiate
from service.http.openapi import SEGMENT_ANSWERS, SEGMENT_BODY, SEGMENT_QUERY, problems
from service.http.parsed_request import read_request
from service.runtime import HttpSide
from service.segmentation.answering import HeldResponse, fetching, note, reserving, telling, unless_gone
from service.segmentation.door import Door
from service.segmentation.pipeline import segment as run

router = APIRouter(tags=["segmentation"])


@router.post(
    "/v1/segment",
    operation_id="segment",
    summary="Segment an image",
    response_class=Response,
    responses={
        200: SEGMENT_ANSWERS,
        **problems(400, 401, 404, 406, 408, 413, 415, 422, 424, 429, 500, 503, 504, pictures=True),
    },
    openapi_extra={"requestBody": SEGMENT_BODY, "parameters": SEGMENT_QUERY},
)
async def segment(request: Request) -> Response:
    """Finds the classes that you name in an image.

    Send the image as the part `image` of a multipart form, with a JSON document in the part `request`
    or with plain form fields; or one JSON document with the image in base64; or the image itself as
    the body, with its own `Content-Type`, and the same fields in the query. Where the service's settings
    list its host, an image may be named by its `url` instead. The `Accept` header
    chooses the form of the response, JSON if there is none:

    - `application/json`: a document with the parts that `outputs` lists;
    - `image/png`: the label map. Pixel values are labels: 0 is "other", k the k-th class. Up to 255 classes
      it is a palette image in the classes' colours, beyond that 16-bit grey. The text chunk `classes` holds
      a JSON list of names by label;
    - `image/webp`: the image under its mask;
    - `application/x-npy`: the label map for `numpy.load`, uint16 [H, W].

    Images are turned upright by their EXIF data, and sizes and places are those of the upright image.
    """
    service: HttpSide = request.app.state.service
    door: Door = request.app.state.door
    await door.knock()  # before a body is read for nothing
    form = negotiate(request.headers.get("accept"))
    with reserving(service) as memory:
        parsed = await read_request(request, service, memory, fetching(request, service, memory))
        async with door.admit(memory) as place:
            state = request.state
            work = run(service, door, parsed, place, form, state.request_id, state.since, telling(request))
            answer = await unless_gone(request, work)
        headers = {**note(request, answer.info, answer.seconds, answer.warnings), "Vary": "Accept"}
        return HeldResponse(answer.body, memory, headers=headers, media_type=answer.media_type)
