"""What Prometheus sees."""

import re

import pytest

from service.observability.metrics import DEVICE_STAGES, STAGES
from tests.service.fakes import FakeEngine, encoded, picture, post, running

pytestmark = pytest.mark.anyio
REQUESTS = r'ebseg_requests_total\{code="(\d+)",model="([^"]*)",route="([^"]+)",version="([^"]*)"\} (\S+)'


def samples(text: str) -> dict[str, float]:
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_after_some_requests() -> None:
    async with running(FakeEngine()) as (client, _):
        for _ in range(3):
            await post(client, image=encoded(picture(100, 200)))
        await post(client, image=b"text")
        await post(client, {"classes": ["sky"], "model": "my-secret-model"})
        await post(client, {"classes": ["sky"], "version": 4})
        await client.get("/v1/vocabularies/my-secret-list")
        await client.get("/my-secret-path")
        await client.request("SECRET", "/v1/segment")
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    values = samples(answer.text)
    requests = {
        (route, int(code), model, version): float(value)
        for code, model, route, version, value in re.findall(REQUESTS, answer.text)
    }
    assert requests == {
        ("/v1/segment", 200, "fake", "3"): 3,
        ("/v1/segment", 415, "fake", "3"): 1,
        ("/v1/segment", 500, "fake", "3"): 0,  # there before the first one, which is in rates then
        ("/v1/segment", 404, "", ""): 2,
        ("/v1/segment", 405, "", ""): 1,
        ("/v1/vocabularies/{name}", 404, "", ""): 1,
        ("other", 404, "", ""): 1,
    }
    for model, version, count in (("fake", "3", 4), ("", "", 3)):
        labels = f'model="{model}",route="/v1/segment",version="{version}"'
        assert values[f"ebseg_request_duration_seconds_count{{{labels}}}"] == count
    for stage in STAGES:
        device = "cpu" if stage in DEVICE_STAGES else ""
        labels = f'device="{device}",model="fake",stage="{stage}",version="3"'
        count = 0 if stage == "fetch" else 3  # of pictures by URL alone
        assert values[f"ebseg_stage_duration_seconds_count{{{labels}}}"] == count
    assert values["ebseg_image_megapixels_sum"] == pytest.approx(0.06)
    assert values["ebseg_vocabulary_size_sum"] == 6
    assert values[f'ebseg_model_info{{digest="{"d" * 64}",model="fake",version="3"}}'] == 1
    assert values["ebseg_inflight"] == 0
    assert values["ebseg_expected_work_seconds"] == 0
    for queue in ("device", "decode", "encode"):
        assert values[f'ebseg_queue_depth{{queue="{queue}"}}'] == 0
        assert values[f'ebseg_queue_oldest_age_seconds{{queue="{queue}"}}'] == 0
    assert values["ebseg_last_success_timestamp_seconds"] > 1.6e9
    labels = 'device="cpu",le="([^"]+)",model="fake",stage="predict",version="3"'
    series = rf"ebseg_stage_duration_seconds_bucket\{{{labels}\}}"
    buckets = re.findall(series, answer.text)
    assert (buckets[0], buckets[-2], buckets[-1]) == ("0.005", "30.0", "+Inf")
    assert "secret" not in answer.text.lower()


async def test_each_app_counts_for_itself() -> None:
    async with running() as (client, _):
        await post(client)
    async with running() as (client, _):
        values = samples((await client.get("/metrics")).text)
    assert values["ebseg_vocabulary_size_count"] == 0
    assert values["ebseg_last_success_timestamp_seconds"] == 0


async def test_refusals_are_counted_by_reason() -> None:
    async with running(max_pixels=10, max_bytes=2000) as (client, service):
        await post(client)
        await post(client, image=b"x" * 3000)
        service.begin_drain()
        await post(client)
        assert (await client.get("/readyz")).status_code == 503  # a probe is not a refused request
        values = samples((await client.get("/metrics")).text)
    for reason in ("too-many-pixels", "too-many-bytes", "not-ready"):
        assert values[f'ebseg_rejected_total{{reason="{reason}"}}'] == 1
