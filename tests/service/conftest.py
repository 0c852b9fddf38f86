from collections.abc import Iterator
from pathlib import Path

import pytest

from model.network.build import build
from model.network.config import VARIANTS
from model.storage.checkpoint import Provenance, save
from model.vocabulary.classes import TrainingClasses
from tests.service.caches.redis_server import RedisServer, redis_server
from tests.service.fakes import live
from tests.service.hot_loading.model_fakes import memory_url, publish


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A folder registry that holds version 1 of the model "a"; nothing in it is a real model."""
    publish(tmp_path, "a", 1)
    return tmp_path


@pytest.fixture
def remote_registry() -> str:
    """As `registry`, at a URL."""
    url = memory_url()
    publish(url, "a", 1)
    return url


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    """A Redis server for all tests of a module."""
    with redis_server() as server:
        yield server


@pytest.fixture
def empty_redis(shared_redis: RedisServer) -> RedisServer:
    """The module's server, with nothing in it."""
    shared_redis.client().flushall()
    return shared_redis


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service with an engine that is none, on a socket."""
    with live() as (address, _):
        yield address


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model in a folder."""
    folder = tmp_path_factory.mktemp("registry") / "ebseg-tiny" / "1"
    ebseg = build(VARIANTS["tiny"], TrainingClasses.coco_stuff(), seed=0)
    save(ebseg, folder, Provenance(name="ebseg-tiny", version=1, untrained=True))
    return folder
