"""Log lines whose reader is slow, stands still, or fails."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from service.observability import log_writer
from service.observability.log_writer import MOST_CHARACTERS_WAITING, LogWriter
from tests.waiting import WAIT, wait_until

LONG = "x" * 10_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Reads and writes."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("a", logging.INFO, "a.py", 1, text, (), None)


def test_lines_of_many_threads_arrive_whole_and_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = LogWriter(writer)
    threads = [
        threading.Thread(target=lambda name=name: [handler.handle(record(f"{name} {i}")) for i in range(100)])
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    lines = [line.split() for line in os.read(reader, 1 << 20).decode().splitlines()]
    handler.close()
    for name in "abcd":
        assert [int(number) for own, number in lines if own == name] == list(range(100))


def test_a_reader_that_stands_still_holds_nobody_up(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    handler = LogWriter(writer)
    began = time.monotonic()
    for number in range(2000):  # 20 MB
        handler.handle(record(f"{number} {LONG}"))
    assert time.monotonic() - began < WAIT / 2
    read = bytearray()
    while b"were lost" not in read:
        read += os.read(reader, 1 << 20)
    *kept, told = read.decode().splitlines()
    numbers = [int(line.split()[0]) for line in kept]
    assert numbers == list(range(len(kept)))  # the first ones, none of them torn
    assert MOST_CHARACTERS_WAITING - 2 * len(LONG) < len(kept) * len(LONG) < 2 * MOST_CHARACTERS_WAITING
    assert told.startswith(f"{2000 - len(kept)} log lines were lost")
    handler.handle(record("goes on"))
    handler.close()
    assert os.read(reader, 1 << 20) == b"goes on\n"


def test_lines_that_a_full_disk_does_not_take_are_counted(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    full, write = threading.Event(), os.write
    full.set()

    def failing(file: int, data: bytes) -> int:
        if full.is_set():
            raise OSError(errno.ENOSPC, "no space left")
        return write(file, data)

    monkeypatch.setattr(log_writer, "_AGAIN_S", 0.05)
    monkeypatch.setattr(os, "write", failing)
    handler = LogWriter(writer)
    handler.handle(record("one"))
    handler.handle(record("two"))
    wait_until(lambda: handler._lost == 2)
    full.clear()
    handler.handle(record("three"))
    handler.close()
    three, told = os.read(reader, 1 << 16).decode().splitlines()
    assert three == "three"
    assert told.startswith("2 log lines were lost")


def test_a_service_whose_log_nobody_reads_goes_on() -> None:
    """Its pipe is full after some 200 requests, and it still ends well."""
    command = [sys.executable, "-m", "tests.service.fakes", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            address = next(filter(None, (json.loads(line).get("address") for line in server.stderr)))
            with httpx.Client(base_url=address, timeout=WAIT) as client:
                for _ in range(400):
                    client.get("/v1/models")
                assert client.get("/livez").status_code == 200
            server.send_signal(signal.SIGTERM)
            assert server.wait(WAIT) == 0
        finally:
            server.kill()
