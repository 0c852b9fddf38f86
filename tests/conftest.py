"""For all tests."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("EBSEG_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands set logging up; the next test finds it as this one did."""
    root, named = logging.getLogger(), [logging.getLogger(name) for name in ("PIL", "uvicorn.error", "ray")]
    handlers, level, levels = root.handlers[:], root.level, [logger.level for logger in named]
    yield
    logging.captureWarnings(False)
    logging.disable(logging.NOTSET)
    root.handlers[:], root.level = handlers, level
    for logger, before in zip(named, levels, strict=True):
        logger.setLevel(before)


@pytest.fixture(scope="session", autouse=True)
def _children_take_signals() -> Iterator[None]:
    """Processes that tests start can be ended, whatever the shell, `nohup` or CI had ignored or blocked.

    What is ignored stays so in every process that is started; what has a handler is the system's default
    there. So signals that this process was set to ignore get a handler that does nothing, but for
    SIGTERM, with which forked processes are ended too.
    """

    def ignore(number: int, frame: object) -> None:
        pass

    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)
        if signal.getsignal(number) == signal.SIG_IGN
    ]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else ignore)
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
