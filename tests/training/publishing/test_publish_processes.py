"""Publishers that are killed or race each other, in processes of their own: on a folder and on S3."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.errors import CheckpointError
from model.storage.checkpoint import check_golden, load
from model.storage.versions import Versions
from tests.service.hot_loading.s3_server import s3_process
from tests.training.publishing.processes import EACH, PUBLISHERS
from tests.training.publishing.publish_runs import make_run
from tests.waiting import LONG_WAIT
from training.publishing.publish import publish
from training.publishing.stores import ObjectStore

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "storybook")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server that speaks S3, with a bucket."""
    with s3_process() as server:
        yield server.url


@pytest.fixture
def s3(endpoint: str) -> dict[str, Any]:
    return {"key": "test", "secret": "test", "endpoint_url": endpoint}


def start(what: str, run: Path, destination: str, options: dict[str, Any]) -> list[int]:
    """The numbers that the processes print."""
    arguments = [
        "-m",
        "tests.training.publishing.processes",
        what,
        str(run),
        destination,
        json.dumps(options),
    ]
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=LONG_WAIT, check=False
    )
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def test_publishers_at_once_share_no_version_of_a_folder(run: Path, tmp_path: Path) -> None:
    destination = str(tmp_path / "registry" / "ebseg-tiny")
    numbers = start("race", run, destination, {})
    assert sorted(numbers) == list(range(1, PUBLISHERS * EACH + 1))
    assert Versions(destination).numbers() == sorted(numbers)
    for number in numbers:
        assert load(Path(destination) / str(number)).manifest.version == number
    assert {path.name for path in Path(destination).iterdir()} == {".claims", *map(str, numbers)}


@pytest.mark.slow
def test_publishers_at_once_share_no_version_on_s3(run: Path, s3: dict[str, Any], tmp_path: Path) -> None:
    destination = "s3://bucket/race/ebseg-tiny"
    numbers = start("race", run, destination, s3)
    assert sorted(numbers) == list(range(1, PUBLISHERS * EACH + 1))
    versions = Versions(destination, **s3)
    assert versions.numbers() == sorted(numbers)
    for number in numbers:
        assert versions.fetch(number, tmp_path / str(number)).version == number


def test_killed_at_any_call_on_a_folder(run: Path, tmp_path: Path) -> None:
    (calls,) = start("crash", run, str(tmp_path / "registry" / "ebseg-tiny"), {})
    assert calls > 30  # eight files written, read, synced; folders; claim; renames


@pytest.mark.slow
def test_killed_at_any_call_on_s3(run: Path, s3: dict[str, Any]) -> None:
    (calls,) = start("crash", run, "s3://bucket/crash/ebseg-tiny", s3)
    assert calls == 7  # claim, five files, manifest


def test_s3_version_is_what_a_folder_would_hold(run: Path, s3: dict[str, Any], tmp_path: Path) -> None:
    published = publish(run, "s3://bucket/whole/ebseg-tiny", storage_options=s3)
    assert published.location == "s3://bucket/whole/ebseg-tiny/1"
    versions = Versions("s3://bucket/whole/ebseg-tiny", **s3)
    assert versions.fetch(1, tmp_path / "1") == published.manifest
    assert check_golden(load(tmp_path / "1")) <= 1e-6


def test_a_claim_newer_than_the_last_listing_is_seen(s3: dict[str, Any]) -> None:
    """s3fs keeps listings: what another process created since must not look absent."""
    ours = Versions("s3://bucket/listed/ebseg-tiny", **s3)
    theirs = Versions("s3://bucket/listed/ebseg-tiny", **s3, skip_instance_cache=True)
    store = ObjectStore(ours)
    assert store.reservation().number == 1
    ours.fs.ls(f"{ours.root}/.claims")
    theirs.fs.pipe_file(f"{theirs.root}/.claims/2", b"theirs")
    assert not store._create(f"{ours.root}/.claims/2", b"ours")
    ours.fs.ls(f"{ours.root}/.claims")
    theirs.fs.pipe_file(f"{theirs.root}/.claims/3", b"theirs")
    assert store._modified(f"{ours.root}/.claims/3") is not None
    assert store.reservation().number == 4


def test_the_command_finds_s3_as_other_tools_do(run: Path, s3: dict[str, Any]) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    done = subprocess.run(
        [sys.executable, "-m", "ebseg", "publish", str(run), "s3://bucket/command/ebseg-tiny", "--json"],
        cwd=ROOT,
        env=os.environ | keys | {"AWS_ENDPOINT_URL": s3["endpoint_url"]},
        capture_output=True,
        text=True,
        timeout=LONG_WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["location"] == "s3://bucket/command/ebseg-tiny/1"
    assert Versions("s3://bucket/command/ebseg-tiny", **s3).numbers() == [1]


def test_a_store_that_does_not_answer(run: Path) -> None:
    options: dict[str, Any] = {"key": "a", "secret": "b", "endpoint_url": "http://127.0.0.1:1"}
    options["config_kwargs"] = {"retries": {"max_attempts": 0}}
    with pytest.raises(CheckpointError, match="s3://bucket/x/ebseg-tiny: EndpointConnectionError"):
        publish(run, "s3://bucket/x/ebseg-tiny", storage_options=options)
