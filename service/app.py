"""The web application: routes, middleware, lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service import openapi
from service.decode import settle_warnings
from service.engine import Engine, TorchEngine, load_segmenter
from service.middleware import BodyLimits, Requests, answer_error
from service.routes import health, models, segment, vocabularies
from service.runtime import Service
from service.settings import Settings

DESCRIPTION = "A picture and a list of class names in, a mask out."


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Builds the application; nothing is loaded before its lifespan begins.

    Args:
        settings: of the service.
        engine: instead of a `TorchEngine` on the settings' checkpoint.

    Raises:
        SettingsError: neither an engine nor a checkpoint.
    """
    service = Service(settings, engine or torch_engine(settings))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="EBSeg",
        version=_version(),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    for routes in (segment, vocabularies, models, health):
        app.include_router(routes.router)
    openapi.install(app)

    async def on_error(request: Request, error: Exception) -> Response:
        return answer_error(error, request.state.request_id, service.metrics)

    # FastAPI has answers of its own to these two; everything else reaches the middleware
    app.add_exception_handler(HTTPException, on_error)
    app.add_exception_handler(RequestValidationError, on_error)
    paths = [*app.openapi()["paths"], "/docs", "/redoc", "/openapi.json"]
    app.add_middleware(Requests, metrics=service.metrics, routes=paths)
    app.add_middleware(BodyLimits, max_bytes=settings.max_bytes, seconds=settings.body_timeout_s)
    settle_warnings()
    return app


def torch_engine(settings: Settings, *, verify_digests: bool = True) -> TorchEngine:
    """The engine that the settings describe.

    Raises:
        CheckpointError: none is set, and the package holds none.
    """
    return TorchEngine(
        partial(
            load_segmenter,
            settings.checkpoint_folder(),
            device=settings.device,
            dtype=settings.dtype,
            verify_digests=verify_digests,
        )
    )


def _version() -> str:
    try:
        return version("ebseg")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0"
