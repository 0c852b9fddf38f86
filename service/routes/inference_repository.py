"""`/v2`: which models there are, how they are set up, and what they did, as Triton's clients ask for it."""

from contextlib import closing

from fastapi import APIRouter, Request

from service.http.body import read_body
from service.http.openapi import json_body, named
from service.http.parsed_request import validated
from service.inference_protocol.statistics import statistics_of
from service.routes.inference_protocol import Model, Version
from service.runtime import Service
from service.schemas.inference_protocol import INPUTS, OUTPUTS, PLATFORM, errors
from service.schemas.inference_repository import (
    ConfiguredTensor,
    DynamicBatching,
    IndexEntry,
    IndexRequest,
    ModelConfiguration,
    ModelStatistics,
)
from service.segmentation.local_door import live_versions

router = APIRouter(tags=["inference protocol"])
_MOST = 1024  # bytes of a request for the index
_ALWAYS = ("image",)  # classes may be a vocabulary's


@router.post(
    "/v2/repository/index",
    operation_id="v2_repository_index",
    summary="List the models",
    response_description="Every version that serves, and models of which none does",
    responses=errors(400, 401, 408, 413, 422, 429, 500),
    openapi_extra={"requestBody": {**json_body(named("IndexRequest"))["requestBody"], "required": False}},
)
async def repository_index(request: Request) -> list[IndexEntry]:
    """What can be asked for; with `{"ready": true}` only that."""
    service: Service = request.app.state.service
    with closing(service.memory.open()) as memory:
        body = b"".join(await read_body(request, memory, most=_MOST))
    asked = validated(IndexRequest, body) if body else IndexRequest()
    entries = [
        IndexEntry(name=model.name, version=str(one.version), state="READY", reason="")
        for model in service.models.statuses()
        for one in model.versions
        if one.role != "draining"
    ]
    if not asked.ready:
        missing = service.models.missing().items()
        entries += [IndexEntry(name=name, state="UNAVAILABLE", reason=reason) for name, reason in missing]
    return entries


@router.get(
    "/v2/models/stats",
    operation_id="v2_stats",
    summary="Statistics of all models",
    response_description="Counts and times of every version in memory",
    responses=errors(401, 500),
)
async def stats(request: Request) -> ModelStatistics:
    """Counts and times since each version was loaded, in this process."""
    service: Service = request.app.state.service
    return ModelStatistics(
        model_stats=[
            statistics_of(service.metrics, model.name, str(one.version))
            for model in service.models.statuses()
            for one in model.versions
        ]
    )


@router.get(
    "/v2/models/{model}/stats",
    operation_id="v2_model_stats",
    summary="Statistics of a model",
    response_description="Counts and times of its versions",
    responses=errors(401, 404, 500, 503),
)
async def model_stats(model: Model, request: Request) -> ModelStatistics:
    """The same for one model."""
    return _stats(request, model, live_versions(request.app.state.service, model, None))


@router.get(
    "/v2/models/{model}/versions/{version}/stats",
    operation_id="v2_version_stats",
    summary="Statistics of a version",
    response_description="Counts and times of this version",
    responses=errors(401, 404, 500, 503),
)
async def version_stats(model: Model, version: Version, request: Request) -> ModelStatistics:
    """The same for one version."""
    live_versions(request.app.state.service, model, version)
    return _stats(request, model, [version])


@router.get(
    "/v2/models/{model}/config",
    operation_id="v2_config",
    summary="Configuration of a model",
    response_description="Its tensors, and how requests share batches",
    response_model_exclude_none=True,
    responses=errors(401, 404, 500, 503),
)
async def config(model: Model, request: Request) -> ModelConfiguration:
    """How a model is set up, in Triton's words."""
    return _config(request, model, None)


@router.get(
    "/v2/models/{model}/versions/{version}/config",
    operation_id="v2_version_config",
    summary="Configuration of a version",
    response_description="Its model's tensors, and how requests share batches",
    response_model_exclude_none=True,
    responses=errors(401, 404, 500, 503),
)
async def version_config(model: Model, version: Version, request: Request) -> ModelConfiguration:
    """The same, if this version can be asked for."""
    return _config(request, model, version)


def _stats(request: Request, model: str, versions: list[str]) -> ModelStatistics:
    service: Service = request.app.state.service
    return ModelStatistics(model_stats=[statistics_of(service.metrics, model, one) for one in versions])


def _config(request: Request, model: str, version: str | None) -> ModelConfiguration:
    service: Service = request.app.state.service
    live_versions(service, model, version)
    settings = service.settings
    return ModelConfiguration(
        name=model,
        platform=PLATFORM,
        backend="ebseg",
        max_batch_size=0,
        input=[ConfiguredTensor.of(one, optional=one.name not in _ALWAYS) for one in INPUTS.values()],
        output=[ConfiguredTensor.of(one) for one in OUTPUTS.values()],
        dynamic_batching=DynamicBatching(
            preferred_batch_size=[settings.max_batch_size],
            max_queue_delay_microseconds=round(1000 * settings.max_batch_delay_ms),
        ),
    )
