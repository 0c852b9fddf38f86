"""The text cache in one process: hits, shared work, bounds."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from string import ascii_lowercase

import pytest
import torch
from torch import Tensor

from model.vocabulary.classes import Vocabulary
from service.caches.text_cache import ENTRY_BYTES, Finished, Text, TextCache
from service.errors import NotReadyError
from service.observability.metrics import Metrics
from tests.service.hot_loading.stores import count
from tests.service.towers import WIDTH, Device, Tower, row_of
from tests.waiting import until

pytestmark = pytest.mark.anyio
ENTRY = WIDTH * 4 + ENTRY_BYTES


class Bench:
    """A cache, a tower and a device to ask it with."""

    def __init__(self, max_bytes: int = 1 << 20) -> None:
        self.metrics = Metrics()
        self.cache = TextCache(max_bytes=max_bytes, ttl_s=60, metrics=self.metrics, store=None)
        self.tower = Tower()
        self.device = Device()

    async def get(self, *names: str, tower: Tower | None = None, templates: Sequence[str] = ("{}",)) -> Text:
        vocabulary = Vocabulary.of(names, templates=templates)
        return await self.cache.get(
            vocabulary, (tower or self.tower).text_digest, self.device.embed(tower or self.tower)
        )

    def ask(self, *names: str) -> asyncio.Task[Text]:
        return asyncio.create_task(self.get(*names))

    def l1(self, result: str) -> float:
        return count(self.metrics, result, tier="l1")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.device.gate.set()
    await made.cache.stop()
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if "TextCache" in repr(task)] == []


def expected(*names: str, templates: Sequence[str] = ("{}",)) -> Tensor:
    return torch.stack([torch.from_numpy(row_of(name, "".join(templates))) for name in names])


async def test_embeds_once_and_remembers(bench: Bench) -> None:
    first = await bench.get("sky", "tree")
    assert first.source == "embedded"
    assert first.seconds > 0
    assert first.tensor.dtype == torch.float32
    assert first.tensor.is_contiguous()
    assert torch.equal(first.tensor, expected("sky", "tree"))
    second = await bench.get("sky", "tree")
    assert second.source == "l1"
    assert second.tensor is first.tensor
    assert bench.tower.calls == [["sky", "tree"]]
    assert (bench.l1("miss"), bench.l1("embedded"), bench.l1("hit")) == (2, 2, 2)
    lookups = bench.metrics.registry.get_sample_value(
        "ebseg_cache_duration_seconds_count", {"cache": "text", "tier": "l1"}
    )
    assert lookups == 2


async def test_overlapping_vocabularies_share_classes(bench: Bench) -> None:
    await bench.get("a", "b", "c")
    text = await bench.get("d", "b", "e", "a")
    assert text.source == "embedded"
    assert torch.equal(text.tensor, expected("d", "b", "e", "a"))
    assert bench.tower.calls == [["a", "b", "c"], ["d", "e"]]
    again = await bench.get("e", "c")
    assert again.source == "l1"
    assert torch.equal(again.tensor, expected("e", "c"))
    assert len(bench.tower.calls) == 2


async def test_entries_carry_what_they_depend_on(bench: Bench) -> None:
    await bench.get("sky")
    other = Tower("u" * 64)
    await bench.get("sky", tower=other)
    assert other.calls == [["sky"]]
    text = await bench.get("sky", templates=("a {}",))
    assert torch.equal(text.tensor, expected("sky", templates=("a {}",)))
    await bench.get("sea  view")
    for other_way in ("Sea View", "sea\u00a0view", "sea&nbsp;view"):  # one prompt to the tower: one entry
        assert (await bench.get(other_way)).source == "l1"
    await bench.get("sea", "view")
    assert bench.tower.calls == [["sky"], ["sky"], ["sea view"], ["sea", "view"]]


async def test_a_hundred_requests_for_the_same_unseen_classes_call_the_tower_once(bench: Bench) -> None:
    names = [f"class {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(150)]
    bench.device.gate.clear()
    tasks = [bench.ask(*names) for _ in range(100)]
    await until(lambda: bench.device.waiting)
    bench.device.gate.set()
    texts = await asyncio.gather(*tasks)
    assert bench.tower.calls == [names]
    assert [text.source for text in texts] == ["embedded"] + ["joined"] * 99
    assert len({id(text.tensor) for text in texts}) == 1
    assert torch.equal(texts[0].tensor, expected(*names))
    assert (bench.l1("miss"), bench.l1("joined"), bench.l1("embedded")) == (150, 99 * 150, 150)


async def test_overlapping_vocabularies_at_the_same_moment_embed_each_class_once(bench: Bench) -> None:
    bench.device.gate.clear()
    tasks = [bench.ask("a", "b", "c"), bench.ask("b", "d", "c"), bench.ask("c", "b"), bench.ask("d", "a")]
    await until(lambda: bench.device.waiting == 2)
    bench.device.gate.set()
    texts = await asyncio.gather(*tasks)
    assert bench.tower.calls == [["a", "b", "c"], ["d"]]
    assert [text.source for text in texts] == ["embedded", "embedded", "joined", "joined"]
    assert torch.equal(texts[1].tensor, expected("b", "d", "c"))
    assert torch.equal(texts[3].tensor, expected("d", "a"))


async def test_a_short_list_does_not_wait_for_a_long_one(bench: Bench) -> None:
    names = [f"class {one}{other}" for one in ascii_lowercase for other in ascii_lowercase]
    bench.device.gate.clear()
    long, half = bench.ask(*names), bench.ask(*names[300:])
    await until(lambda: bench.device.waiting == 1)
    short = bench.ask(names[-1], "sky")
    await until(lambda: bench.device.waiting == 2)
    bench.device.gate.set()
    assert (await half).source == "joined"
    text = await short
    assert text.source == "embedded"
    assert torch.equal(text.tensor, expected(names[-1], "sky"))
    assert torch.equal((await long).tensor, expected(*names))
    assert bench.tower.calls == [names, [names[-1], "sky"]]


async def test_another_engine_with_the_same_tower_shares_the_work(bench: Bench) -> None:
    bench.device.gate.clear()
    first = bench.ask("sky")
    await asyncio.sleep(0)
    reloaded = Tower()
    second = asyncio.create_task(bench.get("sky", tower=reloaded))
    await until(lambda: bench.device.waiting)
    bench.device.gate.set()
    assert (await first).tensor is (await second).tensor
    assert reloaded.calls == []


async def test_a_cancelled_leader_takes_nothing_from_the_others(bench: Bench) -> None:
    bench.device.gate.clear()
    leader, *others = [bench.ask("a", "b") for _ in range(4)]
    await until(lambda: bench.device.waiting)
    leader.cancel()
    others[0].cancel()
    await asyncio.wait([leader, others[0]])
    bench.device.gate.set()
    for task in others[1:]:
        assert torch.equal((await task).tensor, expected("a", "b"))
    assert leader.cancelled()
    assert bench.tower.calls == [["a", "b"]]
    assert bench.device.dropped == 0


async def test_work_that_nobody_waits_for_is_dropped_before_it_starts(bench: Bench) -> None:
    bench.device.gate.clear()
    tasks = [bench.ask("a", "b") for _ in range(3)]
    await until(lambda: bench.device.waiting)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    after = bench.ask("a")  # does not join what is about to end
    await until(lambda: bench.device.dropped == 1)
    bench.device.gate.set()
    assert (await after).source == "embedded"
    assert bench.tower.calls == [["a"]]


async def test_work_that_is_given_up_leaves_what_it_has_done(bench: Bench) -> None:
    begun = asyncio.Event()

    async def embed(names: Sequence[str], templates: Sequence[str], finished: Finished) -> Tensor:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            broken = torch.full((WIDTH,), torch.nan)
            finished({names[0]: torch.from_numpy(row_of(names[0], "{}")), names[2]: broken})
            raise
        raise AssertionError

    vocabulary = Vocabulary.of(["a", "b", "c"], templates=("{}",))
    task = asyncio.create_task(bench.cache.get(vocabulary, bench.tower.text_digest, embed))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: bench.cache._recent.currsize == ENTRY)
    text = await bench.get("a", "b", "c")
    assert bench.tower.calls == [["b", "c"]]
    assert torch.equal(text.tensor, expected("a", "b", "c"))


@pytest.mark.parametrize("waiting", [1, 5])
async def test_an_error_reaches_all_that_wait_and_is_not_remembered(bench: Bench, waiting: int) -> None:
    bench.device.gate.clear()
    bench.tower.error = ValueError("broken")
    tasks = [bench.ask("a", "b") for _ in range(waiting)]
    overlapping = bench.ask("b", "c")
    await until(lambda: bench.device.waiting == 2)
    bench.device.gate.set()
    for result in await asyncio.gather(*tasks, overlapping, return_exceptions=True):
        assert isinstance(result, ValueError)
    bench.tower.error = None
    assert (await bench.get("a", "b")).source == "embedded"


async def test_an_error_that_nobody_waits_for_is_no_mishap(bench: Bench) -> None:
    begun = asyncio.Event()

    async def embed(names: Sequence[str], templates: Sequence[str], finished: Finished) -> Tensor:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("broken")

    vocabulary = Vocabulary.of(["a"])
    task = asyncio.create_task(bench.cache.get(vocabulary, bench.tower.text_digest, embed))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.01)  # pytest fails on an exception that is never retrieved


async def test_stop_ends_what_waits(bench: Bench) -> None:
    bench.device.gate.clear()
    tasks = [bench.ask("a"), bench.ask("a", "b")]
    await until(lambda: bench.device.waiting == 2)
    await bench.cache.stop()
    for task in tasks:
        with pytest.raises(NotReadyError):
            await task
    assert bench.device.dropped == 2


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(1, WIDTH), "float32 \\[2, 16\\]"),
        (torch.zeros(2, WIDTH, dtype=torch.float64), "float64"),
        (torch.zeros(2), "float32"),
        (torch.zeros(2, 0), "float32"),
        (torch.full((2, WIDTH), torch.nan), "not finite"),
    ],
)
async def test_a_tower_that_answers_nonsense(bench: Bench, tensor: Tensor, message: str) -> None:
    bench.tower.embed = lambda names, templates: tensor  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=message):
        await bench.get("a", "b")
    assert bench.cache._recent.currsize == 0


# Bounds


async def test_the_process_keeps_a_bounded_number_of_bytes() -> None:
    room = 20 * ENTRY
    bench = Bench(room)
    for i in range(50):
        await bench.get(f"a{i}", f"b{i}")
        await bench.get("often", "used")
        assert 0 < bench.cache._recent.currsize <= room
    assert bench.l1("evicted") > 50
    assert bench.tower.calls.count(["often", "used"]) == 1
    assert (await bench.get("a0", "b0")).source == "embedded"
    assert (await bench.get("a49", "b49")).source == "l1"


async def test_bytes_are_counted_to_the_last_one() -> None:
    bench = Bench()
    await bench.get("a", "b", "c")
    assert bench.cache._recent.currsize == 3 * ENTRY + 3 * WIDTH * 4 + ENTRY_BYTES
    await bench.get("a")  # its row and a vocabulary of one are two entries
    assert bench.cache._recent.currsize == 4 * ENTRY + 3 * WIDTH * 4 + ENTRY_BYTES


@pytest.mark.parametrize("room", [0, ENTRY])
async def test_without_room_it_works_and_remembers_little(room: int) -> None:
    bench = Bench(room)
    for _ in range(2):
        text = await bench.get("a", "b")
        assert torch.equal(text.tensor, expected("a", "b"))
    assert bench.cache._recent.currsize <= room
    assert bench.l1("dropped") > 0
    assert bench.l1("embedded") == (4 if room == 0 else 3)


async def test_a_large_vocabulary_is_found_in_no_time(bench: Bench) -> None:
    names = [f"class number {i}" for i in range(1024)]
    await bench.get(*names)
    vocabulary = Vocabulary.of(names, templates=("{}",))
    texts = [
        await bench.cache.get(vocabulary, bench.tower.text_digest, bench.device.embed(bench.tower))
        for _ in range(5)
    ]
    assert min(text.seconds for text in texts) < 0.01
