"""Predictions of pictures that were seen before: the same picture with other classes skips `predict`."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from service.caches.recent import Recent
from service.observability.metrics import Metrics
from service.scheduling.engine import ModelInfo

REMARKS_KEPT = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedPrediction:
    """What the model made of a picture, before any class was asked for.

    Attributes:
        prediction: of the engine, in the host's memory; its `nbytes` is what it costs.
        size: rows and columns of the upright picture.
    """

    prediction: Any
    size: tuple[int, int]


class PredictionCache:
    """The predictions used last, within a number of bytes. For any thread.

    Args:
        max_bytes: of all predictions together; 0 turns the cache off.
        metrics: where hits, misses, stored, evicted and dropped (too large) entries are counted.

    Attributes:
        on_kept: notified of keys under which there is a prediction now, on any thread.
    """

    def __init__(self, max_bytes: int, metrics: Metrics):
        self.on_kept: Callable[[bytes], None] = lambda key: None
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._entries: Recent[bytes, CachedPrediction] = Recent(max_bytes, _size_of)
        self._remarks: LRUCache[bytes, tuple[str, ...]] = LRUCache(REMARKS_KEPT)
        self._lock = threading.Lock()

    @staticmethod
    def key_of(data: bytes, info: ModelInfo, owner: str = "", frame: int | None = None) -> bytes:
        """The key of a picture under a model; 64 bytes. Slow for a large picture: not for the event loop.

        Args:
            owner: who alone finds it again; empty for everybody.
            data: the picture's file; the same pixels in another file are another picture.
            info: of the engine. Predictions differ by weights, variant and dtype; balance and name come in
                after the prediction, and all devices share.
            frame: of the file, if one was asked for.
        """
        how = "\0".join((info.variant, info.dtype, *([owner] if owner else []))).encode()
        picture = hashlib.sha256(data).digest()
        if frame is not None:
            picture = hashlib.sha256(picture + frame.to_bytes(8, "big")).digest()
        return _of_digest(info.digest) + hashlib.sha256(picture + how).digest()

    @property
    def enabled(self) -> bool:
        """Whether anything is ever kept."""
        return self._max_bytes > 0

    @property
    def nbytes(self) -> int:
        """Bytes of all predictions that are kept."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> CachedPrediction | None:
        """What is kept under a key, which then counts as used last."""
        if not self.enabled:
            return None
        began = time.perf_counter()
        with self._lock:
            entry = self._entries.get(key)
        self._metrics.observe(self._metrics.cache_seconds, time.perf_counter() - began, "prediction", "l1")
        self._count("miss" if entry is None else "hit")
        return entry

    def remark(self, key: bytes, remarks: tuple[str, ...]) -> None:
        """Notes what was said of a picture when it was decoded, for those that come without being decoded."""
        if self.enabled:
            with self._lock:
                self._remarks[key] = remarks

    def remarks_on(self, key: bytes) -> tuple[str, ...]:
        """What was noted of a picture."""
        with self._lock:
            return self._remarks.get(key, ())

    def peek(self, key: bytes) -> Any:
        """The prediction under a key, or None; nothing is counted, and nothing counts as used."""
        with self._lock:
            entry = self._entries.peek(key)
        return None if entry is None else entry.prediction

    def keep(self, key: bytes, prediction: Any, size: tuple[int, int]) -> None:
        """`put` of what the scheduler has."""
        self.put(key, CachedPrediction(prediction=prediction, size=size))

    def put(self, key: bytes, cached: CachedPrediction) -> None:
        """Keeps a prediction; those used longest ago make room. One above the whole budget is not kept."""
        if not self.enabled:
            return
        with self._lock:
            former = self._entries.pop(key, None)
            gone = self._entries.put(key, cached)
        if gone is None:
            self._count("dropped")
            return
        self.on_kept(key)
        self._count("stored")
        self._count("evicted", len(gone))
        del (
            former
        )  # it and `gone` end here, so that freeing a prediction's memory keeps nobody waiting for the lock

    def forget(self, digest: str) -> None:
        """Drops the predictions of weights that are freed; call it once nobody uses them any more."""
        prefix = _of_digest(digest)
        with self._lock:
            gone = [self._entries.pop(key) for key in list(self._entries) if key.startswith(prefix)]
        self._count("evicted", len(gone))

    def _count(self, result: str, number: int = 1) -> None:
        if number:
            self._metrics.count(self._metrics.cache_ops, "prediction", "l1", result, by=number)


def _size_of(cached: CachedPrediction) -> int:
    return int(cached.prediction.nbytes)


def _of_digest(digest: str) -> bytes:
    return hashlib.sha256(digest.encode()).digest()
