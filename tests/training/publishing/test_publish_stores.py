"""What dead publishers leave goes, what live ones work on stays; object stores that misbehave."""

import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from model.errors import CheckpointError
from model.storage.manifest import FILES
from model.storage.versions import Versions
from model.storage.work_folder import STALE_SECONDS, remove_left_over, work_folder
from tests.training.publishing.publish_runs import make_run
from tests.waiting import wait_until
from training.publishing import publish as publishing
from training.publishing import stores
from training.publishing.publish import publish
from training.publishing.stores import ObjectStore, VersionReservation, open_store

OLD, YOUNG = STALE_SECONDS + 60, STALE_SECONDS - 60


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "scenes")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "check_golden", lambda _: 0.0)


@pytest.fixture
def versions() -> Versions:
    return Versions(f"memory://registry-{uuid.uuid4().hex}/ebseg-tiny")  # never itself a path that holds "/1"


def left_over(parent: Path, name: str, seconds: float, host: str | None = None) -> Path:
    folder = parent / name
    (folder / "version").mkdir(parents=True)
    if host is not None:
        (folder / "lock").write_text(host)
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (time.time() - seconds,) * 2)
    return folder


@pytest.mark.parametrize(
    ("seconds", "host", "removed"),
    [
        (0.0, socket.gethostname(), True),  # no process holds its lock
        (YOUNG, "elsewhere", False),
        (OLD, "elsewhere", True),
        (YOUNG, None, False),  # about to be locked, perhaps
        (OLD, None, True),
    ],
)
def test_work_folders_of_dead_processes_go(
    tmp_path: Path, seconds: float, host: str | None, removed: bool
) -> None:
    folder = left_over(tmp_path, ".ebseg-publishing-x", seconds, host)
    remove_left_over(tmp_path)
    assert folder.exists() is not removed


def test_work_folders_of_live_processes_stay_however_old(tmp_path: Path) -> None:
    with work_folder(tmp_path) as folder:
        assert (folder / "lock").read_text() == socket.gethostname()
        for path in (folder / "lock", folder):
            os.utime(path, (0, 0))
        remove_left_over(tmp_path)
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_goes_while_it_is_looked_at_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / ".ebseg-publishing-gone"
    young = left_over(tmp_path, ".ebseg-publishing-young", YOUNG, None)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([gone, young]))
    remove_left_over(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_without_locks_age_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    young = left_over(tmp_path, ".ebseg-publishing-a", YOUNG, socket.gethostname())
    left_over(tmp_path, ".ebseg-publishing-b", OLD, socket.gethostname())
    with work_folder(tmp_path) as mine:
        remove_left_over(tmp_path)
        assert set(tmp_path.iterdir()) == {young, mine}


def test_publishing_to_a_folder_cleans_it(run: Path, tmp_path: Path) -> None:
    place = tmp_path / "ebseg-tiny"
    partial = f".4.{uuid.uuid4().hex}.partial"  # of `ebseg import`
    left_over(place, partial, OLD)
    stays = {f".5.{uuid.uuid4().hex}.partial", ".mine.partial", "notes"}
    left_over(place, ".ebseg-publishing-dead", 0.0, socket.gethostname())
    for name in stays:
        left_over(place, name, YOUNG if name.startswith(".5") else OLD)
    publish(run, place)
    assert {path.name for path in place.iterdir()} == {"1", ".claims", *stays}


def half_upload(versions: Versions, number: int) -> None:
    versions.fs.pipe_file(f"{versions.root}/.claims/{number}", b"theirs")
    versions.fs.pipe_file(f"{versions.path(number)}/config.json", b"{}")


def put_back(monkeypatch: pytest.MonkeyPatch, versions: Versions, seconds: dict[str, float]) -> None:
    """Lets objects whose path holds a key look that much older."""
    modified: Callable[[str], datetime] = versions.fs.modified

    def older(path: str) -> datetime:
        ages = [age for part, age in seconds.items() if part in path]
        return modified(path) - timedelta(seconds=max(ages, default=0.0))

    monkeypatch.setattr(versions.fs, "modified", older)


@pytest.mark.parametrize(
    ("ages", "removed"),
    [
        ({"/1": OLD}, True),
        ({"/1": YOUNG}, False),
        ({"/1/config.json": OLD}, False),  # its claim was just renewed: still uploading
        ({".claims/1": OLD}, False),
    ],
)
def test_half_uploads_go_once_nobody_renews_them(
    run: Path, versions: Versions, monkeypatch: pytest.MonkeyPatch, ages: dict[str, float], removed: bool
) -> None:
    half_upload(versions, 1)
    put_back(monkeypatch, versions, ages)
    assert publish(run, versions.location).manifest.version == 2
    assert versions.numbers() == [2]
    assert (versions.sizes(versions.path(1)) == {}) is removed
    assert (versions.read(f"{versions.root}/.claims/1") == b"given up") is removed
    assert publish(run, versions.location).manifest.version == 3


def test_whole_versions_and_strangers_files_are_never_cleaned(
    run: Path, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(run, versions.location)
    versions.fs.pipe_file(f"{versions.path(2)}/theirs", b"no claim")
    put_back(monkeypatch, versions, {versions.path(1): OLD, versions.path(2): OLD, ".claims/1": OLD})
    assert publish(run, versions.location).manifest.version == 3
    assert versions.numbers() == [1, 3]
    assert versions.read(f"{versions.path(2)}/theirs") == b"no claim"


@pytest.mark.parametrize("number", range(1, 6))
def test_failed_upload_is_removed(
    run: Path, versions: Versions, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    put_file, count = versions.fs.put_file, 0

    def failing(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise ConnectionError("connection lost")
        put_file(*args, **kwargs)

    monkeypatch.setattr(versions.fs, "put_file", failing)
    with pytest.raises(CheckpointError, match=f"{versions.location}: ConnectionError: connection lost"):
        publish(run, versions.location)
    assert versions.entries() == {".claims"}
    assert publish(run, versions.location).manifest.version == 2


def test_a_lost_claim_takes_the_next_number(
    run: Path, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that lets two create the same object: the last one keeps it."""
    put_file = versions.fs.put_file

    def overwritten(source: str, target: str, **kwargs: Any) -> None:
        put_file(source, target, **kwargs)
        if target.endswith(f"/1/{FILES[-1]}"):
            versions.fs.pipe_file(f"{versions.root}/.claims/1", b"somebody else")

    monkeypatch.setattr(versions.fs, "put_file", overwritten)
    assert publish(run, versions.location).manifest.version == 2
    assert versions.numbers() == [2]


def test_files_lost_on_the_way_are_noticed_before_the_manifest(
    run: Path, versions: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file = versions.fs.put_file

    def short(source: str, target: str, **kwargs: Any) -> None:
        if not target.endswith("/1/metrics.json"):
            put_file(source, target, **kwargs)

    monkeypatch.setattr(versions.fs, "put_file", short)
    assert publish(run, versions.location).manifest.version == 2
    assert versions.numbers() == [2]


def test_a_repeated_request_meets_its_own_object(versions: Versions) -> None:
    store = ObjectStore(versions)
    assert store._create(f"{versions.root}/x", b"mine")
    assert store._create(f"{versions.root}/x", b"mine")
    assert not store._create(f"{versions.root}/x", b"theirs")
    assert versions.read(f"{versions.root}/x") == b"mine"


@pytest.mark.parametrize(("conflicts", "created"), [(1, True), (2, True), (9, False)])
def test_conflicting_creations_are_tried_again(
    versions: Versions, monkeypatch: pytest.MonkeyPatch, conflicts: int, created: bool
) -> None:
    monkeypatch.setattr(stores, "CONFLICT_WAITS", (0.0, 0.0))
    pipe_file, count = versions.fs.pipe_file, 0

    def conflicting(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        if count <= conflicts:
            raise OSError("at the same time") from ValueError(
                "An error occurred (ConditionalRequestConflict)"
            )
        pipe_file(*args, **kwargs)

    monkeypatch.setattr(versions.fs, "pipe_file", conflicting)
    if created:
        assert ObjectStore(versions).reservation().number == 1
    else:
        with pytest.raises(CheckpointError, match="at the same time"):
            ObjectStore(versions).reservation()
    assert count == min(conflicts, 2) + 1


def test_long_uploads_renew_their_claim(versions: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "HEARTBEAT_SECONDS", 0.01)
    store = ObjectStore(versions)
    reservation = store.reservation()
    path = f"{versions.root}/.claims/1"
    before = versions.fs.modified(path)
    with store._kept_alive(reservation):
        wait_until(lambda: versions.fs.modified(path) != before, pause=0.01)
    renewed = versions.fs.modified(path)
    assert before < renewed <= datetime.now(UTC)
    assert versions.read(path) == reservation.token.encode()
    time.sleep(0.05)
    assert versions.fs.modified(path) == renewed  # it ends with the upload


def test_claims_are_distinct(versions: Versions, tmp_path: Path) -> None:
    for place in (versions, Versions(tmp_path / "ebseg-tiny")):
        store = open_store(place)
        assert [store.reservation().number for _ in range(3)] == [1, 2, 3]
    assert open_store(versions).reservation() != VersionReservation(5, "")
