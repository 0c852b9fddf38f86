"""How models start: beside one another, with what is there, waiting for a registry that is away."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from model.errors import CheckpointError
from model.storage.versions import Versions
from service.errors import NotReadyError
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from service.settings import Settings, SettingsError
from tests.service.fakes import problem, running
from tests.service.hot_loading.model_fakes import (
    OFTEN,
    SELDOM,
    FakeDevice,
    Gate,
    Loader,
    connection_lost,
    current,
    publish,
    serving,
)
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio


def models_of(registry: str | Path, names: str, load: Loader | None = None, poll: float = OFTEN) -> Models:
    settings = Settings(registry=str(registry), model=names, registry_poll_s=poll, device="cpu")
    return Models(settings, Metrics(), [FakeDevice()], load or Loader())


async def test_a_model_without_a_good_version_keeps_no_other_from_serving(tmp_path: Path) -> None:
    publish(tmp_path, "a", 1, "NaN")
    publish(tmp_path, "b", 1)
    async with serving(tmp_path, "a,b,c", poll=OFTEN) as (models, _, _):
        assert [status.name for status in models.statuses()] == ["b"]
        assert models.missing() == {
            "a": "has no version that can be served: version 1: NaN",
            "c": "has no version that can be served: there is none, see `ebseg publish`",
        }
        with models.lease("b") as lease:
            assert lease.info.version == 1
        for name in (None, "a", "c"):  # nobody answers in the default's stead
            with pytest.raises(NotReadyError, match="GET /readyz tells why"):
                models.lease(name)
        publish(tmp_path, "c", 4)
        publish(tmp_path, "a", 2)
        await until(lambda: models.missing() == {})
        assert (current(models, "a"), current(models, "c")) == (2, 4)


async def test_a_bad_pinned_version_is_loaded_once(tmp_path: Path) -> None:
    publish(tmp_path, "a", 1, "NaN")
    publish(tmp_path, "b", 1)
    async with serving(tmp_path, "a@1,b", poll=OFTEN) as (models, load, _):
        await asyncio.sleep(10 * OFTEN)
        assert sorted(load.versions()) == [1, 1]
        publish(tmp_path, "a", 1)
        await until(lambda: models.missing() == {})


async def test_a_registry_that_does_not_answer_is_waited_for(
    remote_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = models_of(remote_registry, "a")
    with monkeypatch.context() as patch:
        patch.setattr(Versions(f"{remote_registry}/a").fs, "ls", connection_lost)
        start = asyncio.create_task(models.start())
        await until(lambda: models._followers["a"].failure is not None)
        await asyncio.sleep(5 * OFTEN)
        assert not start.done()
        reported = "the registry does not answer as it should; the log of the service says more"
        assert models.missing() == {"a": reported}
    await start
    assert (current(models), models.missing()) == (1, {})
    await models.stop()


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize("error", [PermissionError("AccessDenied"), NoCredentialsError()])
async def test_a_registry_that_lets_nobody_in_is_not_waited_for(
    remote_registry: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Versions(f"{remote_registry}/a").fs, "ls", refuse)
    models = models_of(remote_registry, "a,b")
    with pytest.raises(CheckpointError, match=type(error).__name__):
        await asyncio.wait_for(models.start(), WAIT)
    await models.stop()


async def test_a_folder_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"registry: .*nowhere is no folder; make it, or name another"):
        models_of(tmp_path / "nowhere", "a")


async def test_a_look_never_waits_for_another_models_load(tmp_path: Path) -> None:
    for name in ("a", "b"):
        publish(tmp_path, name, 1)
    async with serving(tmp_path, "a,b", poll=SELDOM) as (models, load, _):
        gate = load.at = Gate()
        publish(tmp_path, "a", 2)
        reload = asyncio.create_task(models.reload("a"))
        await until(gate.begun.is_set)
        began = models.status("b").last_checked_at
        assert await models.reload("b") == "nothing else is newer than version 1, which stays"
        assert models.status("b").last_checked_at != began
        publish(tmp_path, "b", 2)
        second = asyncio.create_task(models.reload("b"))
        await until(lambda: models._loading._turn.locked() and models._followers["b"]._coming == 2)
        assert load.versions()[-1] == 2
        assert len(load.versions()) == 3  # loads are one at a time
        gate.open.set()
        assert [await reload, await second] == ["version 2 serves"] * 2


async def test_waiting_for_another_models_load_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the registry's nor the load's time limit counts it, and no error speaks of it."""
    for name in ("a", "b"):
        publish(tmp_path, name, 1)
    async with serving(tmp_path, "a,b", poll=SELDOM) as (models, load, _):
        gate = load.at = Gate()
        publish(tmp_path, "a", 2)
        first = asyncio.create_task(models.reload("a"))
        await until(gate.begun.is_set)
        monkeypatch.setattr("service.hot_loading.arrivals.LOOK_SECONDS", 0.2)
        monkeypatch.setattr("service.hot_loading.loader.LOAD_SECONDS", 0.2)
        publish(tmp_path, "b", 2)
        second = asyncio.create_task(models.reload("b"))
        await asyncio.sleep(0.5)
        assert not second.done()
        gate.open.set()
        assert await second == "version 2 serves"
        await first
        assert models.status("b").last_error is None


async def test_a_registry_that_hangs_holds_up_its_own_model_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        publish(tmp_path, name, 1)
    hang = threading.Event()
    async with serving(tmp_path, "a,b", poll=SELDOM) as (models, _, _):
        source = models._followers["a"].source
        monkeypatch.setattr("service.hot_loading.arrivals.LOOK_SECONDS", 0.1)
        with monkeypatch.context() as patch:
            patch.setattr(source, "newer", lambda *_: hang.wait(WAIT))
            reload = asyncio.create_task(models.reload("a"))
            publish(tmp_path, "b", 2)
            assert await models.reload("b") == "version 2 serves"
            await asyncio.wait([reload])
            assert "asking the registry took longer" in str(reload.exception())
            assert "asking the registry took longer" in str(models.status("a").last_error)
            assert models.status("b").last_error is None
        hang.set()


async def test_the_startup_probe_says_what_is_waited_for(
    remote_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: dict[str, Any] = {
        "registry": remote_registry,
        "model": "a",
        "registry_poll_s": OFTEN,
        "device": "cpu",
    }
    with monkeypatch.context() as patch:
        patch.setattr(Versions(f"{remote_registry}/a").fs, "ls", connection_lost)
        async with running(load=Loader(), ready=False, **own) as (client, service):
            await until(lambda: service.models._followers["a"].failure is not None)
            for path in ("/startupz", "/readyz"):
                detail = problem(await client.get(path), 503)["detail"]
                assert detail.startswith(
                    "no model is loaded yet; a: the registry does not answer as it should"
                )
            assert (await client.get("/livez")).status_code == 200
            listed = (await client.get("/v1/models")).json()
            assert listed["models"] == []
            assert [entry["name"] for entry in listed["missing"]] == ["a"]
            patch.undo()
            await until(lambda: service.state == "ready")
            assert (await client.get("/startupz")).status_code == 200
            assert (await client.get("/readyz")).json()["checks"]["models"] == "ok"
