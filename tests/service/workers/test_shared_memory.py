"""What processes share: pieces of memory, and the count of what is reserved."""

import os
import signal
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import HostMemoryError, PictureMemoryError
from service.scheduling.host_memory import HostBytes
from service.workers import arena as arenas
from service.workers.arena import Arena, new_arena, room_for
from service.workers.blocks import Blocks
from service.workers.counts import SharedCount, new_count

MIB = 1 << 20


def test_arrays_are_there_for_both_processes() -> None:
    file = new_arena(MIB)
    here, there = Arena(file), Arena(file)
    made = np.random.default_rng(0)
    labels = made.integers(0, 9, (37, 51)).astype(np.uint16)
    confidence = made.random((37, 51)).astype(np.float32)
    scores = made.random((3, 37, 51)).astype(np.float16)
    room = room_for(37 * 51, 3)
    here.take(1)
    start = here.take(room)
    places = there.put(start, start + room, [labels, confidence, scores])
    written: list[NDArray[Any]] = [labels, confidence, scores]
    for place, array in zip(places, written, strict=True):
        assert np.array_equal(here.array(place), array)
        assert here.array(place).dtype == array.dtype
    with pytest.raises(ValueError, match="more was computed"):
        there.put(start, start + 100, [labels])


def test_pieces_never_overlap_and_are_used_again() -> None:
    arena, made = Arena(new_arena(64 * MIB)), np.random.default_rng(1)
    held: dict[int, int] = {}
    for _ in range(500):
        if held and made.random() < 0.5:
            start = list(held)[int(made.integers(len(held)))]
            del held[start]
            arena.give_back(start)
        else:
            size = int(made.integers(1, MIB))
            start = arena.take(size)
            assert all(start + size <= other or other + held[other] <= start for other in held)
            held[start] = size
    for start in held:
        arena.give_back(start)
    assert arena.take(64 * MIB) == 0
    with pytest.raises(PictureMemoryError):
        arena.take(1)


def test_a_burst_gives_its_pages_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arenas, "KEPT", MIB)
    file = new_arena(32 * MIB)
    arena = Arena(file)
    start = arena.take(16 * MIB)
    arena.put(start, 16 * MIB, [np.ones(16 * MIB, np.uint8)])
    assert os.fstat(file).st_blocks * 512 == 16 * MIB
    arena.give_back(start)
    assert os.fstat(file).st_blocks * 512 == MIB


def test_a_piece_that_is_written_to_outlasts_its_request() -> None:
    arena = Arena(new_arena(MIB))
    blocks = Blocks(arena)
    read, written = blocks.take(4096), blocks.take(4096)
    blocks.filled(read)
    blocks.close()
    assert arena.take(4096) == read
    assert arena.take(4096) not in (read, written)
    blocks.filled(written)
    assert arena.take(4096) == written


def test_bytes_are_one_sum_until_a_process_is_killed() -> None:
    own = SharedCount(new_count(2), 0, 100)
    host = HostBytes(100, lambda: 7, own)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # another process, which is killed while it holds 60 bytes
        HostBytes(100, count=own.of(1)).open().hold(60)
        os.write(writing, b"!")
        signal.pause()
    assert os.read(reading, 1) == b"!"
    try:
        account = host.open()
        with pytest.raises(HostMemoryError) as refused:
            account.take(50)
        assert refused.value.retry_after == 7
        account.take(40)
        assert host.reserved == 100
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    own.forget(1)
    assert host.reserved == 40
    account.take(60)
    account.close()
    assert host.reserved == 0
