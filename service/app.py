"""The web application: routes, middleware, lifespan."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from model.errors import question
from model.pictures.decode import settle_warnings
from service.hot_loading.loader import LoadEngine
from service.http import openapi
from service.http.auth import ApiKeys
from service.http.body_limits import BodyLimits
from service.http.cross_origin import middleware_options
from service.http.direct import Direct
from service.http.middleware import Requests, answer_error
from service.http.problems import NOTHING_HERE
from service.observability.tracing import Tracing
from service.routes import (
    health,
    image_task,
    inference_protocol,
    inference_repository,
    models,
    page,
    segment,
    several,
    vocabularies,
)
from service.runtime import HttpSide, Service
from service.scheduling.engine import Engine
from service.scheduling.host_memory import Count
from service.segmentation.door import Door
from service.segmentation.local_door import LocalDoor
from service.settings import Settings

DESCRIPTION = "An image and a list of class names in, a mask out."


def create_app(
    settings: Settings, *engines: Engine, load: LoadEngine | None = None, count: Count | None = None
) -> FastAPI:
    """Builds the application; nothing is loaded before its lifespan begins.

    Args:
        settings: of the service.
        engines: one loaded version, an engine a device, instead of what the settings name.
        load: makes an engine of a version's folder; `load_engine` if left out.
        count: as of `Service`.

    Raises:
        SettingsError: settings that do not go together, or a device that is not here.
    """
    service = Service(settings, engines, load, count)
    return app_of(service, LocalDoor(service), ApiKeys.of(settings), partial(_served, service))


class Life(HttpSide, Protocol):
    """What the application is around."""

    @property
    def tracing(self) -> Tracing | None: ...  # noqa: D102

    async def start(self) -> None:
        """The application begins."""

    async def stop(self) -> None:
        """It ends."""


def app_of(
    service: Life, door: Door, keys: ApiKeys, served: Callable[[], tuple[str, int] | None] = lambda: None
) -> FastAPI:
    """The application of one process.

    Args:
        service: of the process.
        door: to the engine.
        keys: who may come in.
        served: the default model and its version, for the documents of the interface.
    """
    settings = service.settings

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPIOffline(  # a FastAPI that has the files of /docs itself
        title="EBSeg",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        root_path_in_servers=False,  # the document's own address says it, below further proxies as well
        docs_url=None,  # ours, in page.py, asks for what stands beside it, wherever that is
        redoc_url=None,  # one is enough
        # FastAPI's own would put users' paths and queries into spans; ours are in otlp.py
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.root_path = settings.root_path or ""  # as an argument it would be taken for what a server prepends
    app.state.service = service
    app.state.door = door
    app.state.keys = keys
    own = (
        segment,
        several,
        image_task,
        vocabularies,
        models,
        inference_repository,
        inference_protocol,
        health,
        page,
    )
    routers = [routes.router for routes in own]
    for router in routers:
        app.include_router(router)
    openapi.install(app, keys_required=bool(settings.api_keys), served=served)

    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]

    plain = [route.path for route in routes if "{" not in route.path and route.path != "/"]

    async def on_error(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            # Starlette names the methods of the first route of this path only
            found = [route for route in routes if route.path_regex.match(get_route_path(request.scope))]
            allowed = sorted({method for route in found for method in route.methods or ()})
            error.headers = {"Allow": ", ".join(allowed)}
        elif isinstance(error, HTTPException) and error.detail == HTTPStatus.NOT_FOUND.phrase:
            path, below = request.scope["path"], app.root_path
            if below and path == below:  # relative addresses of the page need the slash, as this one does not
                return RedirectResponse(f"{below.rpartition('/')[2]}/", HTTPStatus.PERMANENT_REDIRECT)
            error.detail = NOTHING_HERE + question(path, [below + one for one in plain])
        return answer_error(error, request.scope, service.metrics)

    # FastAPI has answers of its own to these two; everything else reaches the middleware
    app.add_exception_handler(HTTPException, on_error)
    app.add_exception_handler(RequestValidationError, on_error)
    paths = [*(route.path for route in routes), "/openapi.json"]
    (often,) = (route for route in segment.router.routes if isinstance(route, Route))
    app.add_middleware(Direct, route=often, answer=segment.segment)
    app.add_middleware(
        Requests,
        metrics=service.metrics,
        routes=paths,
        keys=keys,
    )
    if service.tracing is not None:
        app.add_middleware(service.tracing.around)
    app.add_middleware(BodyLimits, settings=settings, metrics=service.metrics)
    if settings.cors_origins:  # outermost: errors are for those pages, too, and preflights have no key
        app.add_middleware(CORSMiddleware, **middleware_options(settings.cors_origins))
    settle_warnings()
    return app


def _served(service: Service) -> tuple[str, int] | None:
    """The default model and the version of it that serves; None while it loads."""
    loaded = service.models.statuses() if service.started else []
    return (loaded[0].name, loaded[0].versions[0].version) if loaded else None


def _version() -> str:
    try:
        return version("ebseg")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
