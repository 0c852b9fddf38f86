"""Pictures in buckets, from a server that speaks S3, and from a stand-in for Google's."""

import sys
from collections.abc import Iterator

import fsspec
import httpx
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from service.remote_pictures.fetcher import PictureFetcher
from service.settings import SettingsError
from tests.service.fakes import PNG, fields, post, problem, running, settings
from tests.service.hot_loading.s3_server import S3, s3_server

pytestmark = pytest.mark.anyio
KEY = "a folder/ü.png"


@pytest.fixture(scope="module")
def store() -> Iterator[S3]:
    with s3_server() as server:
        files = fsspec.filesystem("s3")
        files.pipe_file(f"bucket/{KEY}", PNG)
        files.pipe_file("bucket/large.png", bytes(300_000))
        yield server


async def ask(client: httpx.AsyncClient, url: str) -> httpx.Response:
    return await client.post("/v1/segment", json={"url": url, "classes": ["sky", "tree"]})


async def test_a_picture_of_a_listed_bucket(store: S3) -> None:
    async with running(url_buckets="s3://bucket", max_bytes=200_000) as (client, service):
        answer = await ask(client, f"s3://bucket/{KEY}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["classes"] == (await post(client)).json()["classes"]
        missing = problem(await ask(client, "s3://bucket/missing.png"), 424)
        assert "no such image" in missing["detail"]
        assert "no such image" in problem(await ask(client, "s3://bucket/a folder"), 424)["detail"]
        assert problem(await ask(client, "s3://bucket/large.png"), 413)
        store.requests()
        assert "bucket" in fields(problem(await ask(client, "s3://other/a.png"), 422))["url"]
        assert store.requests() == []
        assert service.memory.reserved == 0


async def test_a_store_that_fails_says_so(store: S3) -> None:
    store.fail()
    try:
        async with running(url_buckets="s3://bucket") as (client, _):
            answer = await ask(client, f"s3://bucket/{KEY}")
    finally:
        store.fail(False)
    assert "cannot be read" in problem(answer, 424)["detail"]


async def test_google_storage_goes_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "gs", MemoryFileSystem)
    MemoryFileSystem().pipe_file("/shelf/a.png", PNG)
    async with running(url_buckets="gs://shelf") as (client, _):
        assert (await ask(client, "gs://shelf/a.png")).status_code == 200
        assert problem(await ask(client, "gs://shelf/b.png"), 424)


def test_a_bucket_without_its_library_stops_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(_registry, "gs", raising=False)  # where it was loaded before
    with pytest.raises(SettingsError, match="gcsfs"):
        PictureFetcher(settings(url_buckets="gs://shelf"))
