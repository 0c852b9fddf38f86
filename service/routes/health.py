"""Is the process alive, has it started, is it ready; and the metrics."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.errors import UnhealthyError
from service.openapi import problems
from service.runtime import Service
from service.schemas import Health

router = APIRouter()


@router.get("/livez", summary="Is the process alive?", responses=problems(503))
async def livez(request: Request) -> Health:
    """200 while a restart would not help; 503 once the model could not be loaded."""
    service: Service = request.app.state.service
    if service.state == "failed":
        raise UnhealthyError(service.reason)
    return Health(status="alive")


@router.get("/startupz", summary="Has it started?", responses=problems(503))
async def startupz(request: Request) -> Health:
    """200 from the moment that the first model was loaded."""
    service: Service = request.app.state.service
    if not service.started:
        raise UnhealthyError(service.reason)
    return Health(status="started")


@router.get("/readyz", summary="Does it take requests?", responses=problems(503))
async def readyz(request: Request) -> Health:
    """200 while requests are taken; otherwise 503 with the reason."""
    service: Service = request.app.state.service
    if service.state != "ready":
        raise UnhealthyError(service.reason)
    return Health(status="ready")


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Counters and histograms of this process; all begin with `ebseg_`."""
    service: Service = request.app.state.service
    return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
