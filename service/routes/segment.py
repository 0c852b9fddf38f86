"""`POST /v1/segment`: a picture and class names in, the mask out."""

from fastapi import APIRouter, Request, Response

from service.answering import note, unless_gone
from service.intake import read_request
from service.negotiate import negotiate
from service.openapi import SEGMENT_ANSWERS, SEGMENT_BODY, problems
from service.pipeline import segment as run
from service.runtime import Service

router = APIRouter()


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
            answer = await unless_gone(request, work)
    headers = {**note(request, answer.info, answer.seconds), "Vary": "Accept"}
    return Response(answer.body, headers=headers, media_type=answer.media_type)
