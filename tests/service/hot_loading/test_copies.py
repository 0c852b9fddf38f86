"""A copy under way is no bad version: every order of files, looks in between, in a folder and on S3."""

import asyncio
import itertools
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from model.storage.manifest import FILES, GOLDEN, MANIFEST, WEIGHTS
from model.storage.versions import Versions
from service.errors import ConflictError
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from service.settings import Settings
from tests.service.hot_loading.model_fakes import (
    FakeDevice,
    Loader,
    current,
    loads,
    publish,
    quarantined,
    roles,
    serving,
    until_current,
)
from tests.service.hot_loading.s3_server import S3, s3_server
from tests.waiting import until

pytestmark = pytest.mark.anyio
ALL = (*FILES, MANIFEST)
IN_NAME_ORDER = sorted(ALL)
OFTEN = 0.01


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def contents(source: Path, number: int, weights: str = "good") -> dict[str, bytes]:
    """The files of a version of "a", by name."""
    publish(source, "a", number, weights)
    return {name: (source / "a" / str(number) / name).read_bytes() for name in ALL}


def unfinished(models: Models) -> dict[int, str]:
    return {entry.version: entry.reason for entry in models.status("a").unfinished}


async def another_look(models: Models) -> None:
    last = models.status("a").last_checked_at
    await until(lambda: models.status("a").last_checked_at != last)


def counted(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("ebseg_model_unfinished_versions", {"model": "a"})


async def test_every_order_of_files_with_a_look_after_each(registry: Path, tmp_path: Path) -> None:
    """720 orders; a version serves by the look that follows its last file, and none is ever refused."""
    async with serving(registry) as (models, load, metrics):
        for number, order in enumerate(itertools.permutations(ALL), start=2):
            content = contents(tmp_path / "source", number)
            folder = registry / "a" / str(number)
            folder.mkdir()
            for name in order[:-1]:
                (folder / name).write_bytes(content[name])
                assert number in await _looked(models)
            (folder / order[-1]).write_bytes(content[order[-1]])
            assert await models.reload("a") == f"version {number} serves"
            shutil.rmtree(registry / "a" / str(number - 1))
        assert load.versions() == list(range(1, 722))
        assert loads(metrics) == {"loaded": 721}
        assert counted(metrics) == 0


async def _looked(models: Models) -> dict[int, str]:
    await models.reload("a")
    assert quarantined(models) == {}
    return unfinished(models)


@pytest.mark.parametrize("seed", range(6))
async def test_files_that_grow_in_any_order_with_any_pause(registry: Path, tmp_path: Path, seed: int) -> None:
    """Looks come by themselves, beside a copy that goes on by any number of bytes in any file."""
    chance = random.Random(seed)
    async with serving(registry, poll=OFTEN) as (models, load, metrics):
        for number in range(2, 8):
            content = contents(tmp_path / "source", number)
            folder = registry / "a" / str(number)
            folder.mkdir()
            left = dict(content)
            while left:
                name = chance.choice(sorted(left))
                some = chance.randint(0, len(left[name]))
                with (folder / name).open("ab") as file:
                    file.write(left[name][:some])
                left[name] = left[name][some:]
                if not left[name]:
                    del left[name]
                if left and chance.random() < 0.5:
                    await another_look(models)
                assert quarantined(models) == {}
            await until_current(models, number)
        assert load.versions() == list(range(1, 8))
        assert loads(metrics) == {"loaded": 7}


@pytest.mark.parametrize(
    "order",
    [
        IN_NAME_ORDER,
        IN_NAME_ORDER[::-1],
        ALL[::-1],
        *(random.Random(seed).sample(ALL, 6) for seed in range(3)),
    ],
    ids=["names", "names backwards", "manifest first", "mixed", "mixed again", "mixed once more"],
)
async def test_orders_on_s3(s3: S3, tmp_path: Path, order: Sequence[str]) -> None:
    registry = f"{s3.bucket}/{tmp_path.name}"
    publish(registry, "a", 1)
    place = Versions(f"{registry}/a")
    content = contents(tmp_path, 2)
    async with serving(registry) as (models, load, metrics):
        for name in order[:-1]:
            place.fs.pipe_file(f"{place.path(2)}/{name}", content[name])
            assert list(await _looked(models)) == [2]
        place.fs.pipe_file(f"{place.path(2)}/{order[-1]}", content[order[-1]])
        assert await models.reload("a") == "version 2 serves"
        assert load.versions() == [1, 2]
        assert loads(metrics) == {"loaded": 2}


async def test_it_is_told_what_a_version_lacks_and_since_when(registry: Path, tmp_path: Path) -> None:
    content = contents(tmp_path / "source", 2)
    folder = registry / "a" / "2"
    async with serving(registry) as (models, _, metrics):
        folder.mkdir()
        assert await _looked(models) == {}  # nothing of it is there
        (folder / MANIFEST).write_bytes(content[MANIFEST])
        done = await models.reload("a")
        assert done == (
            "version 2 is not all here yet: model.safetensors is missing; "
            "nothing else is newer than version 1, which stays"
        )
        (first,) = models.status("a").unfinished
        for name in ALL[:-1]:
            (folder / name).write_bytes(content[name])
        (folder / WEIGHTS).write_bytes(content[WEIGHTS][:3])
        assert await _looked(models) == {2: "model.safetensors has 3 of its 4 bytes"}
        assert models.status("a").unfinished[0].since == first.since
        assert (counted(metrics), loads(metrics)) == (1, {"loaded": 1})
        assert models.status("a").last_error is None
        with pytest.raises(
            ConflictError, match=r"version 2 of a is not all here yet: model\.safetensors has 3"
        ):
            await models.pin("a", 2)
        shutil.rmtree(folder)
        assert await _looked(models) == {}
        assert counted(metrics) == 0


async def test_a_newer_version_passes_an_unfinished_one_for_good(registry: Path, tmp_path: Path) -> None:
    content = contents(tmp_path / "source", 3)
    publish(registry, "a", 2)
    (registry / "a" / "3").mkdir()
    (registry / "a" / "3" / GOLDEN).write_bytes(content[GOLDEN])
    async with serving(registry) as (models, load, _):
        assert (roles(models), list(unfinished(models))) == ({2: "current"}, [3])
        publish(registry, "a", 4)
        await models.reload("a")
        assert (roles(models), unfinished(models)) == ({4: "current"}, {})
        publish(registry, "a", 3)
        await models.reload("a")
        assert load.versions() == [2, 4]


@pytest.mark.parametrize("model", ["a", "a@2"])
async def test_a_service_waits_for_its_first_version(tmp_path: Path, model: str) -> None:
    content = contents(tmp_path / "source", 2)
    folder = tmp_path / "a" / "2"
    folder.mkdir(parents=True)
    (folder / MANIFEST).write_bytes(content[MANIFEST])
    settings = Settings(registry=str(tmp_path), model=model, registry_poll_s=OFTEN, device="cpu")
    metrics = Metrics()
    models = Models(settings, metrics, [FakeDevice()], Loader())
    start = asyncio.create_task(models.start())
    try:
        await until(lambda: "not all here" in models.missing().get("a", ""))
        assert models.missing()["a"].endswith(
            "that can be served: version 2 is not all here yet: model.safetensors is missing"
        )
        for name in FILES:
            (folder / name).write_bytes(content[name])
        await start
        assert current(models) == 2
        assert loads(metrics) == {"loaded": 1}
    finally:
        await models.stop()


@pytest.mark.parametrize("kind", ["folder", "s3"])
async def test_a_whole_file_with_a_wrong_digest_is_bad_until_it_changes(
    s3: S3, tmp_path: Path, kind: str
) -> None:
    """As copies leave it that take the room first; what is written then needs no word from anybody."""
    registry = str(tmp_path / "registry") if kind == "folder" else f"{s3.bucket}/digests"
    publish(registry, "a", 1)
    content = contents(tmp_path / "source", 2)
    place = Versions(f"{registry}/a")
    place.fs.makedirs(place.path(2), exist_ok=True)
    for name in ALL:
        room = bytes(4) if name == WEIGHTS else content[name]
        place.fs.pipe_file(f"{place.path(2)}/{name}", room)
    async with serving(registry, poll=OFTEN) as (models, _, metrics):
        reason = "model.safetensors does not match its sha256, it was changed or damaged"
        assert (quarantined(models), unfinished(models)) == ({2: reason}, {})
        for _ in range(3):
            await another_look(models)
        assert (current(models), loads(metrics)) == (1, {"loaded": 1, "quarantined": 1})
        place.fs.pipe_file(f"{place.path(2)}/{WEIGHTS}", content[WEIGHTS])
        await until(lambda: current(models) == 2)
        assert (quarantined(models), loads(metrics)) == ({}, {"loaded": 2, "quarantined": 1})
