"""Work on many pictures in several processes, each of which says what is wrong with one."""

import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from training.errors import DatasetError
from training.progress import progress

_CHUNK = 16  # pictures that a process takes at a time

T = TypeVar("T")


def in_processes(
    title: str, work: Callable[[T], str | None], items: Sequence[T], jobs: int | None, shown: bool
) -> Iterator[str]:
    """Problems of all items, which are worked on in processes on the way.

    Args:
        title: of the bar.
        work: on one item; says what is wrong with it, or None. It and the items are pickled.
        items: all of them; few are worked on in this process.
        jobs: processes; None takes one a CPU.
        shown: whether to show a bar on standard error.

    Raises:
        DatasetError: a process was killed.
    """
    jobs = jobs or os.cpu_count() or 1
    with progress(title, len(items), shown=shown and bool(items)) as bar:

        def reported(results: Iterable[str | None]) -> Iterator[str]:
            for problem in results:
                bar.advance()
                if problem is not None:
                    yield problem

        if jobs == 1 or len(items) <= _CHUNK:
            yield from reported(map(work, items))
            return
        # Not forked: the bar's thread would be copied in the middle of whatever it does.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent) as pool:
            try:
                yield from reported(pool.map(work, items, chunksize=_CHUNK))
            except BrokenProcessPool as error:
                raise DatasetError(
                    "a process that reads images was killed, perhaps for lack of memory;"
                    " run the command again, with fewer --jobs if it has them"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Makes this process end when the one that started it is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for_end, args=(parent.sentinel,), daemon=True).start()


def _wait_for_end(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
