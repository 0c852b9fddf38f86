"""`ebseg batch --on ray`, with a real Ray: the same rows, whatever becomes of its workers.

One picture is at a server that answers when the test says so: a worker that asks is in the middle of a shard.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from service.batch.deaths import ALONE
from service.batch.segmenter import BatchSegmenter
from service.batch.worker import DEADLY
from tests.service.batch.pictures import write_pictures
from tests.service.batch.runs import CLASSES, ROOT, rows_of
from tests.service.cli_calls import run
from tests.waiting import LONG_WAIT, WAIT, wait_until

ENVIRONMENT = {
    **os.environ,
    "RAY_AUTH_MODE": "disabled",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class SlowServer:
    """A picture, for which each who asks is noted and waits for the gate."""

    url: str
    asked: "SimpleQueue[None]" = field(default_factory=SimpleQueue)
    gate: threading.Event = field(default_factory=threading.Event)


@contextmanager
def slow_server(content: bytes) -> Iterator[SlowServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.put(None)
            made.gate.wait(LONG_WAIT)
            with suppress(OSError):  # who asked may have been killed
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content if self.command == "GET" else b"")

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = SlowServer(f"http://127.0.0.1:{server.server_port}/picture.png")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.gate.set()
            server.shutdown()
            thread.join(WAIT)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SlowServer]:
    write_pictures(tmp_path / "pictures", 6, broken=5)
    with slow_server((tmp_path / "pictures" / "p0004.png").read_bytes()) as made:
        yield made


@pytest.fixture
def pictures(tmp_path: Path, server: SlowServer) -> Path:
    """A list of two shards; in the middle of the second is the server's picture, and one is broken.

    The first one's name is no UTF-8.
    """
    names = [str(path) for path in sorted((tmp_path / "pictures").rglob("*.png"))]
    odd = os.fsdecode(os.fsencode(names[0]) + b"\xe9.png")  # no UTF-8
    os.rename(names[0], odd)
    names[0], names[4] = odd, server.url
    (tmp_path / "list.txt").write_bytes(os.fsencode("\n".join(names)))
    return tmp_path / "list.txt"


def words(pictures: Path, out: Path, *more: str) -> list[str]:
    return ["batch", str(pictures), *CLASSES, "--out", str(out), "--shard-size", "3", "--json", *more]


@contextmanager
def group(command: list[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    """A process that takes along all that it has started."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, start_new_session=True, text=True, **options
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        wait_until(lambda: not in_session(process.pid), pause=0.05)


def in_session(session: int, title: str = "") -> list[int]:
    """Processes of a session, whose command line has a text in it."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                state = (entry / "stat").read_text().rpartition(") ")[2][0]
                if state != "Z" and title in (entry / "cmdline").read_text(errors="replace"):
                    found.append(int(entry.name))
    return found


def kill_worker(server: SlowServer, session: int) -> None:
    """Kills the worker that asks the server for its picture."""
    server.asked.get(timeout=LONG_WAIT)
    (worker,) = in_session(session, "RayWorker")
    os.kill(worker, signal.SIGKILL)


def test_rows_are_those_of_the_segmenter_though_a_worker_is_killed(
    pictures: Path, server: SlowServer, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    more = ("--on", "ray", "--device", "cpu", "--workers", "1")
    command = [sys.executable, "-m", "ebseg", *words(pictures, out, *more)]
    with group(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        kill_worker(server, process.pid)
        (head,) = [Path(f"/proc/{pid}") for pid in in_session(process.pid, "dashboard.py")]
        assert "--disable-frontend" in (head / "cmdline").read_text().split("\0")
        assert "RAY_USAGE_STATS_ENABLED=0" in (head / "environ").read_text().split("\0")
        server.gate.set()
        printed, errors = process.communicate(timeout=LONG_WAIT)
        assert process.returncode == 1, errors
    line = json.loads(printed.splitlines()[-1])
    assert (line["rows"], line["errors"], line["segmented"]) == (6, 1, 6)
    items = [{"path": os.fsdecode(name)} for name in pictures.read_bytes().splitlines()]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray gives a worker of one core: the order of sums is in the last bits
    try:
        expected = BatchSegmenter(request={"classes": ["house", "boat", "sky"]}, device="cpu")(items)
    finally:
        torch.set_num_threads(threads)
    made = rows_of(out)
    for row, other in zip(made, expected, strict=True):
        assert row == other
    for name in ("manifest.json", "summary.json", "summary.png", "sheet.webp"):
        assert (out / name).stat().st_size > 0


WORKERS_THAT_TELL = """
import json, os, sys
from contextlib import nullcontext
import pandas, ray
from ray.data import DataContext
from service.batch import ray_run
from service.batch.plan import BatchPlan
from service.batch.worker import Finished

class Tells:
    def __init__(self, plan, device, deaths):
        self.device = device

    def __call__(self, shards):
        given = ray.get_runtime_context().get_assigned_resources()
        what = (self.device, given.get("GPU", 0), given["CPU"], os.environ.get("CUDA_VISIBLE_DEVICES"))
        reports = [Finished(1, 0, 1, what) for _ in shards["number"]]
        return pandas.DataFrame({"number": shards["number"].to_numpy(), "report": reports})

ray_run.RayWorker = Tells
ray_run._connected = lambda address: nullcontext()
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=100_000_000)
DataContext.get_current().enable_progress_bars = False
for device in ("cpu", "auto"):
    plan = BatchPlan(source=sys.argv[1], out=sys.argv[2], request={}, checkpoint=None, devices=(device,))
    made = ray_run.RayRun(plan, print, print, address=None, workers=1).run()
    print("GIVEN", json.dumps(made.examples), flush=True)
ray.shutdown()
"""


def test_workers_ask_ray_for_a_gpu_each_where_there_are_any(tmp_path: Path) -> None:
    """A real Ray that is told of a GPU; workers that say what it has given them, in the place of a model."""
    (tmp_path / "list.txt").write_text("a.png\n")
    command = [sys.executable, "-c", WORKERS_THAT_TELL, str(tmp_path / "list.txt"), str(tmp_path / "out")]
    with group(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        printed, errors = process.communicate(timeout=LONG_WAIT)
        assert process.returncode == 0, errors
    given = [json.loads(line[6:]) for line in printed.splitlines() if line.startswith("GIVEN ")]
    (on_cpu,), (on_gpu,) = given
    assert on_cpu[:3] == ["cpu", 0, 1.0]
    assert on_gpu == ["cuda", 1.0, 1.0, "0"]


@pytest.mark.slow
def test_a_deadly_picture_on_a_cluster_and_a_local_run_that_goes_on(
    pictures: Path, server: SlowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=3"]
    head += [f"--port={port}", "--include-dashboard=false", "--object-store-memory=100000000"]
    more = ("--on", "ray", "--address", f"127.0.0.1:{port}", "--device", "cpu", "--workers", "1")
    with group(head, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as cluster:
        wait_until(lambda: is_listening(port), pause=0.1)
        command = [sys.executable, "-m", "ebseg", *words(pictures, out, *more)]
        with group(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            for _ in range(1 + ALONE):
                kill_worker(server, cluster.pid)
            errors = process.communicate(timeout=LONG_WAIT)[1]
            assert process.returncode == 1, errors
    assert [row["error"] == DEADLY for row in rows_of(out)] == [index == 4 for index in range(6)]
    server.gate.set()
    assert run(*words(pictures, out, "--device", "cpu", "--retry-errors")) == 1
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["rows"], line["errors"], line["segmented"]) == (6, 1, 2)


def is_listening(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--address", "auto"), "--address needs --on ray"),
        (("--on", "ray", "--url", "http://x"), "--on ray does not go with --url"),
        (("--on", "ray", "--dry-run"), "--on ray does not go with --dry-run"),
        (("--on", "ray", "--device", "cuda:1"), "with --on ray the device is auto, cpu or cuda"),
    ],
)
def test_flags_of_ray(
    flags: tuple[str, ...], message: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words(pictures, tmp_path / "out", *flags)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
