"""Registries of versions without a model in them, engines of such versions, and `Models` around both."""

import asyncio
import dataclasses
import hashlib
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from model.errors import CheckpointError, PictureError
from model.storage.manifest import FILES, MANIFEST, WEIGHTS, FileEntry, Manifest, files_digest
from model.storage.verify import verify
from model.storage.versions import Versions
from service.hot_loading.models import Models
from service.observability.metrics import Metrics
from service.scheduling.engine import Engine, Measurement
from service.settings import Settings
from tests.service.fakes import INFO, FakeEngine
from tests.waiting import WAIT, until

T = TypeVar("T")
SELDOM = 1000.0  # seconds between two looks: nothing moves but what the test moves
OFTEN = 0.004


def publish(registry: str | Path, model: str, number: int, weights: str = "good", **changes: Any) -> Manifest:
    """Puts a version of six small files, manifest last, into a folder or at any URL."""
    place = Versions(f"{registry}/{model}")
    content = {file: f"{file} of {number}".encode() for file in FILES} | {WEIGHTS: weights.encode()}
    files = {
        file: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for file, data in content.items()
    }
    manifest = Manifest(
        name=model,
        version=number,
        variant="tiny",
        untrained=False,
        files=files,
        digest=files_digest(files),
        text_digest="a" * 64,
        parent=None,
        created="2025-01-01T00:00:00+00:00",
        training={},
    )
    manifest = dataclasses.replace(manifest, **changes)
    content[MANIFEST] = manifest.to_json().encode()
    place.fs.makedirs(place.path(number), exist_ok=True)
    for file, data in content.items():
        place.fs.pipe_file(f"{place.path(number)}/{file}", data)
    return manifest


def memory_url() -> str:
    """A registry of its own that is no folder."""
    return f"memory://{uuid.uuid4().hex}"


def connection_lost(*_: object, **__: object) -> None:
    """What to put in the place of a file system's function."""
    raise ConnectionError("connection lost")


class VersionEngine(FakeEngine):
    """Of a published version; counts how often it is closed."""

    def __init__(self, manifest: Manifest, device: str, **options: Any):
        super().__init__(
            dataclasses.replace(
                INFO, name=manifest.name, version=manifest.version, digest=manifest.digest, device=device
            ),
            **options,
        )
        self.closings = 0
        self.refuses: set[tuple[int, int]] = set()
        self.shortage: Exception | None = None

    def warm(self, shape: tuple[int, int]) -> Sequence[Measurement]:
        if self.shortage is not None:
            raise self.shortage
        if shape in self.refuses:
            raise PictureError(f"cannot take {shape}")
        return super().warm(shape)

    def close(self) -> None:
        super().close()
        self.closings += 1


class Loader:
    """`load_engine` without a model: what a weights file holds is what goes wrong, "good" is nothing.

    Attributes:
        faults: errors by version, each raised once instead of loading.
        engines: all that were made.
        asked: version, device and whether to verify, of each call.
        at: called with the version before each load, on the loader's thread.
        made: called with each engine that was made.
    """

    def __init__(self) -> None:
        self.faults: dict[int, list[Exception]] = {}
        self.engines: list[VersionEngine] = []
        self.asked: list[tuple[int, str, bool]] = []
        self.folders: list[Path] = []
        self.threads: set[str] = set()
        self.at: Callable[[int], None] = lambda version: None
        self.made: Callable[[VersionEngine], None] = lambda engine: None

    def __call__(self, folder: Path, *, device: str, dtype: str, verify_digests: bool) -> Engine:
        manifest = Manifest.from_json((folder / MANIFEST).read_bytes())
        self.asked.append((manifest.version, device, verify_digests))
        self.folders.append(folder)
        self.threads.add(threading.current_thread().name)
        self.at(manifest.version)
        if verify_digests:
            verify(folder)
        if self.faults.get(manifest.version):
            raise self.faults[manifest.version].pop(0)
        weights = (folder / WEIGHTS).read_text()
        if not weights.startswith("good"):
            raise CheckpointError(weights)
        engine = VersionEngine(manifest, device)
        self.engines.append(engine)
        self.made(engine)
        return engine

    def versions(self) -> list[int]:
        """Versions in the order in which loading them began."""
        return [version for version, _, _ in self.asked]

    def closings(self) -> dict[int, int]:
        """How often the engines of each version were closed."""
        counts: Counter[int] = Counter()
        for engine in self.engines:
            counts[engine.info.version] += engine.closings
        return dict(counts)


class Gate:
    """Something that begins and then waits until it may go on: for `Loader.at`."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self, version: int) -> None:
        self.begun.set()
        assert self.open.wait(WAIT)


class FakeDevice:
    """Runs calls at once, on a thread."""

    def __init__(self, shapes: Sequence[tuple[int, int]] = ()):
        self.shapes = list(shapes)
        self.calls = 0
        self.since: list[float | None] = []

    async def call(self, work: Callable[[], T], *, since: float | None = None) -> T:
        self.calls += 1
        self.since.append(since)
        await asyncio.sleep(0)
        return work()

    def recent_shapes(self) -> list[tuple[int, int]]:
        return self.shapes


@asynccontextmanager
async def serving(
    registry: str | Path,
    model: str = "a",
    *,
    load: Loader | None = None,
    devices: Sequence[FakeDevice] | None = None,
    poll: float = SELDOM,
    **values: Any,
) -> AsyncIterator[tuple[Models, Loader, Metrics]]:
    """Models of a registry, started; stopped at the end, without a thread left."""
    load, metrics = load or Loader(), Metrics()
    given = devices or [FakeDevice()]
    settings = Settings(
        registry=str(registry),
        model=model,
        registry_poll_s=poll,
        device=",".join(["cpu"] * len(given)),
        **values,
    )
    models = Models(settings, metrics, given, load)
    before = set(threading.enumerate())  # of services around this one
    try:
        await models.start()
        yield models, load, metrics
    finally:
        await models.stop()
        new = set(threading.enumerate()) - before
        assert [thread for thread in new if thread.name == "ebseg-loader"] == []


def made(registry: str, **values: Any) -> tuple[Models, Metrics]:
    """Models of a registry that look often and are not started, so that nothing waits for them."""
    settings = Settings(registry=registry, model="a", registry_poll_s=OFTEN, device="cpu", **values)
    metrics = Metrics()
    return Models(settings, metrics, [FakeDevice()], Loader()), metrics


def models_of_folder(folder: Path, metrics: Metrics | None = None, load: Loader | None = None) -> Models:
    """Models of one checkpoint folder, not started."""
    settings = Settings(checkpoint=folder, device="cpu")
    return Models(settings, metrics or Metrics(), [FakeDevice()], load or Loader())


async def publish_and_reload(models: Models, registry: str | Path, number: int, weights: str = "good") -> str:
    """Puts a version of "a" into the registry, has the models look, and gives what they say they did."""
    publish(registry, "a", number, weights)
    return await models.reload("a")


async def reload_held_up(
    models: Models, load: Loader, registry: Path, number: int
) -> tuple[Gate, "asyncio.Task[str]"]:
    """The same, stopped while the version loads: the gate before it, and the reload."""
    gate = load.at = Gate()
    reload = asyncio.create_task(publish_and_reload(models, registry, number))
    await until(gate.begun.is_set)
    return gate, reload


def current(models: Models, name: str = "a") -> int:
    """The version that answers."""
    return models.status(name).versions[0].version


def roles(models: Models, name: str = "a") -> dict[int, str]:
    """Versions in memory, and what they are there for."""
    return {version.version: version.role for version in models.status(name).versions}


def quarantined(models: Models, name: str = "a") -> dict[int, str]:
    """Refused versions with their reasons."""
    return {entry.version: entry.reason for entry in models.status(name).quarantined}


def failing(metrics: Metrics) -> dict[str, float]:
    """How registry or load of a model failed when last tried."""
    samples = next(iter(metrics.model_load_failing.collect())).samples
    return {sample.labels["result"]: sample.value for sample in samples}


def loads(metrics: Metrics) -> dict[str, int]:
    """`ebseg_model_loads_total` by result, those that are not 0."""
    samples = next(iter(metrics.model_loads.collect())).samples
    return {
        sample.labels["result"]: int(sample.value)
        for sample in samples
        if sample.name.endswith("_total") and sample.value
    }


def infos(metrics: Metrics) -> set[tuple[str, str]]:
    """Model and version of each `ebseg_model_info`."""
    return {
        (s.labels["model"], s.labels["version"]) for s in next(iter(metrics.model_info.collect())).samples
    }


def ask(models: Models, count: int, *, model: str | None = None, failing: Sequence[int] = ()) -> list[int]:
    """So many requests one after another; those that meet a failing version fail. The versions they met."""
    met = []
    for _ in range(count):
        with models.lease(model) as lease:
            lease.count_answer("failed" if lease.info.version in failing else "good")
            met.append(lease.info.version)
    return met


def remove(registry: Path, name: str, number: int) -> None:
    """Takes a version out of a folder registry."""
    shutil.rmtree(registry / name / str(number))


async def until_current(models: Models, number: int) -> None:
    """Waits for a version of "a" to serve."""
    await until(lambda: current(models) == number)
