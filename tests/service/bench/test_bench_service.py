"""`ebseg bench service`, with numbers too small to mean anything: what it prints, and how it fails."""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from service.bench.cli import add_benchmark
from service.bench.instant import InstantEngine
from service.bench.limit import LimitPool
from service.bench.load import Load
from service.bench.pictures import class_names, jpeg, label_map, pictures
from service.bench.process import ServerFailedError, ServerProcess, address
from service.bench.requests import segment_request
from service.bench.target import BenchError, ServiceUnderLoad, batches
from service.segmentation.decode import decode
from tests.service.fakes import live


def bench(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_benchmark(parser.add_subparsers())
    args = parser.parse_args(["service", *words])
    code: int = args.run(args)
    return code


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    both = capsys.readouterr()
    found: dict[str, Any] = json.loads(both.out)
    return both.err, found


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here and in servers: threads of OpenMP that share cores with others spend most time waiting."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_running_service_against_the_bare_engine(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # so long that requests begin within it on a busy machine, too: only these have a latency
    words = ["--seconds", "2", "--rounds", "2", "--connections", "2", "--size", "96x64", "--classes", "3"]
    checkpoint = ["--checkpoint", str(tiny_checkpoint)]
    assert bench(*words, *checkpoint, "--json") == 0
    table, found = printed(capsys)
    assert found["bench"] == "service"
    assert found["errors"] == {}
    assert found["requests"] > 0
    assert found["ratio"] == found["pictures_per_second"] / found["bare_pictures_per_second"]
    assert found["bare_pictures_per_second"] == statistics.median(found["bare_rounds"])
    assert found["pictures_per_second"] == statistics.median(found["service_rounds"])
    assert len(found["service_rounds"]) == len(found["bare_rounds"]) == 2
    assert found["bare_batch_size"] in (1, 2)
    assert found["checkpoint"] == str(tiny_checkpoint)
    assert (found["load"], found["rate"]) == ("closed", None)
    assert found["torch"]
    assert found["cpu"]
    latency = found["latency_seconds"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert "bare engine, batches of" in table
    assert f"service / bare engine: {found['ratio']:.3f}" in table


def test_engine_that_returns_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--instant", "--seconds", "0.2", "--rounds", "1", "--connections", "2", "--rate", "50"]
    assert bench(*words, "--json") == 0
    table, found = printed(capsys)
    assert found["bench"] == "service-instant"
    assert found["errors"] == {}
    limit, other = found["limit_pictures_per_second"], found["litserve_pictures_per_second"]
    assert limit == max(statistics.median(rates) for rates in found["limit_rounds"].values())
    assert found["ratio_to_limit"] == found["pictures_per_second"] / limit
    # on a busy machine no answer may fall into so short a time
    assert found["ratio_to_litserve"] == (found["pictures_per_second"] / other if other else None)
    assert (found["load"], found["rate"]) == ("open", 50.0)
    assert 70_000 < found["request_bytes"] < 120_000
    assert 8_000 < found["answer_bytes"] < 16_000
    for row in ("service", "LitServe", "decoding and encoding alone"):
        assert row in table


def test_another_checkpoint_than_the_one_that_runs(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with live() as (url, _):
        assert bench("--url", url, "--checkpoint", str(tiny_checkpoint), "--size", "32x32") == 1
    assert "serves fake/3, whose weights are not those of" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--rate", "-1"],
        ["--connections", "0"],
        ["--size", "640"],
        ["--size", "640x0"],
        ["--instant", "--url", "http://127.0.0.1:1"],
    ],
)
def test_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        bench(*words)
    assert stop.value.code == 2


def test_instant_has_no_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--instant", "--checkpoint", "x") == 2
    assert "--instant has no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("http://[::1]:9/", ("::1", 9)),
        ("http://a", ("a", 80)),
    ],
)
def test_addresses(url: str, found: tuple[str, int]) -> None:
    assert address(url) == found


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "https://a", "http://", "http://a:x", "http://a/b", "http://a?b"]
)
def test_what_is_no_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="must be http://HOST:PORT"):
        address(url)
    assert bench("--url", url) == 1
    assert "must be http://HOST:PORT" in capsys.readouterr().err


def target(port: int, **values: Any) -> ServiceUnderLoad:
    sent = segment_request(jpeg(pictures(8, 6)[0]), {"classes": class_names(2)}, accept="application/json")
    options = {"name": "it", "host": "127.0.0.1", "requests": [sent], "expect": b"{", "connections": 1}
    return ServiceUnderLoad(**{**options, "rate": None, "port": port, **values})


def test_target_tells_of_answers_that_are_not_good() -> None:
    with live() as (url, _):
        port = address(url)[1]
        assert json.loads(target(port).answer())["size"] == {"width": 8, "height": 6}
        with pytest.raises(BenchError, match=r"it answered 200: {"):
            target(port, expect=b"\x89PNG").answer()
        with pytest.raises(BenchError, match=r"it answered 404: .*urn:ebseg:problem"):
            target(port, requests=[b"GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n"]).answer()
        wrong = target(port, requests=[b"GET /nothing HTTP/1.1\r\nHost: t\r\n\r\n"])
        wrong.measure(0.05)
        with pytest.raises(
            BenchError, match=r"it did not answer all requests: status 404 \(\d+\); the first: {"
        ):
            wrong.check()
    with pytest.raises(BenchError, match="Connection refused"):
        target(port).answer()
    with pytest.raises(BenchError, match="the load on it failed: cannot connect"):
        target(port).load(0.05)


def test_report_adds_up_rounds() -> None:
    it = target(1)
    it.loads = [
        Load(answered=10, requests=12, seconds=2.0, latencies=[0.1] * 9 + [0.5], cpu_seconds=0.12),
        Load(answered=30, requests=33, seconds=2.0, latencies=[0.2] * 10, unsent=3, cpu_seconds=0.33),
        Load(answered=20, requests=15, seconds=2.0, errors={"status 503": 2}, first_error="busy"),
    ]
    assert it.rates == [5, 15, 10]
    assert it.rate_median == 10
    assert it.report() == {
        "requests": 60,
        "errors": {"status 503": 2},
        "unsent": 3,
        "latency_seconds": {"p50": 0.2, "p95": 0.2, "p99": 0.5},
        "load_cpu_seconds_per_request": pytest.approx(0.0075),
    }


def test_batches_of_the_metrics() -> None:
    several = [
        f'ebseg_batch_size_{what}{{device="cuda:{device}",model="a",version="1"}} {value}'
        for device, what, value in ((0, "count", 1.0), (1, "count", 3.0), (0, "sum", 6.0), (1, "sum", 20.0))
    ]
    assert batches("\n".join(["a 1", *several, ""])) == (4, 26)
    with pytest.raises(BenchError, match="/metrics"):
        batches(several[0] + "\n")


def test_pictures_are_those_of_a_camera_and_their_comment_changes_nothing() -> None:
    first, second = pictures(64, 48, 2)
    assert first.shape == second.shape == (48, 64, 3)
    assert (first != second).mean() > 0.5
    file = jpeg(first)
    numbered = file.replace(b"#SERIAL#", b"00000042")
    assert file != numbered
    assert np.array_equal(decode(file, max_pixels=9999), decode(numbered, max_pixels=9999))
    assert len(set(class_names(900))) == 900


def test_instant_label_map() -> None:
    labels, confidence = label_map((48, 64), 5)
    assert labels.shape == confidence.shape == (48, 64)
    assert labels.dtype == np.uint16
    assert np.unique(labels).tolist() == [1, 2, 3, 4, 5]
    engine = InstantEngine()
    assert engine.cost((48, 64)) == engine.prepare(pictures(64, 48)[0]).cost == 3072
    assert np.allclose(np.linalg.norm(engine.embed(["a", "b"], ["{}"]).numpy(), axis=1), 1)


def test_limit_of_a_pool() -> None:
    with LimitPool(1, 2, (64, 48), 3) as pool:
        assert pool.rate(0.05) > 10
        pool._workers[0].kill()
        pool._workers[0].wait()
        with pytest.raises(RuntimeError, match="a worker of the limit has ended"):
            pool.rate(0.05)


def test_server_that_does_not_start() -> None:
    started = ServerProcess.module("service.bench.limit", ready="/")
    with (
        started as server,
        pytest.raises(ServerFailedError, match=r"(?s)limit stopped .*: .*required: --threads"),
    ):
        server.wait()
