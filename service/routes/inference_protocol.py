"""`/v2`: the Open Inference Protocol, as KServe and Triton have it, for clients that speak it already."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from service.errors import MalformedRequestError
from service.http.body import read_body
from service.http.parsed_request import PARSED, refuse_encoded
from service.inference_protocol.answer import BINARY, JSON, InferenceReply, check_size, encode_inference
from service.inference_protocol.protocol import Inference, read_inference
from service.routes import health
from service.runtime import HttpSide
from service.scheduling.host_memory import HostAccount
from service.schemas.inference_protocol import (
    EXTENSIONS,
    HEADER,
    INPUTS,
    OUTPUTS,
    PLATFORM,
    InferenceAnswer,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    errors,
    metadata_of,
)
from service.segmentation.answering import HeldResponse, note, reserving, telling, unless_gone
from service.segmentation.door import Door
from service.segmentation.local_door import live_versions
from service.segmentation.pipeline import ResponseSpec, handle

Model = Annotated[str, Path(description="one of GET /v1/models", examples=["ebseg-tiny"])]
Version = Annotated[str, Path(description="one that serves, from GET /v2/models/{model}", examples=["1"])]

router = APIRouter(tags=["inference protocol"])
_LENGTH: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "integer", "minimum": 0},
    "description": "where binary data follows the JSON document: the document's length, bytes",
}
_BINARY: dict[str, Any] = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
_INFER: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        **errors(400, 401, 404, 408, 413, 415, 422, 429, 500, 503, 504),
        200: {
            "model": InferenceAnswer,
            "description": "The outputs; with binary data, the document and what is behind it",
            "content": _BINARY,
            "headers": {HEADER: {key: _LENGTH[key] for key in ("schema", "description")}},
        },
    },
    "openapi_extra": {
        "parameters": [_LENGTH],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}, **_BINARY},
        },
    },
}


@router.get(
    "/v2",
    operation_id="v2_server",
    summary="Describe the server",
    response_description="What it is, and which extensions it has",
    responses=errors(401, 500),
)
async def server(request: Request) -> ServerMetadata:
    """Name, version, and the extensions of the protocol that are understood."""
    return ServerMetadata(name="ebseg", version=request.app.version, extensions=EXTENSIONS)


@router.get(
    "/v2/health/live",
    operation_id="v2_live",
    summary="Is the server alive?",
    response_description="Yes",
    responses=errors(500, 503),
)
async def live(request: Request) -> Live:
    """200 whenever /livez has it."""
    await health.livez(request)
    return Live(live=True)


@router.get(
    "/v2/health/ready",
    operation_id="v2_ready",
    summary="Does the server take requests?",
    response_description="Yes",
    responses=errors(500, 503),
)
async def ready(request: Request) -> Ready:
    """200 whenever /readyz has it."""
    await health.readyz(request)
    return Ready(ready=True)


@router.get(
    "/v2/models/{model}",
    operation_id="v2_model",
    summary="Describe a model's tensors",
    response_description="Its tensors and versions",
    responses=errors(401, 404, 500, 503),
)
async def model_metadata(model: Model, request: Request) -> ModelMetadata:
    """What a model takes and gives, and which of its versions can be asked for."""
    return _metadata(request, model, None)


@router.get(
    "/v2/models/{model}/versions/{version}",
    operation_id="v2_version",
    summary="Describe a version's tensors",
    response_description="Its model's tensors and versions",
    responses=errors(401, 404, 500, 503),
)
async def version_metadata(model: Model, version: Version, request: Request) -> ModelMetadata:
    """The same, if this version can be asked for."""
    return _metadata(request, model, version)


@router.get(
    "/v2/models/{model}/ready",
    operation_id="v2_model_ready",
    summary="Does a model take requests?",
    response_description="Yes",
    responses=errors(401, 404, 500, 503),
)
async def model_ready(model: Model, request: Request) -> ModelReady:
    """200 if it does; 404 if there is no such model."""
    return await _ready(request, model, None)


@router.get(
    "/v2/models/{model}/versions/{version}/ready",
    operation_id="v2_version_ready",
    summary="Does a version take requests?",
    response_description="Yes",
    responses=errors(401, 404, 500, 503),
)
async def version_ready(model: Model, version: Version, request: Request) -> ModelReady:
    """The same for one version."""
    return await _ready(request, model, version)


@router.post(
    "/v2/models/{model}/infer",
    operation_id="v2_infer",
    summary="Segment an image, by protocol",
    **_INFER,
)
async def infer(model: Model, request: Request) -> Response:
    """Finds the classes in an image; the version is chosen by the model's policy.

    `GET /v2/models/{model}` lists the tensors. Binary data stands behind the JSON document, tensor after
    tensor in the document's order, little-endian and row by row; every element of BYTES is its length in
    four bytes and then itself. The header `Inference-Header-Content-Length` tells where the document ends, in
    requests and in responses.
    """
    return await _infer(request, model, None)


@router.post(
    "/v2/models/{model}/versions/{version}/infer",
    operation_id="v2_infer_version",
    summary="Segment an image with a version, by protocol",
    **_INFER,
)
async def infer_version(model: Model, version: Version, request: Request) -> Response:
    """The same by one version."""
    return await _infer(request, model, version)


async def _infer(request: Request, model: str, version: str | None) -> Response:
    service: HttpSide = request.app.state.service
    door: Door = request.app.state.door
    await door.knock(model, version)  # before a body is read for nothing
    with reserving(service) as memory:
        inference = await _read(request, service, memory, model, version)
        spec: ResponseSpec[InferenceReply] = ResponseSpec(
            outputs=frozenset(),
            check=partial(check_size, inference),
            encode=partial(encode_inference, inference=inference),
        )
        async with door.admit(memory) as place:
            state, parsed = request.state, inference.parsed
            work = handle(service, door, parsed, place, spec, state.request_id, state.since, telling(request))
            reply = await unless_gone(request, work)
        headers = {**note(request, reply.info, reply.seconds, reply.warnings), **reply.headers}
        return HeldResponse(reply.body, memory, headers=headers, media_type=reply.media_type)


async def _read(
    request: Request, service: HttpSide, memory: HostAccount, model: str, version: str | None
) -> Inference:
    refuse_encoded(request)
    lengths = request.headers.getlist(HEADER)
    if len(lengths) > 1:
        raise MalformedRequestError(f"{HEADER} is there twice")
    chunks = await read_body(request, memory)
    memory.hold(PARSED * memory.nbytes)
    inference = await service.in_pool(
        read_inference,
        chunks,
        lengths[0] if lengths else None,
        model=model,
        version=None if version is None else int(version),
    )
    memory.hold(0)
    return inference


def _metadata(request: Request, model: str, version: str | None) -> ModelMetadata:
    versions = live_versions(request.app.state.service, model, version)
    return ModelMetadata(
        name=model,
        versions=versions,
        platform=PLATFORM,
        inputs=metadata_of(INPUTS),
        outputs=metadata_of(OUTPUTS),
    )


async def _ready(request: Request, model: str, version: str | None) -> ModelReady:
    live_versions(request.app.state.service, model, version)
    await health.readyz(request)
    return ModelReady(name=model, ready=True)
