"""However many processes there are, clients are answered the same, and by one service."""

import hashlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.load.server import Metrics, Server, started
from tests.service.fakes import BASE64, PNG, encoded, picture
from tests.service.inference_protocol.inference_requests import body as inference_body
from tests.service.inference_protocol.inference_requests import tensor
from tests.service.workers.processes import ADMIN, KEY, RARE, ask, plain
from tests.waiting import wait_until


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


KEYS = {
    "EBSEG_API_KEYS": f"much:sha256:{_digest(KEY)},rare:sha256:{_digest(RARE)}:rate=0.001",
    "EBSEG_ADMIN_KEYS": f"boss:sha256:{_digest(ADMIN)}",
    "EBSEG_MAX_BYTES": "1000000",
    "EBSEG_PREDICTION_CACHE_BYTES": "100000000",
}
LARGE = encoded(picture(300, 400))
OUTPUTS = ["rle", "png", "overlay", "polygons", "regions", "npy", "scores", "confidence", "coco", "geojson"]
IMAGE = {"Content-Type": "image/png"}
ALONE = ("/livez", "/readyz", "/", "/docs", "/openapi.json", "/static/js/page.js")
PROTOCOL = ("/v2", "/v2/models/fake", "/v2/models/other", "/v2/models/fake/config")
LISTED = {"classes": ["lamp", "cup", {"name": "pen", "color": "#010203"}]}
Asked = dict[str, Any]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Server, Server]]:
    """A service of one process, and one of three workers."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(started("tests.service.fakes", "0", **KEYS, EBSEG_WORKERS=number))
            for number in ("1", "3")
        ]
        for server in servers:
            server.wait()
        yield servers[0], servers[1]


def form(image: bytes = PNG, accept: str = "application/json", **document: Any) -> Asked:
    asked = {"classes": ["sky", "tree"], **document}
    return {
        "files": {"image": ("p.png", image)},
        "data": {"request": json.dumps(asked)},
        "headers": {"Accept": accept},
    }


def several(*images: bytes, accept: str = "application/json") -> Asked:
    return {
        "files": [("image", ("p.png", image)) for image in images],
        "data": {"classes": "sky,tree"},
        "headers": {"Accept": accept},
    }


def inference(**changes: Any) -> Asked:
    image, classes = tensor("image", [BASE64]), tensor("classes", ["sky", "tree"])
    content, header = inference_body(image, classes, **changes)
    return {
        "content": content,
        "headers": {} if header is None else {"Inference-Header-Content-Length": header},
    }


SEGMENT, BATCH, TASK = "/v1/segment", "/v1/segment/batch", "/v1/tasks/image-segmentation"
REQUESTS: list[tuple[str, str, Asked]] = [
    *(("POST", SEGMENT, form(outputs=[output])) for output in OUTPUTS),
    ("POST", SEGMENT, form(LARGE, outputs=OUTPUTS, output_size={"long_side": 77})),
    ("POST", SEGMENT, form(LARGE, outputs=["soft_mask", "cutout"], subject="tree")),
    *(("POST", SEGMENT, form(LARGE, accept)) for accept in ("image/png", "image/webp", "application/x-npy")),
    ("POST", SEGMENT, form(LARGE, tiling={"size": 128, "overlap": 32}, outputs=["npy", "scores"])),
    ("POST", SEGMENT, form(background={"threshold": 0.5}, synonym_mode="mean")),
    ("POST", SEGMENT, form(balance={"mean": "arithmetic"})),
    ("POST", SEGMENT, form(classes=None, vocabulary="voc-20")),
    ("POST", SEGMENT, form(classes=[{"name": "sky", "synonyms": ["air"], "color": "#102030"}, "tree"])),
    ("POST", SEGMENT, {"json": {"image": BASE64, "classes": ["sky"]}}),
    ("POST", f"{SEGMENT}?classes=sky", {"content": PNG, "headers": IMAGE}),
    # errors, of this process and of the other one
    ("POST", SEGMENT, form(classes=["sky", ""])),
    ("POST", SEGMENT, form(classes=["sky", "sky"])),
    ("POST", SEGMENT, form(classes=[])),
    ("POST", SEGMENT, form(b"no picture")),
    ("POST", SEGMENT, form(LARGE[:-300])),
    ("POST", SEGMENT, form(accept="text/html")),
    ("POST", SEGMENT, form(model="other")),
    ("POST", SEGMENT, form(version=9)),
    ("POST", SEGMENT, form(classes=None, vocabulary="nobody-has-it")),
    ("POST", SEGMENT, form(output_size={"long_side": 8000})),
    ("POST", SEGMENT, form(timeout_ms=500_000)),
    ("POST", SEGMENT, {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", f"{SEGMENT}?classes=sky", {"content": b"x" * 1_000_001, "headers": IMAGE}),
    ("POST", SEGMENT, {"key": "no key of this service"}),
    ("GET", SEGMENT, {}),
    ("GET", "/nowhere", {}),
    ("POST", BATCH, several(PNG, b"no picture", LARGE)),
    ("POST", TASK, {"json": {"inputs": BASE64, "parameters": {"classes": ["sky", "tree"]}}}),
    ("POST", "/v2/models/fake/infer", inference()),
    ("POST", "/v2/models/fake/versions/3/infer", inference(id="mine")),
    ("POST", "/v2/models/fake/versions/4/infer", inference()),
    ("POST", "/v2/models/other/infer", inference()),
    # what the engine's process answers alone
    *(("GET", path, {}) for path in (*PROTOCOL, *ALONE)),
    *(
        ("GET", path, {})
        for path in ("/livez", "/readyz", "/", "/docs", "/openapi.json", "/static/js/page.js")
    ),
    ("POST", "/v1/models/fake:reload", {}),
    ("POST", "/v1/models/fake:reload", {"key": ADMIN}),
    ("POST", "/v1/models/fake:pin", {"key": ADMIN, "json": {"version": 3}}),
    (
        "PUT",
        "/v1/vocabularies/mine",
        {"json": {"classes": ["lamp", "cup", {"name": "pen", "color": "#010203"}]}},
    ),
    ("POST", SEGMENT, form(classes=None, vocabulary="mine")),
    ("POST", SEGMENT, {**form(classes=None, vocabulary="mine"), "key": ADMIN}),
    ("GET", "/v1/vocabularies", {}),
    ("DELETE", "/v1/vocabularies/mine", {}),
    ("POST", SEGMENT, form(classes=None, vocabulary="mine")),
]


def settled(server: Server) -> Metrics:
    """Metrics once all workers, which tell ten times a second, have told what they counted."""
    seen: list[float] = []

    def calm() -> bool:
        seen.append(server.metrics().value("requests_total", route=SEGMENT))
        return len(seen) > 5 and len(set(seen[-6:])) == 1

    wait_until(calm, pause=0.1)
    return server.metrics()


def test_answers_are_equal_bit_by_bit(both: tuple[Server, Server]) -> None:
    statuses = set()
    for method, path, options in REQUESTS:
        one, other = (ask(server, method, path, **dict(options)) for server in both)
        assert plain(one) == plain(other), (path, options)
        statuses.add(one.status_code)
    assert {200, 201, 204, 400, 401, 404, 405, 406, 409, 413, 415, 422} <= statuses


def test_a_change_holds_for_all_workers_at_once(both: tuple[Server, Server]) -> None:
    _, server = both
    for number in range(6):
        stored = ask(server, "PUT", "/v1/vocabularies/changing", json={"classes": [f"thing {number}"]})
        assert stored.status_code == (200 if number else 201)
        answer = ask(server, "POST", SEGMENT, **form(classes=None, vocabulary="changing"))
        assert [one["name"] for one in answer.json()["classes"]] == [f"thing {number}"]


def test_a_key_is_counted_for_all_workers_together(both: tuple[Server, Server]) -> None:
    _, server = both
    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, server, "POST", SEGMENT, key=RARE, **form()) for _ in range(12)]
        statuses = sorted(one.result().status_code for one in asked)
    assert statuses == [200] + [429] * 11


def test_metrics_are_those_of_all_workers(both: tuple[Server, Server]) -> None:
    _, server = both
    before = settled(server)
    for _ in range(9):
        assert ask(server, "POST", SEGMENT, **form(LARGE)).status_code == 200
        assert ask(server, "POST", SEGMENT, **form(b"no picture")).status_code == 415
    answered = {"route": "/v1/segment", "model": "fake", "version": "3"}
    told = before.value("requests_total", **answered) + 18
    wait_until(lambda: server.metrics().value("requests_total", **answered) >= told, pause=0.05)
    after = settled(server)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("requests_total", code="200", **answered) == 9
    assert grown("requests_total", code="415", **answered) == 9
    assert grown("request_duration_seconds_count", **answered) == 18
    assert grown("stage_duration_seconds_count", stage="decode") == 9
    assert grown("stage_duration_seconds_count", stage="classify") == 9
    assert grown("image_megapixels_count") == 9
    assert grown("key_requests_total", key="much") == 18
    assert after.value("inflight") == 0
    assert after.value("host_bytes", kind="reserved") == 0
    statistics = ask(server, "GET", "/v2/models/fake/stats").json()["model_stats"][0]
    assert statistics["inference_count"] == after.value("stage_duration_seconds_count", stage="encode")


def test_connections_are_those_of_all_workers(both: tuple[Server, Server]) -> None:
    _, server = both

    def connections() -> float:
        return server.metrics().value("connections")

    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection((server.host, server.port)))
        # besides them the scrape's own, or another one that is about to close
        wait_until(lambda: 20 <= connections() <= 22, pause=0.05)
    wait_until(lambda: connections() <= 2, pause=0.05)
