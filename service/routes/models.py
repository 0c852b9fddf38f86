"""`/v1/models`: what is loaded, and which version of it serves."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from service.caller import caller_var
from service.hot_loading.models import Models
from service.hot_loading.status import ModelStatus
from service.http.auth import NEEDED, is_admin, require_admin
from service.http.openapi import json_body, named, problems
from service.http.parsed_request import read_document
from service.runtime import Service
from service.schemas.models import (
    CanaryRequest,
    MissingModel,
    ModelChange,
    ModelDetails,
    ModelList,
    PinRequest,
)

Name = Annotated[str, Path(description="one of GET /v1/models", examples=["ebseg-tiny"])]

router = APIRouter(tags=["models"])
ADMIN = [Depends(require_admin)]
FOR_ADMINS = {"security": NEEDED}
MOST_PIN_BYTES = 4096  # of a body that says which version
DONE = "What was done, and the model after it"
REFUSALS = problems(401, 403, 404, 408, 409, 413, 422, 500, 503, 504)


@router.get(
    "/v1/models",
    operation_id="list_models",
    summary="List the loaded models",
    response_description="The models, the default one first",
    responses=problems(500),
)
async def models(request: Request) -> ModelList:
    """The models that requests are answered by, none while the first is loading; and what is missing."""
    in_full = is_admin(request)
    return ModelList(
        models=[_details(status, in_full) for status in _models(request).statuses()],
        missing=[
            MissingModel(name=name, reason=reason) for name, reason in _models(request).missing().items()
        ],
    )


@router.get(
    "/v1/models/{name}",
    operation_id="get_model",
    summary="Describe a loaded model",
    response_description="The model",
    responses=problems(404, 422, 500),
)
async def model(name: Name, request: Request) -> ModelDetails:
    """One loaded model: its versions in memory, and those that were refused, with the reason."""
    return _details(_models(request).status(name), is_admin(request))


@router.post(
    "/v1/models/{name}:pin",
    operation_id="pin_model",
    summary="Stay at a version",
    response_description=DONE,
    dependencies=ADMIN,
    responses=REFUSALS | problems(400, 415),
    openapi_extra=FOR_ADMINS | json_body(named("PinRequest")),
)
async def pin(name: Name, request: Request) -> ModelChange:
    """Serves a version of the registry, loaded and checked as any other, until the model is unpinned.

    It is written into the registry's serving.json, which every process that follows the registry obeys.
    """
    async with read_document(request, request.app.state.service, PinRequest, MOST_PIN_BYTES) as asked:
        return _changed(request, name, await _models(request).pin(name, asked.version, caller_var.get().name))


@router.post(
    "/v1/models/{name}:unpin",
    operation_id="unpin_model",
    summary="Follow the registry",
    response_description=DONE,
    dependencies=ADMIN,
    responses=REFUSALS,
    openapi_extra=FOR_ADMINS,
)
async def unpin(name: Name, request: Request) -> ModelChange:
    """Goes back to the policy of the settings, or to the newest version if that is a pin, too."""
    return _changed(request, name, await _models(request).unpin(name, caller_var.get().name))


@router.post(
    "/v1/models/{name}:rollback",
    operation_id="rollback_model",
    summary="Go back to the version before",
    response_description=DONE,
    dependencies=ADMIN,
    responses=REFUSALS,
    openapi_extra=FOR_ADMINS,
)
async def rollback(name: Name, request: Request) -> ModelChange:
    """Serves the version that served before, until unpinned; a canary is withdrawn instead."""
    return _changed(request, name, await _models(request).rollback(name, caller_var.get().name))


@router.post(
    "/v1/models/{name}:canary",
    operation_id="try_model",
    summary="Try a version on a part of the requests",
    response_description=DONE,
    dependencies=ADMIN,
    responses=REFUSALS | problems(400, 415),
    openapi_extra=FOR_ADMINS | json_body(named("CanaryRequest")),
)
async def canary(name: Name, request: Request) -> ModelChange:
    """Tries a version beside the one that serves, in every process, until somebody decides."""
    async with read_document(request, request.app.state.service, CanaryRequest, MOST_PIN_BYTES) as asked:
        by = caller_var.get().name
        done = await _models(request).canary(name, asked.version, asked.percent, by)
        return _changed(request, name, done)


@router.post(
    "/v1/models/{name}:reload",
    operation_id="reload_model",
    summary="Look at the registry now",
    response_description=DONE,
    dependencies=ADMIN,
    responses=REFUSALS,
    openapi_extra=FOR_ADMINS,
)
async def reload(name: Name, request: Request) -> ModelChange:
    """Gives refused versions another chance, loads what is newer, and tells what came of it."""
    return _changed(request, name, await _models(request).reload(name))


def _details(status: ModelStatus, in_full: bool) -> ModelDetails:
    """A model as it is shown; the reason of a failure in full for administrators only."""
    current = status.versions[0]
    same = ("version", "digest", "untrained", "variant", "device", "dtype", "license", "card")
    values = asdict(status)
    public = values.pop("public_error")
    if not in_full:
        values["last_error"] = public
    return ModelDetails(**values, **{field: getattr(current, field) for field in same})


def _models(request: Request) -> Models:
    service: Service = request.app.state.service
    return service.models


def _changed(request: Request, name: str, done: str) -> ModelChange:
    return ModelChange(done=done, model=_details(_models(request).status(name), True))
