"""An engine without a model, and an app and a server around it. As a script: serves until a signal."""

import base64
import io
import itertools
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn
from numpy.typing import NDArray
from PIL import Image

from model.network.balance import Balance
from service.app import create_app
from service.hot_loading.loader import LoadEngine
from service.runtime import Service
from service.scheduling.engine import (
    EngineResult,
    Job,
    Measurement,
    ModelInfo,
    PreparedPicture,
    TiledPrediction,
)
from service.segmentation.encode import resized
from service.server import build_server, listen
from service.settings import Settings
from service.workers.serve import serve
from tests.waiting import WAIT, until, wait_until

INFO = ModelInfo(
    name="fake",
    version=3,
    digest="d" * 64,
    untrained=False,
    variant="tiny",
    device="cpu",
    dtype="float32",
    balance=Balance.geometric(frozen_trained=0.1, frozen_new=0.3, mask_attention=0.7),
)


class FakePrediction:
    """A picture, as what the network made of it."""

    def __init__(self, picture: NDArray[np.uint8]):
        self.picture = picture

    @property
    def nbytes(self) -> int:
        return self.picture.nbytes


class FakeEngine:
    """Labels by the red channel, confidence by the green one.

    Args:
        info: what it says it is.
        seconds: how long a batch takes.
        error: raised by every batch with a picture whose first pixel is black.
        gate: batches wait for it.
    """

    def __init__(
        self,
        info: ModelInfo = INFO,
        *,
        seconds: float = 0.0,
        error: Exception | None = None,
        gate: threading.Event | None = None,
    ):
        self.info = info
        self.text_digest = "t" * 64
        self.seconds = seconds
        self.error = error
        self.gate = gate
        self.batches: list[int] = []  # pictures of each that ran
        self.jobs: list[Job] = []  # those that were classified
        self.embedded: list[list[str]] = []
        self.warmed: list[tuple[int, int]] = []
        self.running = threading.Event()
        self.closed = False
        self.batch = 8
        self.classified_at_once = 1

    def room(self, shape: tuple[int, int]) -> int:
        return 1000

    def cost(self, size: tuple[int, int]) -> int:
        return size[0] * size[1]

    def prepare(self, picture: NDArray[np.uint8]) -> PreparedPicture:
        shape = (picture.shape[0], picture.shape[1])
        return PreparedPicture(pixels=picture, shape=shape, cost=self.cost(shape))

    def tokens(self, names: Sequence[str], templates: Sequence[str]) -> list[int]:
        return [len(templates)] * len(names)

    def predict(self, prepared: Sequence[PreparedPicture]) -> list[FakePrediction]:
        assert len({one.shape for one in prepared}) == 1
        self.batches.append(len(prepared))
        self.running.set()
        if self.gate is not None:
            assert self.gate.wait(WAIT)
        time.sleep(self.seconds)
        if self.error is not None and not all(one.pixels[0, 0].any() for one in prepared):
            raise self.error
        return [FakePrediction(one.pixels) for one in prepared]

    def classify(self, prediction: Any, job: Job) -> EngineResult:
        self.jobs.append(job)
        first = prediction
        if isinstance(prediction, TiledPrediction):  # the first tile stands for all
            first = next(iter(prediction.tiles.values()))
        picture = resized(first.picture, job.output_size)
        classes = len(job.vocabulary)
        assert job.text is not None
        assert job.text.shape == (len(job.vocabulary.words), 4)
        labels = (picture[:, :, 0].astype(np.int64) * classes // 256 + 1).astype(np.uint16)
        confidence = np.divide(picture[:, :, 1], 255, dtype=np.float32)
        labels[confidence < job.threshold] = 0
        scores = None
        if job.scores:
            scores = (labels == np.arange(1, classes + 1)[:, None, None]).astype(np.float16)
        return EngineResult(
            labels=labels,
            confidence=confidence,
            scores=scores,
            trained=[item.trained or item.name == "tree" for item in job.vocabulary.classes],
        )

    def classify_each(self, predictions: Sequence[Any], jobs: Sequence[Job]) -> list[EngineResult]:
        return [self.classify(one, job) for one, job in zip(predictions, jobs, strict=True)]

    def to_host(self, prediction: FakePrediction) -> FakePrediction:
        return prediction

    def embed(self, names: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        self.embedded.append(list(names))
        rows = torch.tensor([[len(name), ord(name[0]), len(templates), 1.0] for name in names])
        return torch.nn.functional.normalize(rows, dim=-1)

    def warm(self, shape: tuple[int, int]) -> Sequence[Measurement]:
        self.warmed.append(shape)
        return ()

    def close(self) -> None:
        self.closed = True


def settings(**values: Any) -> Settings:
    """Settings of a small service. The prediction cache is off, so that every picture reaches the engine."""
    return Settings(**{"decode_threads": 2, "port": 0, "prediction_cache_bytes": 0, **values})


def picture(height: int = 6, width: int = 8) -> NDArray[np.uint8]:
    """Red grows to the right, green downwards."""
    made = np.zeros((height, width, 3), np.uint8)
    made[:, :, 0] = np.linspace(0, 255, width).astype(np.uint8)
    made[:, :, 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    made[:, :, 2] = 77
    return made


def encoded(array: NDArray[Any], form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, **options)
    return buffer.getvalue()


PNG = encoded(picture())
_numbers = itertools.count()


def another(image: bytes = PNG) -> bytes:
    """The same picture in another file, which is predicted by itself: nobody reads what stands at its end."""
    return image + b"%d" % next(_numbers)


BASE64 = base64.b64encode(PNG).decode()


@asynccontextmanager
async def running(
    engine: FakeEngine | None = None, *, load: LoadEngine | None = None, ready: bool = True, **values: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """A client of an app in this process, with its lifespan around; with `load` instead of an engine."""
    own = settings(**values)
    app = create_app(own, engine or FakeEngine()) if load is None else create_app(own, load=load)
    service: Service = app.state.service
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    async with app.router.lifespan_context(app), client:
        if ready:
            await until(lambda: service.state == "ready")
        yield client, service


async def post(
    client: httpx.AsyncClient,
    document: dict[str, Any] | None = None,
    *,
    image: bytes = PNG,
    **options: Any,
) -> httpx.Response:
    """Sends a picture and a JSON part as multipart."""
    chosen = {"classes": ["sky", "tree"]} if document is None else document
    data = {"request": json.dumps(chosen)}
    return await client.post("/v1/segment", files={"image": ("p.png", image)}, data=data, **options)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The answer's problem document, after a look at everything that all of them have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["type"].startswith("urn:ebseg:problem:")
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]
    assert "total;dur=" in answer.headers["server-timing"]
    assert "Traceback" not in answer.text
    return document


def fields(document: dict[str, Any]) -> dict[str, str]:
    """Which fields a problem document complains of, and why."""
    return {error["field"]: error["message"] for error in document["errors"]}


@contextmanager
def live(engine: FakeEngine | None = None, **values: Any) -> Iterator[tuple[str, Service]]:
    """A real server in a thread: its address, and the service."""
    own = settings(**values)
    app = create_app(own, engine or FakeEngine())
    service: Service = app.state.service
    with in_thread(build_server(app, own), ready=lambda: service.state == "ready") as url:
        yield url, service


@contextmanager
def in_thread(server: uvicorn.Server, *, ready: Callable[[], bool] = lambda: True) -> Iterator[str]:
    """Runs a server in a thread on a free port: its address, once it listens and is ready."""
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started and ready())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(WAIT)
            assert not thread.is_alive()


if __name__ == "__main__":
    sys.exit(serve(settings(), FakeEngine(seconds=float(sys.argv[1]))))
