"""Serving from a registry on a hub: what a registry on S3 does, and what only a hub does."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from model.storage.manifest import FILES, MANIFEST
from tests.hub.faults import Fault, too_many
from tests.hub.server import READ, Hub, hub_server
from tests.service.hot_loading.model_fakes import current, loads, quarantined, roles
from tests.service.hot_loading.real_models import BROKEN, NAME, copied, prediction, started
from tests.waiting import WAIT, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("small_pictures")]
REPOSITORY = "owner/models"
REGISTRY = f"hf://{REPOSITORY}/registry"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with hub_server(tmp_path / "hub") as server:
        yield server


def upload(hub: Hub, folder: Path) -> str:
    """Commits a version; the commit's hash."""
    place = f"registry/{NAME}/{folder.name}"
    files: dict[str, bytes | Path] = {f"{place}/{name}": folder / name for name in (*FILES, MANIFEST)}
    return hub.repositories.add(REPOSITORY, files).oid


async def test_versions_on_a_hub(good: tuple[Path, Path], hub: Hub, tmp_path: Path) -> None:
    upload(hub, copied(good[0], tmp_path / "1", 1))
    models = started(REGISTRY, poll=0.05)
    await models.start()
    try:
        before = prediction(models)
        for number in (2, 3):
            folder = copied(good[1], tmp_path / str(number), number)
            BROKEN[number][0](folder)
            upload(hub, folder)
        await until(lambda: sorted(quarantined(models, NAME)) == [2, 3])
        for number, reason in quarantined(models, NAME).items():
            assert reason.startswith(BROKEN[number][1])
        with hub.faults.during(too_many(3600, times=None)):
            await until(lambda: loads(models._metrics).get("failed", 0) >= 2)
            reported = f"{REGISTRY}/{NAME}: the hub asks to come back in 3600 s"
            assert reported in str(models.status(NAME).last_error)
            assert torch.equal(prediction(models), before)
        upload(hub, copied(good[1], tmp_path / "4", 4))
        await until(lambda: current(models, NAME) == 4)
        assert not torch.equal(prediction(models), before)
        assert models.status(NAME).last_error is None
        assert sorted(quarantined(models, NAME)) == [2, 3]
        results = loads(models._metrics)
        assert (results["loaded"], results["quarantined"]) == (2, 2)
    finally:
        await models.stop()


async def test_a_download_that_is_cut_is_no_fault_of_the_version(
    good: tuple[Path, Path], hub: Hub, tmp_path: Path
) -> None:
    upload(hub, copied(good[0], tmp_path / "1", 1))
    models = started(REGISTRY, poll=0.05)
    hub.faults.add(Fault("GET /cdn", times=1, cut_after=200_000))
    await models.start()
    try:
        cut = hub.faults.add(Fault("GET /cdn", status=403, times=3))  # a signature that has expired
        upload(hub, copied(good[1], tmp_path / "2", 2))
        await until(lambda: current(models, NAME) == 2)
        assert cut.met == 3
        assert quarantined(models, NAME) == {}
        assert loads(models._metrics)["failed"] >= 1
    finally:
        await models.stop()


async def test_a_quiet_registry_costs_one_request(good: tuple[Path, Path], hub: Hub, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        upload(hub, copied(good[0], tmp_path / str(number), number))
    models = started(REGISTRY)
    await models.start()
    try:
        for _ in range(2):
            del hub.requests[:]
            assert await models.reload(NAME) == "nothing else is newer than version 3, which stays"
            assert len(hub.requests) == 1
    finally:
        await models.stop()


async def test_a_commit_is_a_registry_that_never_changes(
    good: tuple[Path, Path], hub: Hub, tmp_path: Path
) -> None:
    commit = upload(hub, copied(good[0], tmp_path / "1", 1))
    upload(hub, copied(good[1], tmp_path / "2", 2))
    models = started(f"hf://{REPOSITORY}@{commit}/registry")
    await models.start()
    try:
        assert roles(models, NAME) == {1: "current"}
        assert await models.reload(NAME) == "nothing else is newer than version 1, which stays"
    finally:
        await models.stop()


async def test_a_silent_hub_does_not_hold_the_follower(
    good: tuple[Path, Path], hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(hub, copied(good[0], tmp_path / "1", 1))
    models = started(REGISTRY, poll=0.05)
    await models.start()
    try:
        monkeypatch.setattr("time.sleep", lambda _: None)  # between huggingface_hub's tries
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        huggingface_hub.close_session()
        with hub.faults.during(Fault("/tree/", wait=3600)):
            await until(lambda: "did not answer in time" in str(models.status(NAME).last_error))
        upload(hub, copied(good[1], tmp_path / "2", 2))
        await until(lambda: current(models, NAME) == 2)
    finally:
        await models.stop()


@pytest.mark.parametrize(
    ("private", "environment", "words"),
    [
        (True, {}, "if it is private, log in with `hf auth login`, or set HF_TOKEN"),
        (True, {"HF_TOKEN": "hf_made_up_by_somebody"}, "the hub does not take your token"),
        (False, {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE keeps huggingface_hub from the network; unset it"),
    ],
    ids=["no token", "wrong token", "offline"],
)
def test_the_command_says_what_is_missing(
    hub: Hub, private: bool, environment: dict[str, str], words: str
) -> None:
    hub.repositories.create(REPOSITORY, private=private)
    code, reported = serve(environment)
    assert code not in (0, None)
    assert words in reported
    assert "Traceback" not in reported
    assert "hf_made_up" not in reported


def serve(environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and all that `ebseg serve` says."""
    command = [sys.executable, "-m", "ebseg", "serve", "--registry", REGISTRY, "--model", NAME, "--port", "0"]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=WAIT, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_read_token_serves_a_private_registry(good: tuple[Path, Path], hub: Hub, tmp_path: Path) -> None:
    commit = upload(hub, copied(good[0], tmp_path / "1", 1))
    found = hub.repositories.find(REPOSITORY)
    assert found is not None
    found.private = True
    place = f"hf://{REPOSITORY}@{commit}/registry/{NAME}"
    code = f"""
from pathlib import Path
from model.storage.versions import Versions
print(Versions({place!r}).fetch(1, Path({str(tmp_path / "got")!r})).version)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_TOKEN": READ},
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
