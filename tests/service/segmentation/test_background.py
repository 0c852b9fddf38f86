"""Which threshold a request gets, by every way in; and what answers say of it and against themselves."""

import dataclasses
import io
from typing import Any

import httpx
import numpy as np
import pytest

from model.confidence.card import Card
from model.segmenter import Segmenter
from model.storage.packaged import packaged_checkpoint
from model.vocabulary.classes import Vocabulary
from service.scheduling.torch_engine import TorchEngine, load_engine
from service.segmentation.decode import decode
from tests.e2e.documents import ROOT
from tests.service.fakes import BASE64, INFO, PNG, FakeEngine, post, problem, running
from tests.service.inference_protocol.inference_requests import CLASSES, IMAGE, body, tensor

pytestmark = pytest.mark.anyio
CARD = Card(domain="drawn scenes", words=("sky", "tree"), threshold=0.5, confidence=((0.01, 0.4),))
ABSENT: Any = ...


def engine(card: Card | None = CARD) -> FakeEngine:
    return FakeEngine(dataclasses.replace(INFO, card=card, license="MIT"))


@pytest.mark.parametrize(
    ("said", "card", "threshold", "source"),
    [
        (ABSENT, CARD, 0.5, "card"),
        (None, CARD, None, "request"),
        ({"threshold": 0.25}, CARD, 0.25, "request"),
        ({"threshold": 0}, CARD, 0.0, "request"),
        (ABSENT, None, None, "uncalibrated"),
        (ABSENT, dataclasses.replace(CARD, threshold=None), None, "uncalibrated"),
        (None, None, None, "request"),
    ],
)
async def test_json_and_forms(said: Any, card: Card | None, threshold: float | None, source: str) -> None:
    document: dict[str, Any] = {"classes": ["sky", "tree"]} | ({} if said is ABSENT else {"background": said})
    words = {} if said is ABSENT else {"background": "none" if said is None else str(said["threshold"])}
    made = engine(card)
    async with running(made) as (client, _):
        part = (await post(client, document)).json()
        form = (await post_form(client, classes="sky,tree", **words)).json()
        whole = (await client.post("/v1/segment", json=document | {"image": BASE64})).json()
    assert [job.threshold for job in made.jobs] == [threshold or 0.0] * 3
    for answer in (part, form, whole):
        assert answer["background"] == {"threshold": threshold, "source": source}
        assert ("other" in answer) == (threshold is not None)


async def post_form(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
    return await client.post("/v1/segment", files={"image": ("p.png", PNG)}, data=fields)


async def infer(client: httpx.AsyncClient, *inputs: Any) -> httpx.Response:
    content, _ = body(*inputs)
    return await client.post("/v2/models/fake/infer", content=content)


async def test_forms_that_say_nonsense() -> None:
    async with running(engine()) as (client, _):
        for word in ("None", "null", "1.5", "card", "nan"):
            answer = await post_form(client, classes="sky", background=word)
            (error,) = problem(answer, 422)["errors"]
            assert error["field"] == "background.threshold"
        old = await post_form(client, classes="sky", threshold="0.5")
        assert problem(old, 422)["errors"] == [
            {"field": "threshold", "message": "unknown field; did you mean background?"}
        ]


async def test_the_protocol() -> None:
    made = engine()
    async with running(made) as (client, _):
        own = (await infer(client, IMAGE, CLASSES)).json()
        none = (await infer(client, IMAGE, CLASSES, tensor("threshold", [0.0]))).json()
        some = (await infer(client, IMAGE, CLASSES, tensor("threshold", [0.25]))).json()
    assert [job.threshold for job in made.jobs] == [0.5, 0.0, 0.25]
    answered = [
        (one["parameters"]["threshold"], one["parameters"]["threshold_source"]) for one in (own, none, some)
    ]
    assert answered == [(0.5, "card"), (0.0, "request"), (0.25, "request")]


async def test_stored_vocabularies_and_cards_of_models() -> None:
    made = engine()
    async with running(made) as (client, _):
        answer = (await post(client, {"vocabulary": "voc-20"})).json()
        model = (await client.get("/v1/models/fake")).json()
        schema = (await client.get("/openapi.json")).json()["components"]["schemas"]
    assert answer["background"] == {"threshold": 0.5, "source": "card"}
    assert (model["license"], model["card"]) == ("MIT", CARD.to_dict())
    for name in ("SegmentRequest", "JsonSegmentRequest"):
        assert "default" not in schema[name]["properties"]["background"]  # what holds is the card's


async def test_warnings_are_in_every_form_of_answer() -> None:
    async with running(engine()) as (client, _):
        answered = await post(client, {"classes": ["sky", "face"]})
        png = await post(client, {"classes": ["face"]}, headers={"Accept": "image/png"})
        sound = await post(client, {"classes": ["sky", "trees"]})
        protocol = await infer(client, IMAGE, tensor("classes", ["face"]))
    (warning,) = answered.json()["warnings"]
    assert warning["code"] == "unknown-words"
    assert warning["message"].startswith('"face" is no word that fake knows')
    assert answered.headers["x-ebseg-warnings"] == png.headers["x-ebseg-warnings"] == "unknown-words"
    assert protocol.headers["x-ebseg-warnings"] == "unknown-words"
    assert protocol.json()["parameters"]["warnings"] == warning["message"]
    assert "warnings" not in sound.json()
    assert "x-ebseg-warnings" not in sound.headers


@pytest.fixture
def tiny() -> TorchEngine:
    return load_engine(packaged_checkpoint(), golden=False)


async def test_label_maps_with_a_word_of_the_request_are_the_models_own(tiny: TorchEngine) -> None:
    """Bit for bit: a card changes what is not said, and nothing else."""
    data = (ROOT / "samples" / "village.jpg").read_bytes()
    names = ["house", "umbrella", "face"]
    segmenter: Segmenter = tiny.segmenter
    predictions = segmenter.predict([segmenter.prepare(decode(data, max_pixels=1 << 24))])
    assert tiny.info.card is not None
    async with running(load=lambda *_, **__: tiny, checkpoint=str(packaged_checkpoint())) as (client, _):
        for said, threshold in ((None, 0.0), ({"threshold": 0.3}, 0.3), (ABSENT, tiny.info.card.threshold)):
            document: dict[str, Any] = {"classes": names} | ({} if said is ABSENT else {"background": said})
            answer = await post(client, document, image=data, headers={"Accept": "application/x-npy"})
            found = np.load(io.BytesIO(answer.content))
            wanted = segmenter.label_map(
                predictions, Vocabulary.of(names), output_size=found.shape, threshold=threshold or 0.0
            )
            assert np.array_equal(found, wanted.labels)
            assert answer.headers["x-ebseg-warnings"] == "unknown-words"


def test_a_picture_unlike_its_domain_is_told_from_a_scene(tiny: TorchEngine) -> None:
    """A grey sheet and waves are no scenes; what is asked for does not matter."""
    assert tiny.info.card is not None
    least = dict(tiny.info.card.confidence or ())[0.01]
    y, x = np.mgrid[:192, :256]
    waves = np.stack([127 + 120 * np.sin(x / 11 + y / (7 + k)) for k in range(3)], 2).astype(np.uint8)
    grey = np.full((192, 256, 3), 127, np.uint8)
    scenes = [
        decode((ROOT / "samples" / f"{name}.jpg").read_bytes(), max_pixels=1 << 24)
        for name in ("village", "harbour", "street", "room")
    ]
    sure = [tiny.predict([tiny.prepare(picture)])[0].own for picture in (grey, waves, *scenes)]
    assert all(one is not None and one < least - 0.1 for one in sure[:2])
    assert all(one is not None and one > least for one in sure[2:])
