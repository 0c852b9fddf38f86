import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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
