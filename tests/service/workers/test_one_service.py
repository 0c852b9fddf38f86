"""Several workers are one service: one line of priced work, one count of a key, one choice of versions."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.load.server import Server, started
from tests.service.fakes import encoded, picture
from tests.service.hot_loading.model_fakes import publish
from tests.service.workers.processes import ADMIN, KEY, RARE, clients_of_each
from tests.waiting import wait_until

SECONDS = 2.0  # of a batch
IMAGE = {"Content-Type": "image/png"}


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def segment(client: httpx.Client, width: int, *, key: str = KEY, **fields: Any) -> httpx.Response:
    """Of a picture of its own."""
    image, asked = encoded(picture(6, width)), {"classes": "sky", **fields}
    headers = {**IMAGE, "X-API-Key": key}
    return client.post("/v1/segment", params=asked, content=image, headers=headers)


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    keys = f"much:sha256:{_digest(KEY)},rare:sha256:{_digest(RARE)}:concurrency=1"
    environment = {"EBSEG_WORKERS": "2", "EBSEG_API_KEYS": keys, "EBSEG_MAX_BATCH_SIZE": "1"}
    with started("tests.service.fakes", str(SECONDS), **environment) as server:
        server.wait()
        yield server


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_what_one_worker_lets_in_another_one_counts(slow: Server) -> None:
    """Device time in front, and how often a key is in use."""
    with clients_of_each(slow) as (one, other), ThreadPoolExecutor(1) as threads:
        first = segment(one, 8)
        assert first.status_code == 200, first.text  # from now on it is known what a picture takes
        running = threads.submit(segment, one, 9, key=RARE)
        wait_until(lambda: slow.metrics().value("expected_work_seconds") >= SECONDS, pause=0.02)
        # alone it would be in time, behind the other worker's it is not
        late = segment(other, 10, timeout_ms=int(1750 * SECONDS))
        assert refused(late) == (429, "deadline-unmeetable")
        assert 1 <= int(late.headers["Retry-After"]) <= SECONDS + 1
        again = segment(other, 11, key=RARE)
        assert refused(again) == (429, "key-limited")
        assert not running.done()
        assert running.result().status_code == 200
        assert segment(other, 12, key=RARE).status_code == 200


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Server]:
    """Version 1 of a model serves; a newer one gets half of the requests first."""
    publish(tmp_path, "a", 1)
    environment = {
        "EBSEG_WORKERS": "2",
        "EBSEG_API_KEYS": f"much:sha256:{_digest(KEY)}",
        "EBSEG_ADMIN_KEYS": f"boss:sha256:{_digest(ADMIN)}",
    }
    options = (str(tmp_path), "a@canary:50")
    with started("tests.service.workers.registry_server", *options, **environment) as server:
        server.wait()
        publish(tmp_path, "a", 2)
        yield server


def test_versions_are_chosen_for_all_workers(followed: Server) -> None:
    def change(client: httpx.Client, action: str, **options: Any) -> dict[str, Any]:
        answer = client.post(f"/v1/models/a:{action}", headers={"X-API-Key": ADMIN}, **options)
        assert answer.status_code == 200, answer.text
        model: dict[str, Any] = answer.json()["model"]
        return model

    def versions(clients: list[httpx.Client], count: int) -> Counter[str]:
        answers = [segment(clients[turn % 2], 8 + turn) for turn in range(count)]
        assert {answer.status_code for answer in answers} == {200}
        return Counter(answer.headers["X-EBSeg-Model"] for answer in answers)

    def serves(client: httpx.Client) -> dict[int, str]:
        loaded = client.get("/v1/models/a").json()["versions"]
        return {one["version"]: one["role"] for one in loaded if one["role"] != "draining"}

    with clients_of_each(followed) as clients:
        one, other = clients
        assert versions(clients, 4) == {"a/1": 4}
        change(one, "reload")
        assert serves(one) == serves(other) == {1: "current", 2: "canary"}
        assert versions(clients, 20) == {"a/1": 10, "a/2": 10}  # of both workers together
        assert change(other, "pin", json={"version": 2})["pinned"] == 2
        assert serves(one) == serves(other) == {2: "current"}
        assert versions(clients, 4) == {"a/2": 4}
        assert change(one, "rollback")["version"] == 1
        assert serves(one) == serves(other) == {1: "current"}
        assert versions(clients, 4) == {"a/1": 4}
