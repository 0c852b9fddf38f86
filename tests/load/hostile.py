"""`python -m tests.load.hostile`: a small pod under attack. Prints one JSON line; exit code 1 if it was hurt.

Everybody below does one hostile thing again and again, and beside them a good client asks for a small mask.
"""

import argparse
import contextlib
import io
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from service.bench.process import HOST
from tests.load.server import Server, started
from tests.service.bad_pictures import announcing
from tests.service.inference_protocol.wire import body, head

POD = 2 << 30  # bytes
PICTURE = (Path(__file__).parents[2] / "samples" / "village.jpg").read_bytes()
OPTIONS = (
    *("--stall-s", "3", "--header-timeout-s", "3", "--body-timeout-s", "10", "--answer-timeout-s", "10"),
    *("--idle-timeout-s", "3", "--text-cache-bytes", str(64 << 20)),
    *("--prediction-cache-bytes", str(64 << 20), "--device", "cpu"),
)
PATIENCE = 60.0  # seconds that the good client comes back for
HEADER_BYTES = 150_000_000
ALLOWANCE = 200 << 20  # bytes that stay: two caches of 64 MiB, and what lies between them


@dataclass
class Report:
    """What happened.

    Attributes:
        statuses: of answers, by who asked.
        reasons: words of refusals, and of errors.
        good: seconds that each of the good client's masks took, comings back included.
        violations: what should not have been.
    """

    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    good: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, who: str, answer: httpx.Response) -> None:
        """Takes in an answer: a refusal has a reason, and one to come back after says when."""
        with self.lock:
            self.statuses.setdefault(who, Counter())[str(answer.status_code)] += 1
            if answer.status_code == 200:
                return
            try:
                problem: dict[str, Any] = answer.json()
                self.reasons[problem["type"].rpartition(":")[2]] += 1
            except (ValueError, KeyError):
                self.violations.append(f"{who}: {answer.status_code} without a reason")
            if answer.status_code in (429, 503) and int(answer.headers.get("retry-after", 0)) < 1:
                self.violations.append(f"{who}: {answer.status_code} without a time to come back")
            if answer.status_code == 500:
                self.violations.append(f"{who}: a fault of the service")

    def ended(self, who: str, how: str) -> None:
        """Takes in how a connection ended."""
        with self.lock:
            self.statuses.setdefault(who, Counter())[how] += 1


@dataclass(frozen=True)
class Attack:
    """What all attackers know."""

    server: Server
    report: Report
    over: threading.Event

    def ask(self, who: str, image: bytes, *, seconds: float = 60.0, **fields: str) -> httpx.Response | None:
        """Sends a picture as a form; None if no answer came."""
        try:
            answer = httpx.post(
                f"{self.server.url}/v1/segment",
                files={"image": ("p", image)},
                data={"classes": "sky,tree", **fields},
                timeout=seconds,
            )
        except httpx.HTTPError as error:
            self.report.ended(who, type(error).__name__)
            return None
        self.report.note(who, answer)
        return answer

    @contextlib.contextmanager
    def connected(self, who: str) -> Iterator[socket.socket]:
        """A connection; however it ends, it is noted."""
        try:
            with socket.create_connection((HOST, self.server.port), 20) as connection:
                yield connection
            self.report.ended(who, "closed")
        except OSError as error:
            self.report.ended(who, type(error).__name__)


def overlays(attack: Attack) -> None:
    """48 megapixels each time, and their overlay in full, or a small one."""
    buffer = io.BytesIO()
    flat = np.zeros((6000, 8000, 3), np.uint8)
    while not attack.over.is_set():
        flat[:] = random.randrange(256)
        buffer.seek(0)
        Image.fromarray(flat).save(buffer, "JPEG")
        size = random.choice(["image", "1000"])
        attack.ask("overlays of 48 megapixels", buffer.getvalue(), outputs="overlay", output_size=size)


def blown_up(attack: Attack) -> None:
    """A few bytes in, all that an answer can be out."""
    while not attack.over.is_set():
        noise = np.random.default_rng().integers(0, 255, (8, 8, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG")
        size = random.choice(["7071", "4000"])
        attack.ask("tiny pictures blown up", buffer.getvalue(), outputs="npy,png", output_size=size)


def unread(attack: Attack) -> None:
    """Answers of 18 MB that nobody reads."""
    fields = b'--b\r\nContent-Disposition: form-data; name="output_size"\r\n\r\n3000\r\n'
    text = fields + body(PICTURE)
    while not attack.over.is_set():
        with attack.connected("unread answers") as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head(len(text), "Accept: application/x-npy") + text)
            attack.over.wait(8)


def headers(attack: Attack) -> None:
    """150 MB of one header."""
    while not attack.over.is_set():
        with attack.connected("endless headers") as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nX-A: ")
            for _ in range(HEADER_BYTES >> 16):
                connection.sendall(b"a" * (1 << 16))
                if attack.over.is_set():
                    return
            # a quick sender comes to its end while the service still waits for it to read the refusal
            attack.report.ended("endless headers", connection.recv(65536)[9:12].decode())


def stalled(attack: Attack) -> None:
    """Most of 19 MB, and then nothing."""
    while not attack.over.is_set():
        with attack.connected("stalled uploads") as connection:
            connection.sendall(head(19_000_000) + body(PICTURE)[:-10])
            connection.sendall(bytes(random.randrange(1_000_000, 18_000_000)))
            while connection.recv(65536):
                pass


def silence(attack: Attack) -> None:
    """A connection, half a request or none, and nothing more."""
    while not attack.over.is_set():
        with attack.connected("silence") as connection:
            connection.sendall(random.choice([b"", b"POST /v1/segm"]))
            while connection.recv(65536):
                pass


def bombs(attack: Attack) -> None:
    """Pictures that announce more than there is, JSON that is all commas, forms that are all parts."""
    part = b'--b\r\nContent-Disposition: form-data; name="classes"\r\n\r\n\r\n'
    json_type, form_type = (
        {"Content-Type": "application/json"},
        {"Content-Type": "multipart/form-data; boundary=b"},
    )
    while not attack.over.is_set():
        attack.ask("bombs", announcing(60_000, 60_000))
        for content, kind in ((b'{"classes":[' + b"," * 15_000_000, json_type), (part * 200_000, form_type)):
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.post(
                    f"{attack.server.url}/v1/segment", content=content, headers=kind, timeout=60
                )
                attack.report.note("bombs", answer)


def good(attack: Attack) -> None:
    """A client as ours: it comes back when it was asked to."""
    while not attack.over.is_set():
        began = time.monotonic()
        while True:
            answer = attack.ask("good", PICTURE, output_size="64")
            if answer is not None and answer.status_code == 200:
                attack.report.good.append(time.monotonic() - began)
                break
            if time.monotonic() - began > PATIENCE:
                attack.report.violations.append("a good request was not answered")
                break
            if attack.over.wait(1 if answer is None else int(answer.headers.get("retry-after", 1))):
                break
        attack.over.wait(0.2)


ATTACKERS: tuple[tuple[Callable[[Attack], None], int], ...] = (
    (overlays, 2),
    (blown_up, 2),
    (unread, 8),
    (headers, 1),
    (stalled, 8),
    (silence, 20),
    (bombs, 1),
    (good, 2),
)


def run(seconds: float, *, most: int = POD) -> dict[str, Any]:
    """Attacks a service in a process that may have `most` bytes for so long; what came of it."""
    report = Report()
    with started("tests.load.limited", str(most), "serve", "--host", HOST, "--port", "0", *OPTIONS) as server:
        server.wait()
        over = threading.Event()
        attack = Attack(server, report, over)
        for _ in range(3):
            attack.ask("before", PICTURE, output_size="64")
        before = server.resident()
        limit = int(server.metrics().value("host_bytes", kind="limit"))
        peak = before
        threads = [
            threading.Thread(target=each, args=[attack]) for each, count in ATTACKERS for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and server.running:
            peak = max(peak, server.resident())
            time.sleep(0.05)
        over.set()
        for thread in threads:
            thread.join()
        after = _settled(server, before) if server.running else 0
        if not server.running:
            report.violations.append("the service died")
        else:
            if after > before + ALLOWANCE:
                report.violations.append("the memory did not come back")
            for _ in range(3):
                attack.ask("after", PICTURE, output_size="64")
            if server.stop() != 0:
                report.violations.append("the service did not end well")
        log = Counter(
            line["message"] for line in server.log_lines() if line.get("level") in ("error", "critical")
        )
    report.violations += [f"logged {count} times: {message}" for message, count in log.items()]
    return {
        "seconds": seconds,
        "memory_mb": {
            name: size >> 20 for name, size in (("before", before), ("peak", peak), ("after", after))
        },
        "good_answers": len(report.good),
        "good_slowest_s": round(max(report.good, default=0.0), 2),
        "statuses": {who: dict(sorted(found.items())) for who, found in sorted(report.statuses.items())},
        "limit_mb": limit >> 20,
        "reasons": dict(report.reasons.most_common()),
        "violations": report.violations,
    }


def _settled(server: Server, before: int) -> int:
    """Memory once all that was reserved is given back, and what it left has had time to go."""
    end = time.monotonic() + 60
    while time.monotonic() < end and server.metrics().value("host_bytes", kind="reserved"):
        time.sleep(0.2)
    while time.monotonic() < end and server.resident() > before + ALLOWANCE:
        time.sleep(0.2)
    return server.resident()


def main() -> int:
    """Runs what the flags say."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.hostile", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of attack (default: 120)")
    report = run(parser.parse_args().seconds)
    print(json.dumps(report))
    return 1 if report["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
