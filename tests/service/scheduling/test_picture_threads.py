"""The threads for pictures: answers, errors, cancellation, stopping, and nothing kept or left running."""

import asyncio
import os
import threading
import weakref
from collections.abc import Iterator

import pytest

from service.errors import NotReadyError
from service.observability.logging import request_id_var
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
    assert len(running()) == 2


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
        assert len(running()) == threads
        pool.stop()
        for thread in running():
            thread.join(WAIT)


async def test_nothing_runs_before_the_first_work() -> None:
    PictureThreads(3).stop()
    assert running() == []
