"""The threads for pictures: answers, errors, cancellation, stopping, and nothing kept or left running."""

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from service.errors import NotReadyError
from service.observability.logging import request_id_var
from service.scheduling.deadline import Deadline
from service.scheduling.picture_threads import PictureThreads
from tests.waiting import WAIT, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def pool() -> Iterator[PictureThreads]:
    threads = PictureThreads(2)
    yield threads
    threads.stop()
    for thread in running():
        thread.join(WAIT)
    assert running() == []


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ebseg-picture_")]


class Block:
    """Work that keeps a thread until it may end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.end = threading.Event()

    def __call__(self) -> int:
        self.begun.set()
        assert self.end.wait(WAIT)
        return 1


async def blocked(pool: PictureThreads, count: int) -> tuple[list[Block], list["asyncio.Task[int]"]]:
    blocks = [Block() for _ in range(count)]
    tasks = [asyncio.create_task(pool.run(block)) for block in blocks]
    await until(lambda: all(block.begun.is_set() for block in blocks))
    return blocks, tasks


async def test_work_runs_beside_the_loop_in_its_callers_context(pool: PictureThreads) -> None:
    def work(first: int, *, second: int) -> tuple[int, str | None, str]:
        return first + second, request_id_var.get(), threading.current_thread().name

    token = request_id_var.set("r-1")
    total, request, name = await pool.run(work, 1, second=2)
    request_id_var.reset(token)
    assert (total, request) == (3, "r-1")
    assert name.startswith("ebseg-picture_")
    assert len(running()) == 3  # one is for answers alone


async def test_what_was_dropped_is_let_go_at_once(pool: PictureThreads) -> None:
    """Though whoever posted it, and is notified by it, knows of it, too."""

    class Asker:
        def __init__(self) -> None:
            self.posted = pool.post("decode", Deadline(WAIT), self.heard, int)

        def heard(self, value: object, error: Exception | None) -> None:
            raise AssertionError("nobody asked")

    blocks, tasks = await blocked(pool, 2)
    asker = Asker()
    assert pool.depth("decode") == 1
    asker.posted.drop()
    assert pool.depth("decode") == 0
    for block in blocks:
        block.end.set()
    await asyncio.wait(tasks)
    await pool.run(int)  # it was taken from the line
    gone = weakref.ref(asker)
    gc.disable()
    try:
        del asker
        assert gone() is None
    finally:
        gc.enable()


async def test_hundreds_of_answers_reach_those_that_asked(pool: PictureThreads) -> None:
    assert await asyncio.gather(*(pool.run(pow, base, 2) for base in range(500))) == [
        base**2 for base in range(500)
    ]


async def test_errors_are_the_callers_and_end_no_thread(pool: PictureThreads) -> None:
    def fail(error: BaseException) -> None:
        raise error

    for _ in range(3):
        with pytest.raises(KeyError, match="absent"):
            await pool.run(fail, KeyError("absent"))
        with pytest.raises(RuntimeError, match="SystemExit: out"):
            await pool.run(fail, SystemExit("out"))
    assert await pool.run(int, "7") == 7


async def test_work_of_a_cancelled_caller_is_not_begun_and_disturbs_nobody(pool: PictureThreads) -> None:
    blocks, tasks = await blocked(pool, 2)
    done: list[str] = []
    gone = asyncio.create_task(pool.run(done.append, "gone"))
    waits = asyncio.create_task(pool.run(done.append, "waits"))
    await asyncio.sleep(0)
    gone.cancel()
    tasks[0].cancel()  # its work has begun, and goes on
    for block in blocks:
        block.end.set()
    await asyncio.wait_for(waits, WAIT)
    assert done == ["waits"]
    assert gone.cancelled()
    assert tasks[0].cancelled()
    assert await tasks[1] == 1


async def test_stop_fails_what_has_not_begun_and_lets_the_rest_end(pool: PictureThreads) -> None:
    blocks, tasks = await blocked(pool, 2)
    late = asyncio.create_task(pool.run(int))
    await asyncio.sleep(0)
    pool.stop()
    with pytest.raises(NotReadyError, match="shutting down"):
        await asyncio.wait_for(late, WAIT)
    with pytest.raises(NotReadyError, match="shutting down"):
        await pool.run(int)
    for block in blocks:
        block.end.set()
    assert await asyncio.gather(*tasks) == [1, 1]


async def test_an_idle_thread_keeps_nothing_of_its_last_work(pool: PictureThreads) -> None:
    class Picture:
        pass

    def keep(picture: Picture) -> None:
        pass

    picture = Picture()
    known = weakref.ref(picture)
    await pool.run(keep, picture)
    del picture
    for _ in range(100):
        if known() is None:
            break
        await asyncio.sleep(0.01)
    assert known() is None


async def test_one_thread_a_core_but_for_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, threads in ((1, 1), (3, 3), (64, 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, available=available: set(range(available)))
        pool = PictureThreads(None)
        await pool.run(int)
        assert len(running()) == threads + 1
        pool.stop()
        for thread in running():
            thread.join(WAIT)


async def test_nothing_runs_before_the_first_work() -> None:
    PictureThreads(3).stop()
    assert running() == []


async def test_answers_do_not_wait_for_pictures(pool: PictureThreads) -> None:
    blocks, tasks = await blocked(pool, 2)  # both threads for pictures work
    pictures = [asyncio.create_task(pool.run_in("decode", Deadline(60), int)) for _ in range(6)]
    await asyncio.sleep(0)
    answers = [pool.run_in("encode", Deadline(60), pow, base, 2) for base in range(8)]
    assert await asyncio.wait_for(asyncio.gather(*answers), WAIT) == [base**2 for base in range(8)]
    assert not any(task.done() for task in (*pictures, *tasks))
    assert pool.depth("decode") == 6
    assert pool.oldest_age("decode") > 0
    assert (pool.depth("encode"), pool.oldest_age("encode")) == (0, 0)
    for block in blocks:
        block.end.set()
    assert await asyncio.wait_for(asyncio.gather(*pictures, *tasks), WAIT) == [0] * 6 + [1] * 2
    assert pool.depth("decode") == 0


async def test_answers_go_first_and_the_earliest_deadline_before_others(pool: PictureThreads) -> None:
    blocks, tasks = await blocked(pool, 2)
    last = Block()  # the thread for answers, too
    tasks.append(asyncio.create_task(pool.run_in("encode", Deadline(1), last)))
    await until(last.begun.is_set)
    done: list[str] = []
    others: list[asyncio.Task[None]] = []
    for lane, seconds in (("decode", 9), ("decode", 5), ("encode", 90), ("encode", 50), ("decode", 7)):
        work = pool.run_in(lane, Deadline(seconds), done.append, f"{lane} {seconds}")  # type: ignore[arg-type]
        others.append(asyncio.create_task(work))
    others.append(asyncio.create_task(pool.run(done.append, "parse")))
    await asyncio.sleep(0)
    assert pool.ahead() == 0  # nothing was measured yet
    blocks[0].end.set()
    await until(lambda: len(done) == 6)
    assert done == ["encode 50", "encode 90", "parse", "decode 5", "decode 7", "decode 9"]
    for block in (blocks[1], last):
        block.end.set()
    await asyncio.wait_for(asyncio.gather(*tasks, *others), WAIT)


async def test_what_waits_is_expected_to_take_what_the_last_ones_took(pool: PictureThreads) -> None:
    def work() -> None:
        time.sleep(0.05)

    for _ in range(4):
        await pool.run(work)
    blocks, tasks = await blocked(pool, 2)
    tasks += [asyncio.create_task(pool.run(int)) for _ in range(20)]
    await asyncio.sleep(0)
    assert 20 * 0.05 / 2 <= pool.ahead() < 20 * 0.05 * 4
    for block in blocks:
        block.end.set()
    await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
    assert pool.ahead() == 0
