"""serving.json at all kinds of places: written on a condition, read strictly, and by commands."""

import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from model.errors import CheckpointError
from model.storage.serving_changes import ServingChanges
from model.storage.serving_state import (
    SERVING,
    ServingChangedError,
    ServingFile,
    ServingState,
    ServingStateError,
)
from model.storage.versions import StoreError, Versions
from tests.hub.server import READ, WRITE, hub_server
from tests.service.cli_calls import run
from tests.service.hot_loading.bucket_servers import azure_server, google_server
from tests.service.hot_loading.model_fakes import memory_url, publish
from tests.service.hot_loading.s3_server import S3, s3_server

FIRST = ServingState(
    revision=1, policy="latest", changed_by="me", changed_at="2026-01-01T00:00:00+00:00", before=(2, 3)
)
PIN: dict[str, Any] = {"policy": "pinned", "version": 3}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    with google_server() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azure_server(tmp_path_factory.mktemp("azurite")) as bucket:
        yield bucket


@pytest.fixture(params=["folder", "s3", "google", "azure", "hub"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Versions]:
    """A model's place that can be written; nothing lies there."""
    if request.param == "hub":
        with hub_server(tmp_path) as server:
            server.repositories.create("owner/models")
            yield Versions("hf://owner/models/registry/a", token=WRITE)
    elif request.param in ("google", "azure"):
        yield Versions(f"{request.getfixturevalue(request.param)}/{tmp_path.name}/a")
    elif request.param == "s3":
        yield Versions(f"{request.getfixturevalue('s3').bucket}/{tmp_path.name}/a")
    else:
        (tmp_path / "a").mkdir()
        yield Versions(tmp_path / "a")


def test_a_state_takes_the_place_of_the_one_before(place: Versions) -> None:
    file = ServingFile(place)
    assert file.read() is None
    file.write(FIRST)
    assert file.read() == FIRST
    second = dataclasses.replace(FIRST, revision=2, **PIN)
    file.write(second)
    assert file.read() == second
    reported = r"me has changed it meanwhile: version 3 pinned, revision 2 of 2026-01-01T00:00:00\+00:00"
    for revision in (1, 2, 4):
        with pytest.raises(ServingChangedError, match=reported):
            file.write(dataclasses.replace(FIRST, revision=revision))
    assert file.read() == second


@pytest.mark.parametrize("revision", [1, 2])
@pytest.mark.parametrize(
    "place", ["s3", "google", "azure", "hub"], indirect=True
)  # a folder is locked: test_writers_at_once
def test_a_write_between_reading_and_writing_is_seen(
    place: Versions, monkeypatch: pytest.MonkeyPatch, revision: int
) -> None:
    """The other one writes once the revision was compared: only the store's own condition can tell."""
    file, other = ServingFile(place), ServingFile(place)
    if revision == 2:
        file.write(FIRST)
    mine = dataclasses.replace(FIRST, revision=revision, **PIN)
    theirs = dataclasses.replace(mine, changed_by="them")
    compare = file._compare

    def interrupted(state: ServingState) -> None:
        compare(state)
        other.write(theirs)

    monkeypatch.setattr(file, "_compare", interrupted)
    with pytest.raises(ServingChangedError, match="them has changed it meanwhile: version 3 pinned"):
        file.write(mine)
    assert file.read() == theirs


@pytest.mark.parametrize("place", ["folder", "google", "azure"], indirect=True)  # moto answers one by one
def test_writers_at_once(place: Versions) -> None:
    def write(who: int) -> int:
        file, won = ServingFile(place), 0
        for _ in range(20 if place.folder is not None else 5):
            now = file.read()
            state = dataclasses.replace(
                FIRST, revision=1 if now is None else now.revision + 1, changed_by=str(who)
            )
            try:
                file.write(state)
                won += 1
            except ServingChangedError:
                pass
        return won

    with ThreadPoolExecutor(8) as pool:
        won = sum(pool.map(write, range(8)))
    last = ServingFile(place).read()
    assert last is not None
    assert last.revision == won >= 5


@pytest.mark.parametrize(
    "changes",
    [
        {"revision": 0},
        {"policy": "newest"},
        {"policy": "pinned"},
        {"policy": "pinned", "version": 0},
        {"version": 3},
        {"policy": "canary"},
        {"policy": "canary", "percent": 0},
        {"policy": "canary", "percent": 101},
        {"policy": "canary", "percent": 5, "canary": 4},
        {"policy": "canary", "percent": 5, "version": 3},
        {"policy": "canary", "percent": 5, "version": 4, "canary": 4},
        {"schema": 2},
        {"before": (0,)},
        {"changed_at": "yesterday"},
    ],
)
def test_states_that_mean_nothing_are_refused(changes: dict[str, Any]) -> None:
    values = dataclasses.asdict(FIRST) | changes
    with pytest.raises(ServingStateError, match=r"^serving\.json"):
        ServingState.from_json(json.dumps(values).encode())


def test_a_damaged_file_is_told_and_can_be_written_again(place: Versions) -> None:
    file = ServingFile(place)
    file.write(FIRST)
    if not place.location.startswith("hf://"):
        place.fs.pipe_file(f"{place.root}/{SERVING}", b"{")
        with pytest.raises(ServingStateError, match=r"serving\.json is not valid JSON"):
            file.read()
        file.write(FIRST)
    assert file.read() == FIRST


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot compare and write in one") as raised:
        ServingFile(Versions(f"{memory_url()}/a")).write(FIRST)
    assert raised.value.refused
    with hub_server(tmp_path) as server:
        server.repositories.create("owner/models")
        with pytest.raises(StoreError) as raised:
            ServingFile(Versions("hf://owner/models/registry/a", token=READ)).write(FIRST)
        assert raised.value.refused


def test_commands_write_the_registry_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        publish(tmp_path, "a", number)

    def asked(*words: str) -> str:
        assert run("models", *words, "--registry", str(tmp_path)) == 0
        return capsys.readouterr().out

    assert asked("rollback", "a") == "a: version 2 pinned from now on, revision 1\n"
    assert asked("pin", "a", "1") == "a: version 1 pinned from now on, revision 2\n"
    assert asked("rollback", "a") == "a: version 2 pinned from now on, revision 3\n"
    reported = "a: version 3 tried with 25 % beside version 2 from now on, revision 4\n"
    assert asked("canary", "a", "3", "--percent", "25") == reported
    assert asked("rollback", "a") == "a: version 2 pinned from now on, revision 5\n"
    assert asked("unpin", "a") == "a: the newest version from now on, revision 6\n"
    assert (
        asked("canary", "a", "3") == "a: version 3 tried with 10 % beside version 2 from now on, revision 7\n"
    )
    last = ServingFile(Versions(tmp_path / "a")).read()
    assert last is not None
    assert last.changed_by.endswith(f"@{os.uname().nodename}")
    changes = ServingChanges(Versions(tmp_path / "a"))
    with pytest.raises(CheckpointError, match="no such version"):
        changes.pin(9)
    with pytest.raises(CheckpointError, match="version 2 serves already"):
        changes.canary(2, 5)
    assert ServingFile(Versions(tmp_path / "a")).read() == last
