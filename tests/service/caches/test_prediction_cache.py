import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.network.balance import Balance
from service.caches.prediction_cache import CachedPrediction, PredictionCache
from service.observability.metrics import Metrics
from tests.service.fakes import INFO
from tests.waiting import WAIT


@dataclass(frozen=True)
class Prediction:
    nbytes: int


def of(nbytes: int) -> CachedPrediction:
    return CachedPrediction(prediction=Prediction(nbytes), size=(4, 6))


def counted(metrics: Metrics) -> dict[str, float]:
    """Operations by result; no other cache, no other tier."""
    found = {}
    for sample in next(iter(metrics.cache_ops.collect())).samples:
        if sample.name.endswith("_total"):
            assert (sample.labels["cache"], sample.labels["tier"]) == ("prediction", "l1")
            found[sample.labels["result"]] = sample.value
    return found


def lookups(metrics: Metrics) -> float | None:
    labels = {"cache": "prediction", "tier": "l1"}
    return metrics.registry.get_sample_value("ebseg_cache_duration_seconds_count", labels)


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.cache_ops.clear()  # zeros of other caches, if it starts with any
    return made


def test_gives_back_what_was_put(metrics: Metrics) -> None:
    cache = PredictionCache(100, metrics)
    key = cache.key_of(b"picture", INFO)
    assert cache.get(key) is None
    put = of(40)
    cache.put(key, put)
    assert cache.get(key) is put
    assert (cache.nbytes, len(cache), cache.enabled) == (40, 1, True)
    assert counted(metrics) == {"miss": 1, "stored": 1, "hit": 1}
    assert lookups(metrics) == 2


def test_those_used_longest_ago_make_room(metrics: Metrics) -> None:
    cache = PredictionCache(100, metrics)
    for name, size in ((b"a", 30), (b"b", 30), (b"c", 40)):
        cache.put(name, of(size))
    assert cache.nbytes == 100
    assert cache.get(b"a") is not None  # b is the oldest now
    cache.put(b"d", of(30))
    assert cache.get(b"b") is None
    assert cache.nbytes == 100
    cache.put(b"e", of(50))  # c and a go: 70 B
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d", b"e")] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert (cache.nbytes, len(cache)) == (80, 2)
    assert counted(metrics)["evicted"] == 3


def test_a_new_entry_replaces_the_old_one(metrics: Metrics) -> None:
    cache = PredictionCache(100, metrics)
    cache.put(b"a", of(90))
    cache.put(b"a", of(10))
    assert cache.nbytes == 10
    cache.put(b"b", of(90))
    cache.put(b"a", of(20))  # has become the one used last
    assert cache.get(b"b") is None
    assert (cache.nbytes, len(cache)) == (20, 1)
    assert counted(metrics) == {"stored": 4, "evicted": 1, "miss": 1}


def test_an_entry_above_the_whole_budget_is_not_kept(metrics: Metrics) -> None:
    cache = PredictionCache(100, metrics)
    cache.put(b"a", of(60))
    cache.put(b"b", of(101))
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None  # nothing made room in vain
    assert cache.nbytes == 60
    cache.put(b"c", of(100))
    assert (cache.nbytes, len(cache)) == (100, 1)
    assert counted(metrics)["dropped"] == 1


def test_no_bytes_turn_it_off(metrics: Metrics) -> None:
    cache = PredictionCache(0, metrics)
    cache.put(b"a", of(0))
    assert cache.get(b"a") is None
    assert not cache.enabled
    assert (cache.nbytes, len(cache)) == (0, 0)
    assert counted(metrics) == {}
    assert not lookups(metrics)


def test_a_freed_versions_entries_are_forgotten(metrics: Metrics) -> None:
    cache = PredictionCache(100, metrics)
    other = replace(INFO, digest="e" * 64)
    old = [cache.key_of(bytes([number]), INFO) for number in range(3)]
    new = cache.key_of(b"\0", other)
    for key in (*old, new):
        cache.put(key, of(10))
    cache.forget(INFO.digest)
    assert [cache.get(key) for key in old] == [None] * 3
    assert cache.get(new) is not None
    assert (cache.nbytes, len(cache)) == (10, 1)
    cache.forget(INFO.digest)
    assert counted(metrics)["evicted"] == 3


@pytest.mark.parametrize(
    "other",
    [
        lambda: PredictionCache.key_of(b"another", INFO),
        lambda: PredictionCache.key_of(b"", INFO),
        lambda: PredictionCache.key_of(b"picture\0", INFO),
        lambda: PredictionCache.key_of(b"picture", replace(INFO, digest="e" * 64)),
        lambda: PredictionCache.key_of(b"picture", replace(INFO, dtype="bfloat16")),
        lambda: PredictionCache.key_of(b"picture", replace(INFO, variant="base")),
        lambda: PredictionCache.key_of(b"picture", replace(INFO, variant="tin", dtype="yfloat32")),
    ],
)
def test_keys_hold_what_predictions_depend_on(other: Callable[[], bytes]) -> None:
    assert PredictionCache.key_of(b"picture", INFO) != other()


def test_keys_leave_out_what_does_not_matter() -> None:
    same = replace(
        INFO,
        name="b",
        version=9,
        device="cuda:1",
        untrained=True,
        balance=Balance.arithmetic(mask_attention=0.1),
    )
    key = PredictionCache.key_of(b"picture", INFO)
    assert PredictionCache.key_of(b"picture", same) == key
    assert len(key) == 64
    assert key[:32] == hashlib.sha256(INFO.digest.encode()).digest()


operations = st.lists(st.tuples(st.sampled_from("gp"), st.integers(0, 6), st.integers(0, 60)), max_size=60)


@settings(deadline=None)
@given(operations)
def test_behaves_like_a_list_of_keys_by_use(todo: list[tuple[str, int, int]]) -> None:
    cache = PredictionCache(100, Metrics())
    used: dict[bytes, CachedPrediction] = {}  # in order of use
    for what, number, size in todo:
        key = bytes([number])
        if what == "g":
            expected = used.pop(key, None)
            if expected is not None:
                used[key] = expected
            assert cache.get(key) is expected
        else:
            used.pop(key, None)
            used[key] = of(size)
            cache.put(key, used[key])
            while sum(item.prediction.nbytes for item in used.values()) > 100:
                del used[next(iter(used))]
        assert cache.nbytes == sum(item.prediction.nbytes for item in used.values())
        assert len(cache) == len(used)


def test_threads_leave_it_in_order(metrics: Metrics) -> None:
    cache = PredictionCache(1000, metrics)
    begin = threading.Barrier(8)
    keys = [cache.key_of(bytes([number]), replace(INFO, digest=str(number % 3))) for number in range(40)]
    kept = [of(10 + number) for number in range(40)]

    def work(seed: int) -> int:
        begin.wait(WAIT)
        hits = 0
        for step in range(400):
            number = (seed * 31 + step * 17) % 40
            found = cache.get(keys[number])
            assert found is None or found is kept[number]
            assert cache.nbytes <= 1000 + 50 * 8  # whoever puts is above it for a moment
            hits += found is not None
            if found is None:
                cache.put(keys[number], kept[number])
            if step % 100 == 99:
                cache.forget(str(seed % 3))
        return hits

    with ThreadPoolExecutor(8) as pool:
        hits = sum(pool.map(work, range(8)))
    present: list[Any] = [cache.get(key) for key in keys]
    assert cache.nbytes == sum(item.prediction.nbytes for item in present if item is not None) <= 1000
    assert len(cache) == sum(item is not None for item in present)
    results = counted(metrics)
    assert results["hit"] == hits + len(cache)
    assert results["hit"] + results["miss"] == 8 * 400 + 40
    assert results["stored"] - results["evicted"] <= results["stored"]
    assert results["stored"] >= results["evicted"] + len(cache)  # some replaced one that came just before
