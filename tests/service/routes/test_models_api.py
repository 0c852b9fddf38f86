"""`/v1/models` over HTTP: what is shown, who may change it, and what goes wrong."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from model.storage.manifest import Manifest
from model.storage.versions import Versions
from service.runtime import Service
from tests.service.fakes import post, problem, running
from tests.service.hot_loading.model_fakes import SELDOM, Gate, Loader, publish
from tests.waiting import until

pytestmark = pytest.mark.anyio
NAME = "ebseg-tiny.v2_x"
ADMIN = {"Authorization": "Bearer an-admin-key-of-24-bytes"}
USER = {"X-API-Key": "a-user-key-of-22-bytes"}
KEYS: dict[str, Any] = {"admin_keys": "an-admin-key-of-24-bytes", "api_keys": "a-user-key-of-22-bytes"}


def serving(
    registry: Path, load: Loader, model: str = NAME, **values: Any
) -> AbstractAsyncContextManager[tuple[httpx.AsyncClient, Service]]:
    return running(
        load=load, registry=str(registry), model=model, registry_poll_s=SELDOM, device="cpu", **values
    )


async def change(client: httpx.AsyncClient, action: str, name: str = NAME, **options: Any) -> httpx.Response:
    return await client.post(f"/v1/models/{name}:{action}", headers=ADMIN, **options)


async def pin(client: httpx.AsyncClient, version: Any, name: str = NAME) -> httpx.Response:
    return await change(client, "pin", name, json={"version": version})


@pytest.fixture
def first(tmp_path: Path) -> Manifest:
    return publish(tmp_path, NAME, 1)


async def test_a_models_whole_story(tmp_path: Path, first: Manifest) -> None:
    publish(tmp_path, f"{NAME}2", 1)
    async with serving(tmp_path, Loader(), f"{NAME}@canary:10,{NAME}2@1", **KEYS) as (client, service):
        lease = service.models.lease()
        publish(tmp_path, NAME, 3)
        await change(client, "reload")
        publish(tmp_path, NAME, 2, "NaN")
        await pin(client, 2)
        story = (await client.get(f"/v1/models/{NAME}", headers=USER)).json()
        listed = (await client.get("/v1/models", headers=USER)).json()["models"]
        lease.release()
    assert listed[0] == story
    versions = story.pop("versions")
    (refused,) = story.pop("quarantined")
    assert story.pop("last_checked_at").endswith("Z")
    assert (story.pop("unfinished"), story.pop("asked")) == ([], None)
    assert story == {
        "name": NAME,
        "version": 1,
        "digest": first.digest,
        "untrained": False,
        "variant": "tiny",
        "device": "cpu",
        "dtype": "float32",
        "license": None,
        "card": None,
        "default": True,
        "policy": "canary:10",
        "pinned": None,
        "last_error": None,
    }
    assert (refused["version"], refused["reason"]) == (2, "NaN")
    assert refused.keys() == {"version", "reason", "since"}
    assert [(v["version"], v["role"], v["in_flight"]) for v in versions] == [
        (1, "current", 1),
        (3, "canary", 0),
    ]
    assert versions[0]["load_seconds"] > 0
    assert versions[0]["loaded_at"] < versions[1]["loaded_at"]
    other = listed[1]
    assert (other["name"], other["default"], other["policy"], other["pinned"]) == (
        f"{NAME}2",
        False,
        "pinned",
        1,
    )


async def test_nothing_is_told_before_the_first_version_is_there(tmp_path: Path, first: Manifest) -> None:
    load = Loader()
    gate = load.at = Gate()
    async with serving(tmp_path, load, ready=False, **KEYS) as (client, service):
        await until(gate.begun.is_set)
        missing = [{"name": NAME, "reason": "it is being loaded"}]
        assert (await client.get("/v1/models", headers=USER)).json() == {"models": [], "missing": missing}
        detail = problem(await client.get(f"/v1/models/{NAME}", headers=USER), 404)["detail"]
        assert detail == f"no version of {NAME} is loaded: it is being loaded"
        gate.open.set()
        await until(lambda: service.state == "ready")
        assert (await client.get(f"/v1/models/{NAME}", headers=USER)).status_code == 200


async def test_pin_rollback_unpin_reload(tmp_path: Path, first: Manifest) -> None:
    publish(tmp_path, NAME, 2)
    async with serving(tmp_path, Loader(), admin_keys=KEYS["admin_keys"]) as (client, _):
        pinned = (await pin(client, 1)).json()
        assert pinned["done"] == "version 1 serves, and stays until unpinned"
        assert (pinned["model"]["version"], pinned["model"]["pinned"]) == (1, 1)
        assert (await post(client)).headers["x-ebseg-model"] == f"{NAME}/1"
        assert (await change(client, "rollback")).json()["model"]["version"] == 2
        assert (await change(client, "unpin")).json()["model"]["pinned"] is None
        publish(tmp_path, NAME, 3)
        reloaded = (await change(client, "reload")).json()
        assert reloaded["done"] == "version 3 serves"
        assert reloaded["model"]["version"] == 3
        assert (await post(client)).headers["x-ebseg-model"] == f"{NAME}/3"


EVENTS: dict[str, Any] = {  # as EventBridge, Google's Workflows and Azure's Logic Apps pass them on
    "s3": {
        "version": "0",
        "detail-type": "Object Created",
        "source": "aws.s3",
        "detail": {"bucket": {"name": "b"}, "object": {"key": f"registry/{NAME}/2/manifest.json"}},
    },
    "gs": {"kind": "storage#object", "bucket": "b", "name": f"registry/{NAME}/2/manifest.json"},
    "az": [
        {
            "eventType": "Microsoft.Storage.BlobCreated",
            "subject": f"/blobServices/default/containers/b/blobs/registry/{NAME}/2/manifest.json",
        }
    ],
}


@pytest.mark.parametrize("store", EVENTS)
async def test_a_stores_event_has_the_registry_looked_at(store: str, tmp_path: Path, first: Manifest) -> None:
    """By the key alone that each of them can send; what else it says is of no matter."""
    async with serving(tmp_path, Loader(), **KEYS) as (client, service):
        publish(tmp_path, NAME, 2)
        said = Mock(wraps=service.models.announce)
        service.models.announce = said
        path, key = f"/v1/models/{NAME}:reload", ADMIN["Authorization"].removeprefix("Bearer ")
        problem(await client.post(path, json=EVENTS[store], headers=USER), 403)
        assert (await post(client, headers=USER)).headers["x-ebseg-model"] == f"{NAME}/1"
        answer = await client.post(path, json=EVENTS[store], headers={"X-API-Key": key})
        assert (answer.status_code, answer.json()["done"]) == (200, "version 2 serves")
        assert said.mock_calls  # to all other processes
        again = await client.post(path, json=EVENTS[store], headers={"X-API-Key": key})
        assert again.json()["done"] == "nothing else is newer than version 2, which stays"


async def test_predictions_of_freed_weights_are_dropped(tmp_path: Path, first: Manifest) -> None:
    settings = {"admin_keys": KEYS["admin_keys"], "prediction_cache_bytes": 1 << 20}
    async with serving(tmp_path, Loader(), **settings) as (client, service):
        assert (await post(client)).status_code == 200
        assert len(service.predictions) == 1
        publish(tmp_path, NAME, 2)
        await change(client, "reload")
        await until(lambda: len(service.predictions) == 0)
        assert service.predictions.nbytes == 0


async def test_changes_that_cannot_be(tmp_path: Path, first: Manifest) -> None:
    publish(tmp_path, NAME, 2)
    load = Loader()
    async with serving(tmp_path, load, **KEYS) as (client, _):
        publish(tmp_path, NAME, 3, "NaN")
        assert f"version 3 of {NAME} cannot be served: NaN" in problem(await pin(client, 3), 409)["detail"]
        problem(await pin(client, 9), 404)
        load.faults = {1: [MemoryError("full")]}
        unavailable = await pin(client, 1)
        assert "cannot be loaded now: MemoryError: full" in problem(unavailable, 503)["detail"]
        assert unavailable.headers["retry-after"] == "1"
        for action in ("unpin", "rollback", "reload"):
            problem(await change(client, action, "other"), 404)
        problem(await pin(client, 1, "other"), 404)
        for wrong in (0, -1, "x", None, 1.5, 10**30):
            assert problem(await pin(client, wrong), 422)["errors"][0]["field"] == "version"
        problem(await change(client, "pin", json={"version": 1, "more": 2}), 422)
        problem(await change(client, "pin"), 415)
        json_type = ADMIN | {"Content-Type": "application/json"}
        problem(await client.post(f"/v1/models/{NAME}:pin", content=b"{", headers=json_type), 400)
        problem(await client.post(f"/v1/models/{NAME}:promote", headers=ADMIN), 405)
        assert (await client.get(f"/v1/models/{NAME}", headers=USER)).json()["version"] == 2


async def test_changes_need_an_admins_key(tmp_path: Path, first: Manifest) -> None:
    async with serving(tmp_path, Loader(), **KEYS) as (client, _):
        for action in ("pin", "unpin", "rollback", "reload"):
            url = f"/v1/models/{NAME}:{action}"
            problem(await client.post(url, json={"version": 1}), 401)
            problem(await client.post(url, json={"version": 1}, headers=USER), 403)
        reported = (await client.get(f"/v1/models/{NAME}", headers=USER)).json()
    assert reported["pinned"] is None


async def test_one_checkpoint_has_no_versions_to_change(tmp_path: Path, first: Manifest) -> None:
    folder = tmp_path / NAME / "1"
    async with running(load=Loader(), checkpoint=folder, device="cpu", **KEYS) as (client, _):
        reported = (await client.get("/v1/models", headers=USER)).json()["models"][0]
        assert (reported["name"], reported["policy"], reported["default"]) == (NAME, "fixed", True)
        for answer in (
            await pin(client, 1),
            *[await change(client, action) for action in ("unpin", "rollback", "reload")],
        ):
            assert "serve from a registry to change versions" in problem(answer, 409)["detail"]


async def test_changes_are_documented_and_counted_by_their_template(tmp_path: Path, first: Manifest) -> None:
    async with serving(tmp_path, Loader(), **KEYS) as (client, service):
        await change(client, "reload")
        schema = (await client.get("/openapi.json")).json()
        counted = service.metrics.exposition().decode()
    labels = 'code="200",model="",route="/v1/models/{name}:reload",version=""'
    assert f"ebseg_requests_total{{{labels}}} 1.0" in counted
    for action in ("pin", "unpin", "rollback", "reload"):
        operation = schema["paths"][f"/v1/models/{{name}}:{action}"]["post"]
        expected = {"200", "401", "403", "404", "409", "500", "503", "504"}
        assert expected <= operation["responses"].keys()
        for status, answer in operation["responses"].items():
            if status != "200":
                assert set(answer["content"]) == {"application/problem+json"}, (action, status)


async def test_only_administrators_are_told_where_a_registry_failed(
    tmp_path: Path, first: Manifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody else learns of what kind it is: no folder, no bucket, no address."""
    async with serving(tmp_path, Loader(), **KEYS) as (client, service):
        lost = ConnectionError(
            "no response from 10.1.2.3 for https://me:hunter-2@bucket.example/a?sig=hunter-2"
        )
        monkeypatch.setattr(Versions(f"{tmp_path}/{NAME}").fs, "ls", Mock(side_effect=lost))
        reported = problem(await change(client, "reload"), 503)
        in_full = service.models.status(NAME).last_error
        shown = {}
        for kind, key in (("user", USER), ("admin", ADMIN)):
            one = (await client.get(f"/v1/models/{NAME}", headers=key)).json()
            assert (await client.get("/v1/models", headers=key)).json()["models"] == [one]
            shown[kind] = one["last_error"]
        health = [await client.get(path) for path in ("/readyz", "/startupz", "/livez", "/metrics")]
    assert shown["admin"] == in_full
    assert shown["user"] == "the registry does not answer as it should; the log of the service says more"
    assert [answer.status_code for answer in health] == [200] * 4
    assert health[0].json()["checks"]["registry"] == "failing"
    for secret in (str(tmp_path), "10.1.2.3", "bucket.example"):
        assert secret in str(in_full)
        assert not any(secret in answer.text for answer in health)
    assert "hunter-2" not in str(in_full) + str(reported)
    assert in_full in [vars(record).get("reason") for record in caplog.records]
