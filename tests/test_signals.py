"""Processes that tests start can be interrupted, wherever the tests themselves were started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTERM)
# A shell that ignores them, and blocks some as well: what it starts inherits both.
DEAF = """
trap '' HUP INT QUIT TERM
exec "$0" -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])' "$@"
"""


def masks(process: str) -> dict[str, int]:
    """Signals that a process ignores and blocks, a bit each."""
    pairs = (line.split(":\t") for line in process.splitlines())
    return {name: int(value, 16) for name, value in pairs if name in ("SigIgn", "SigBlk")}


def test_children_ignore_and_block_nothing_that_ends_them() -> None:
    found = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
    ending = sum(1 << (number - 1) for number in ENDING)
    assert {name: value & ending for name, value in masks(found.stdout).items()} == {"SigIgn": 0, "SigBlk": 0}


def test_also_where_the_tests_run_in_a_shell_that_ignores_signals() -> None:
    one = f"{__file__}::{test_children_ignore_and_block_nothing_that_ends_them.__name__}"
    command = ["bash", "-c", DEAF, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", one]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
