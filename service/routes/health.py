"""Is the process alive, has it started, is it ready; and the metrics."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, Field

from service.caches.breaker import State
from service.errors import UnhealthyError
from service.http.openapi import problems
from service.observability.watch import stalled
from service.runtime import Service

router = APIRouter(tags=["operation"])
_UNHEALTHY = problems(503, only="not-ready")
_OF_BREAKER = {State.CLOSED: "ok", State.HALF_OPEN: "trying", State.OPEN: "away"}
_OPENMETRICS = "application/openmetrics-text"


class HealthAnswer(BaseModel):
    """What is well, and what the service leans on; a 503 has the reason instead."""

    status: Literal["alive", "started", "ready"] = Field(description="what was asked for, and holds")
    models: dict[str, int] = Field(description="version that serves, by model", examples=[{"ebseg-base": 3}])
    checks: dict[str, str] = Field(
        description="parts and their state. devices: ok. redis: ok, trying (one lookup, after it was away), "
        "away or none. registry: ok, failing or none. models: ok, or which of the settings' models do not "
        "serve, and why. versions: ok, or which are not all in the registry yet, and what they lack. Redis, "
        "a registry, models and versions that fail leave the service ready as long as one model serves",
        examples=[{"devices": "ok", "redis": "ok", "registry": "ok", "models": "ok", "versions": "ok"}],
    )


@router.get(
    "/livez",
    operation_id="livez",
    summary="Is the process alive?",
    response_description="Yes",
    responses=_UNHEALTHY,
)
async def livez(request: Request) -> HealthAnswer:
    """200 while a restart would not help; 503 when the model could not be loaded or a device is stuck."""
    service: Service = request.app.state.service
    if service.state == "failed":
        raise UnhealthyError(service.reason)
    _refuse_if_stalled(service)
    return _answer(service, "alive")


@router.get(
    "/startupz",
    operation_id="startupz",
    summary="Has it started?",
    response_description="Yes",
    responses=_UNHEALTHY,
)
async def startupz(request: Request) -> HealthAnswer:
    """200 from the moment that a model was loaded; until then 503 says what is waited for."""
    service: Service = request.app.state.service
    if not service.started:
        raise UnhealthyError(service.reason)
    return _answer(service, "started")


@router.get(
    "/ping",
    operation_id="ping",
    summary="Does it take requests? As SageMaker asks",
    response_description="Yes",
    responses=_UNHEALTHY,
)
@router.get(
    "/health",
    operation_id="health",
    summary="Does it take requests? As many platforms ask",
    response_description="Yes",
    responses=_UNHEALTHY,
)
@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Does it take requests?",
    response_description="Yes",
    responses=_UNHEALTHY,
)
async def readyz(request: Request) -> HealthAnswer:
    """200 while requests are taken; otherwise 503 with the reason: loading, draining, failed or stuck."""
    service: Service = request.app.state.service
    if service.state != "ready":
        raise UnhealthyError(service.reason)
    _refuse_if_stalled(service)
    return _answer(service, "ready")


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus' text format, or OpenMetrics if `Accept` names it",
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                _OPENMETRICS: {"schema": {"type": "string"}},
            },
        }
    },
)
async def metrics(request: Request) -> Response:
    """Counters and histograms of this process; all begin with `ebseg_`."""
    service: Service = request.app.state.service
    if _OPENMETRICS in request.headers.get("accept", ""):
        encode, media_type = choose_encoder(_OPENMETRICS)
        return Response(encode(service.metrics.registry), media_type=media_type)
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _refuse_if_stalled(service: Service) -> None:
    if reason := stalled(service):
        raise UnhealthyError(reason)


def _answer(service: Service, status: Literal["alive", "started", "ready"]) -> HealthAnswer:
    statuses = service.models.statuses()
    return HealthAnswer(
        status=status,
        models={
            model.name: version.version
            for model in statuses
            for version in model.versions
            if version.role == "current"
        },
        checks={
            "devices": stalled(service) or "ok",
            "redis": _redis(service),
            "registry": _registry(service, failing=any(model.last_error for model in statuses)),
            "models": "; ".join(f"{name}: {reason}" for name, reason in service.models.missing().items())
            or "ok",
            "versions": "; ".join(
                f"{model.name}/{version.version}: {version.reason}"
                for model in statuses
                for version in model.unfinished
            )
            or "ok",
        },
    )


def _redis(service: Service) -> str:
    if service.settings.redis_url is None:
        return "none"
    (gauge,) = service.metrics.breaker_state.collect()
    return _OF_BREAKER[State(int(gauge.samples[0].value))]


def _registry(service: Service, *, failing: bool) -> str:
    if service.settings.registry is None:
        return "none"
    return "failing" if failing else "ok"
