"""A real model behind a real server: the mask over HTTP is the one that the model makes."""

import io
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from pycocotools import mask as coco

from model.network.balance import Balance
from model.segmenter import Segmenter
from model.storage.checkpoint import load
from model.storage.packaged import packaged_checkpoint
from model.vocabulary.classes import Vocabulary
from service.app import create_app
from service.runtime import Service
from service.scheduling.delivery import Then
from service.scheduling.engine import Job
from service.scheduling.scheduler import Scheduler
from service.scheduling.step_runner import StepRunner
from service.scheduling.work import EmbedStep, Request, Step
from service.server import build_server
from tests.service.fakes import encoded, in_thread, settings
from tests.service.inference_protocol.wire import segment
from tests.waiting import WAIT, wait_until

PICTURE = np.random.default_rng(5).integers(0, 255, (9, 12, 3), np.uint8).repeat(17, 0).repeat(13, 1)
CLASSES = ["sky", "tree", "a thing without a name"]


def test_the_mask_over_http_is_the_models(tiny_checkpoint: Path) -> None:
    own = settings(checkpoint=tiny_checkpoint)
    app = create_app(own)
    service: Service = app.state.service
    document = {"classes": CLASSES, "templates": "plain", "balance": {"mean": "arithmetic"}}
    with in_thread(build_server(app, own)) as url, httpx.Client(base_url=url, timeout=WAIT) as client:
        wait_until(lambda: client.get("/readyz").status_code != 503, pause=0.05)
        files = {"image": encoded(PICTURE)}
        data = {"request": json.dumps(document)}
        answer = client.post("/v1/segment", files=files, data=data)
        npy = client.post("/v1/segment", files=files, data=data, headers={"Accept": "application/x-npy"})
        metrics = client.get("/metrics").text
    assert service.failure is None
    weights = 'ebseg_device_memory_bytes{device="cpu",kind="weights",model="ebseg-tiny",version="1"} '
    told = float(metrics.partition(weights)[2].split("\n")[0])
    vocabulary = Vocabulary.of(CLASSES, templates="plain")
    segmenter = Segmenter(load(tiny_checkpoint).ebseg)
    assert told == segmenter.ebseg.weight_bytes > 1e6
    expected = segmenter.segment(PICTURE, vocabulary, balance=Balance.arithmetic())
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ebseg-model"] == "ebseg-tiny/1"
    assert answer.headers["x-ebseg-untrained"] == "true"
    assert (np.load(io.BytesIO(npy.content)) == expected.labels).all()
    body = answer.json()
    assert [item["trained"] for item in body["classes"]] == [True, True, False]
    for item in body["classes"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pycocotools converts its own arrays the old way
            mask = coco.decode(item["rle"])
        assert (mask == (expected.labels == item["label"])).all()
        if item["area"]:
            confidence = expected.confidence[expected.labels == item["label"]].mean()
            assert abs(item["mean_confidence"] - confidence) <= 0.5001e-4  # four decimals


def test_a_thousand_new_names_let_others_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps of the device and not in seconds, which say more of the machine: its own log is looked at."""
    log: list[str] = []
    sizes: list[tuple[int, int]] = []  # tokens of each embed step, and what a chunk was then
    run, request = StepRunner.run, Scheduler.request

    def noting(runner: StepRunner, step: Step) -> None:
        if isinstance(step, EmbedStep):
            sizes.append((step.tokens, runner._prices.chunk(step.engine.info, 0)))
        log.append(type(step).__name__)
        run(runner, step)

    def submitted(scheduler: Scheduler, job: Job, then: Then | None = None) -> Request:
        log.append("submit" if len(job.vocabulary) == 2 else "submit the long list")
        return request(scheduler, job, then)

    own = settings(checkpoint=packaged_checkpoint())
    app = create_app(own)
    service: Service = app.state.service
    image = encoded(PICTURE)
    names = ",".join(f"new {number}" for number in range(1024))
    long = {"classes": names, "templates": "imagenet", "timeout_ms": "2000"}  # 82,000 prompts
    with (
        in_thread(build_server(app, own), ready=lambda: service.state == "ready") as url,
        ThreadPoolExecutor(1) as clients,
    ):
        assert segment(url, image).status_code == 200
        monkeypatch.setattr(StepRunner, "run", noting)
        monkeypatch.setattr(Scheduler, "request", submitted)
        assert segment(url, image, **long).status_code == 504
        assert "EmbedStep" not in log  # its price is known before any of it is embedded
        service.admission._trusted = lambda: False  # from here on no price refuses anybody
        log.clear()
        asked = clients.submit(segment, url, image, **long)
        wait_until(lambda: "EmbedStep" in log or asked.done())
        answers = []
        while not asked.done():
            before = len(log)
            answers.append(segment(url, image))
            mine = log[log.index("submit", before) :]
            mine = mine[: mine.index("ClassifyStep")]
            # beside the chunk that ran when it came: one more, if its own predict took thrice as long
            assert [step for step in mine if step != "EmbedStep"] == ["submit", "PredictStep"]
            assert mine.count("EmbedStep") <= 1
            assert httpx.get(f"{url}/livez", timeout=WAIT).status_code == 200
        assert {answer.status_code for answer in answers} == {200}
        assert asked.result().status_code == 504
        after = len(log)
        assert segment(url, image).status_code == 200
        assert log[after:] == ["submit", "PredictStep", "ClassifyStep"]  # nothing more is done for it
    assert len(sizes) > 2
    one_template = 16 * 5  # tokens of the fewest prompts that a step has
    assert all(tokens <= max(chunk, one_template) for tokens, chunk in sizes)
