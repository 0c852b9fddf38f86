"""Brings versions up: on a thread of its own, one at a time, so that neither event loop nor devices wait.

What asks a registry, and fetches, has a thread for each model: no model waits for another one's registry.
"""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from model.errors import CheckpointError, ModelError, NoSpaceError, PictureError, UnfinishedError
from model.storage.manifest import Manifest
from model.storage.serving_state import ServingStateError
from model.storage.versions import StoreError
from model.urls import without_secrets
from service.errors import NotReadyError, ServiceError
from service.hot_loading.loaded import LoadedVersion
from service.scheduling.engine import Engine, Measurement, ModelInfo
from service.scheduling.out_of_memory import is_out_of_memory
from service.settings import SettingsError

T = TypeVar("T")
# Rows and columns of pictures whose shapes are warmed before any came
USUAL_PICTURES = ((480, 640), (640, 480), (512, 512), (720, 1280), (1280, 720))
LOAD_SECONDS = 1800.0  # a load that takes longer hangs


class LoadingDevice(Protocol):
    """What loading needs of a device."""

    async def call(self, work: Callable[[], T], *, since: float | None = None) -> T:
        """Runs work on the device's thread, between two steps, as urgent as if it had come at `since`."""

    def recent_shapes(self) -> list[tuple[int, int]]:
        """Network rows and columns of recent pictures."""


class LoadEngine(Protocol):
    """Loads and checks a checkpoint folder on one device, as `scheduling.torch_engine.load_engine` does."""

    def __call__(self, folder: Path, *, device: str, dtype: str, verify_digests: bool) -> Engine:
        """Raises CheckpointError if the version can never serve."""


class LoaderThread:
    """One thread that does heavy work in order. It starts with the first work.

    The queue is as long as there are models and retired versions: each has at most one entry.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str = "ebseg-loader") -> None:
        self._name = name
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopped = threading.Event()

    async def run(self, work: Callable[[], T]) -> T:
        """Runs work in its turn. Cancelling takes it off the queue if it has not begun.

        Raises:
            NotReadyError: the thread was stopped.
        """
        self._refuse_if_stopped()
        return await asyncio.wrap_future(self._put(work))

    def post(self, work: Callable[[], None]) -> None:
        """Has work done for which nobody waits; any thread. After `stop` it is done at once."""
        if self._stopped.is_set():
            work()
        else:
            self._put(work)

    def progress(self, step: str, done: int, total: int) -> None:
        """For long copies to call: breaks them off by NotReadyError once the thread is to stop."""
        self._refuse_if_stopped()

    async def stop(self, seconds: float) -> None:
        """Does what was put before, and ends the thread; does not wait longer than so many seconds."""
        self._stopped.set()
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, seconds)

    def _refuse_if_stopped(self) -> None:
        if self._stopped.is_set():
            raise NotReadyError("the service is shutting down")

    def _put(self, work: Callable[[], T]) -> Future[T]:
        with self._starting:
            if self._thread is None:
                # a daemon: a store that hangs must not keep the process from ending
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
        future: Future[T] = Future()
        self._queue.put((future, work))
        return future

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            future, work = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            del item, future, work  # what they hold may be a model


class Loading:
    """Loads versions beside those that serve.

    Args:
        thread: where it is done.
        devices: one engine each.
        names: of the devices, as torch knows them.
        dtype: that the model computes in.
        load: makes an engine of a folder.

    Attributes:
        on_warmed: notified of how long the steps of a warm-up took.
    """

    def __init__(
        self,
        thread: LoaderThread,
        devices: Sequence[LoadingDevice],
        *,
        names: Sequence[str],
        dtype: str,
        load: LoadEngine,
    ):
        self.on_warmed: Callable[[ModelInfo, Sequence[Measurement]], None] = lambda info, measured: None
        self.thread = thread
        self._turn = asyncio.Lock()  # one model's load at a time: memory holds one more version, not many
        self._devices = devices
        self._names = names
        self._dtype = dtype
        self._load = load

    async def bring_up(
        self,
        folder: Path,
        manifest: Manifest | None = None,
        *,
        verified: bool = False,
        fingerprint: str = "",
    ) -> LoadedVersion:
        """A version ready to serve: verified, on every device, its golden picture compared, warm.

        Args:
            folder: of the version.
            manifest: that the version has to be of, if any.
            verified: whether the folder's digests were compared already.
            fingerprint: for `LoadedVersion`.

        Raises:
            Exception: whatever went wrong; `is_versions_fault` tells whether trying again is of use.
        """
        # Other models' loads are waited for, and their time is not this one's. Where it hangs or is
        # cancelled, a thread may still use the engines: they are dropped, not closed.
        async with self._turn, limited(LOAD_SECONDS, "loading"):
            began, since = time.perf_counter(), time.monotonic()
            engines = await self.thread.run(partial(self._engines, folder, manifest, verified))
            try:
                await self._warm(engines, since)
            except Exception:
                await self.thread.run(partial(close, engines))
                raise
        return LoadedVersion(engines, seconds=time.perf_counter() - began, fingerprint=fingerprint)

    def _engines(self, folder: Path, manifest: Manifest | None, verified: bool) -> list[Engine]:
        engines: list[Engine] = []
        try:
            for name in self._names:
                engines.append(
                    self._load(
                        folder, device=name, dtype=self._dtype, verify_digests=not (verified or engines)
                    )
                )
                if manifest is not None:
                    _check_identity(engines[-1], manifest)
        except BaseException as error:
            if is_out_of_memory(error):
                error.__traceback__ = None  # its frames hold half a model
            close(engines)
            raise
        return engines

    async def _warm(self, engines: Sequence[Engine], since: float) -> None:
        usual = await self.thread.run(partial(usual_shapes, engines[0]))
        for engine, device in zip(engines, self._devices, strict=True):
            for shape in dict.fromkeys([*usual, *device.recent_shapes()]):
                # One shape a call, so that steps of the old version go in between. All are as old as the
                # whole loading: where requests never end, each would wait `ageing_s` if it counted anew.
                warm = partial(_warm_one, engine, shape, required=shape in usual)
                self.on_warmed(engine.info, await device.call(warm, since=since))


def may_pass(error: BaseException) -> bool:
    """Whether a registry that fails so at the start is worth waiting for."""
    if isinstance(error, StoreError):
        return not error.refused
    if isinstance(error, NoSpaceError):
        return True
    return isinstance(error, TimeoutError | UnfinishedError | ServingStateError)


def is_versions_fault(error: BaseException) -> bool:
    """Whether the version itself is bad, rather than store, disk, memory or device for the moment."""
    cause = error.__cause__
    if isinstance(error, StoreError | NoSpaceError | ServiceError | SettingsError):
        return False
    if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
        return False
    if isinstance(error, ModelError):
        return True
    return not (is_out_of_memory(error) or isinstance(error, torch.AcceleratorError | OSError))


def in_words(error: BaseException) -> str:
    """What a log line or a status says of an error; no secrets of URLs are in it."""
    own = isinstance(error, ModelError | ServiceError | SettingsError)
    return without_secrets(str(error) if own else f"{type(error).__name__}: {error}")


def in_public(error: BaseException) -> str:
    """What anybody may know of an error: its kind, and no place, no address, no other program's words."""
    cause = error.__cause__
    if isinstance(error, TimeoutError):
        return "the registry or the device took too long"
    if is_out_of_memory(error):
        return "the memory did not suffice for a new version"
    if isinstance(error, NoSpaceError):
        return "no space is left where new versions are fetched to (cache_dir)"
    if isinstance(error, StoreError | ConnectionError):
        return "the registry does not answer as it should"
    if isinstance(error, ServingStateError):
        return "what the registry asks to serve cannot be read"
    if isinstance(error, OSError) or isinstance(cause, OSError):
        return "a new version could not be fetched to the disk"
    if isinstance(error, torch.AcceleratorError):
        return "a device failed"
    return "a new version could not be loaded"


@asynccontextmanager
async def limited(seconds: float, what: str) -> AsyncIterator[None]:
    """`asyncio.timeout` whose error says what took too long."""
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(f"{what} took longer than {seconds:g} s") from None
        raise


def close(engines: Sequence[Engine]) -> None:
    """Frees engines; for the loader's thread.

    No garbage collection: an engine is in no cycle, and a full one stops all threads for up to a second.
    """
    for engine in engines:
        engine.close()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _check_identity(engine: Engine, manifest: Manifest) -> None:
    info = engine.info
    if (info.name, info.version, info.digest) != (manifest.name, manifest.version, manifest.digest):
        raise CheckpointError(
            f"loaded {info.name} version {info.version}, expected {manifest.name} version {manifest.version}"
        )


def usual_shapes(engine: Engine) -> list[tuple[int, int]]:
    """Shapes of the usual pictures at network resolution. To a CPU an upright one is as one that lies."""
    sizes = [size for size in USUAL_PICTURES if engine.info.device != "cpu" or size[0] <= size[1]]
    return [engine.prepare(np.full((*size, 3), 128, np.uint8)).shape for size in sizes]


def _warm_one(engine: Engine, shape: tuple[int, int], *, required: bool) -> Sequence[Measurement]:
    try:
        return engine.warm(shape)
    except PictureError:
        if required:  # other shapes may be another model's
            raise
        return ()
