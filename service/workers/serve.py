"""One process for all, or several: as the setting `workers` says."""

from service.app import create_app
from service.hot_loading.loader import LoadEngine
from service.observability.logging import configure
from service.scheduling.engine import Engine
from service.server import run_server
from service.settings import Settings
from service.workers.family import run_workers


def serve(
    settings: Settings,
    *engines: Engine,
    load: LoadEngine | None = None,
    began: float | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT, and logs; arguments and errors as of `run_workers`, the exit code."""
    if settings.workers > 1:
        return run_workers(settings, *engines, load=load, began=began)
    configure(settings.log_level, settings.log_format, serving=True)
    run_server(create_app(settings, *engines, load=load), settings, began)
    return 0
