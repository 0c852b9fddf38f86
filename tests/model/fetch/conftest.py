import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.network.build import build
from model.network.config import VARIANTS
from model.official import to_official
from model.released.torch_file import write_state_dict
from model.vocabulary.classes import TrainingClasses
from tests.hub.server import Hub, hub_server
from tests.model.fetch.watching import FILE, REPOSITORY, Watch

CONTENT = os.urandom(3_000_001)


@pytest.fixture
def content() -> bytes:
    return CONTENT


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that holds one file."""
    with hub_server(tmp_path) as server:
        server.repositories.add(REPOSITORY, {FILE: CONTENT})
        yield server


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture(scope="package")
def released_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released file of the tiny variant."""
    path = tmp_path_factory.mktemp("released") / "EBSeg_tiny.pth"
    write_state_dict(path, to_official(build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=3)))
    return path
