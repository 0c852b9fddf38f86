"""`/v1/models`: what is loaded."""

from fastapi import APIRouter, Request

from service.engine import ModelInfo
from service.errors import NotFoundError
from service.openapi import problems
from service.runtime import Service
from service.schemas import ModelDetails, ModelList

router = APIRouter()


@router.get("/v1/models", summary="List the loaded models", responses=problems(500))
async def models(request: Request) -> ModelList:
    """The models that requests are answered by; none while the first is loading."""
    service: Service = request.app.state.service
    return ModelList(models=[_details(service.engine.info)] if service.started else [])


@router.get("/v1/models/{name}", summary="Describe a loaded model", responses=problems(404, 500))
async def model(name: str, request: Request) -> ModelDetails:
    """One loaded model."""
    service: Service = request.app.state.service
    if not service.started or name != service.engine.info.name:
        raise NotFoundError("this model is not loaded; GET /v1/models lists what is")
    return _details(service.engine.info)


def _details(info: ModelInfo) -> ModelDetails:
    return ModelDetails(
        name=info.name,
        version=info.version,
        digest=info.digest,
        untrained=info.untrained,
        variant=info.variant,
        device=info.device,
        dtype=info.dtype,
    )
