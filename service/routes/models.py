"""`/v1/models`: what is loaded, and which version of it serves."""

from fastapi import APIRouter, Depends, Request

from service.auth import require_admin
from service.hot_loading.models import Models
from service.model_schemas import ModelChange, ModelDetails, ModelList, PinRequest
from service.openapi import problems
from service.runtime import Service

router = APIRouter()
ADMIN = [Depends(require_admin)]
REFUSALS = problems(401, 403, 404, 408, 409, 413, 422, 500, 503, 504)


@router.get("/v1/models", summary="List the loaded models", responses=problems(500))
async def models(request: Request) -> ModelList:
    """The models that requests are answered by; none while the first is loading."""
    return ModelList(models=[ModelDetails.of(status) for status in _models(request).statuses()])


@router.get("/v1/models/{name}", summary="Describe a loaded model", responses=problems(404, 422, 500))
async def model(name: str, request: Request) -> ModelDetails:
    """One loaded model: its versions in memory, and those that were refused, with the reason."""
    return ModelDetails.of(_models(request).status(name))


@router.post(
    "/v1/models/{name}:pin",
    summary="Stay at a version",
    dependencies=ADMIN,
    responses=REFUSALS | problems(400),
)
async def pin(name: str, body: PinRequest, request: Request) -> ModelChange:
    """Serves a version of the registry, loaded and checked as any other, until the model is unpinned."""
    return _changed(request, name, await _models(request).pin(name, body.version))


@router.post("/v1/models/{name}:unpin", summary="Follow the registry", dependencies=ADMIN, responses=REFUSALS)
async def unpin(name: str, request: Request) -> ModelChange:
    """Goes back to the policy of the settings, or to the newest version if that is a pin, too."""
    return _changed(request, name, await _models(request).unpin(name))


@router.post(
    "/v1/models/{name}:rollback",
    summary="Go back to the version before",
    dependencies=ADMIN,
    responses=REFUSALS,
)
async def rollback(name: str, request: Request) -> ModelChange:
    """Serves the version that served before, until unpinned; a canary is withdrawn instead."""
    return _changed(request, name, await _models(request).rollback(name))


@router.post(
    "/v1/models/{name}:reload",
    summary="Look at the registry now",
    dependencies=ADMIN,
    responses=REFUSALS,
)
async def reload(name: str, request: Request) -> ModelChange:
    """Gives refused versions another chance, loads what is newer, and tells what came of it."""
    return _changed(request, name, await _models(request).reload(name))


def _models(request: Request) -> Models:
    service: Service = request.app.state.service
    return service.models


def _changed(request: Request, name: str, done: str) -> ModelChange:
    return ModelChange(done=done, model=ModelDetails.of(_models(request).status(name)))
