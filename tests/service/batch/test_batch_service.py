"""`ebseg batch --url` and what becomes of a service between two runs, and within one."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ebseg_client import EBSegClient
from service.app import create_app
from service.batch.remote import AWAY
from service.batch.rows import Row
from service.server import build_server, listen
from tests.service.batch.runs import BROKEN, COUNT, ROOT, last_line, rows_of, same, words
from tests.service.cli_calls import run
from tests.service.fakes import FakeEngine, in_thread, settings
from tests.service.hot_loading.model_fakes import Loader, publish
from tests.waiting import LONG_WAIT, WAIT, wait_until

KEY = "an operator's key, long enough"


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[str]:
    """A service that follows a registry of version 1."""
    publish(tmp_path / "registry", "a", 1)
    own = settings(registry=str(tmp_path / "registry"), model="a", device="cpu", admin_keys=(KEY,))
    app = create_app(own, load=Loader())
    with in_thread(build_server(app, own), ready=lambda: app.state.service.state == "ready") as url:
        yield url


def test_a_run_goes_on_with_its_version_or_says_that_it_is_gone(
    followed: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(*words(folder, out, followed)) == 1
    assert last_line(capsys)["segmented"] == COUNT
    publish(tmp_path / "registry", "a", 2)
    with EBSegClient(followed, api_key=KEY) as client:
        assert client.reload("a").model.version == 2

        (out / "part-000001.parquet").unlink()
        assert run(*words(folder, out, followed)) == 2
        told = capsys.readouterr().err
        assert f"{followed} does not serve version 1 of a, but 2; pin it there, or take another --out" in told
        assert not (out / "part-000001.parquet").exists()

        client.canary("a", 1, 5)  # it serves beside the other
        assert run(*words(folder, out, followed)) == 1
        assert last_line(capsys)["segmented"] == 5
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["request"]["version"] == 1

        # another request, and another output, are of what serves now
        assert run(*words(folder, out, followed, "--classes", "cow")) == 2
        assert "holds another run" in capsys.readouterr().err
        assert run(*words(folder, tmp_path / "other", followed)) == 1
        assert json.loads((tmp_path / "other" / "manifest.json").read_text())["request"]["version"] == 2

        asked = tmp_path / "request.json"
        asked.write_text(json.dumps({"classes": ["cow"], "version": 7}))
        more = ("batch", folder, "--request", asked, "--out", tmp_path / "seven", "--url", followed)
        assert run(*more) == 2
        assert "does not serve version 7 of a, but 2, 1; ask for another" in capsys.readouterr().err
        assert not (tmp_path / "seven").exists()


@contextmanager
def serving(port: int, seconds: float) -> Iterator[int]:
    """A service on a port, 0 for any, whose network takes so long for an image."""
    own = settings()
    app = create_app(own, FakeEngine(seconds=seconds))
    server = build_server(app, own)
    with listen("127.0.0.1", port) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started and app.state.service.state == "ready")
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(WAIT)


def test_a_service_that_goes_away_and_comes_back_costs_time_and_no_row(
    folder: Path, tmp_path: Path, expected: list[Row]
) -> None:
    out = tmp_path / "out"
    with serving(0, 0.2) as port:
        line = words(folder, out, f"http://127.0.0.1:{port}", "--threads", "1")
        process = subprocess.Popen(
            [sys.executable, "-m", "ebseg", *line],
            cwd=ROOT,
            env={**os.environ, "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_until(lambda: (out / "part-000000.parquet").exists() or process.poll() is not None)
        except BaseException:
            process.kill()
            raise
    with process:
        try:
            assert process.stderr is not None
            told = process.stderr.readline()
            assert AWAY in told, told
            with serving(port, 0.0):
                printed, errors = process.communicate(timeout=LONG_WAIT)
        finally:
            process.kill()
    assert process.returncode == 1, errors
    assert json.loads(printed.splitlines()[-1])["errors"] == COUNT // BROKEN
    assert same(rows_of(out), expected)
