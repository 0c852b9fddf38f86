import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("EBSEG_"):
            monkeypatch.delenv(name)


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Puts the root logger back after a test that configures it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(False)
    logging.getLogger("PIL").setLevel(logging.NOTSET)
    root.handlers[:], root.level = handlers, level
