import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.build import build
from model.checkpoint import save
from model.config import VARIANTS
from model.vocabulary import TrainingClasses


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model in a folder."""
    folder = tmp_path_factory.mktemp("registry") / "ebseg-tiny" / "1"
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0)
    save(ebseg, folder, name="ebseg-tiny", version=1, untrained=True)
    return folder
