"""Warnings of an image's colours and of names without commas: of each answer, and in a notebook."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

import ebseg
from model.confidence.caution import AnswerWarning, caution_of_joined
from tests.model.pictures.profiles import profile
from tests.model.pictures.test_colors import saved
from tests.service.fakes import post, running

PICTURE = Image.fromarray(np.full((80, 90, 3), (200, 40, 90), np.uint8))
BROKEN = saved(PICTURE, icc_profile=profile("Adobe RGB")[:140])


@pytest.mark.anyio
async def test_each_answer_says_it() -> None:
    async with running(prediction_cache_bytes=1 << 20) as (client, _):
        answers = [await post(client, {"classes": [name]}, image=BROKEN) for name in ("a", "b")]
        sound = await post(client, {"classes": ["a"]}, image=saved(PICTURE))
    assert [one.json()["caches"]["prediction"] for one in answers] == ["miss", "hit"]
    for one in answers:
        (warning,) = one.json()["warnings"]
        assert warning["code"] == one.headers["x-ebseg-warnings"] == "colour-profile"
        assert warning["message"].startswith("The image's colour profile is broken")
    assert "warnings" not in sound.json()


def test_in_a_notebook() -> None:
    model = ebseg.load("tiny")
    found = model.segment(BROKEN, ["sky", "house"])
    assert "colour-profile" in [warning.code for warning in found.warnings]
    found = model.segment(BROKEN, ["sky grass corn field"])
    (joined,) = [warning.message for warning in found.warnings if warning.code == "joined-names"]
    assert 'did you mean "sky, grass, corn field"?' in joined


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"classes": ["sky grass", "house"]}, [2]),
        ({"vocabulary": "ade20k-150"}, []),
        ({"vocabulary": "auto"}, []),
    ],
)
async def test_lists_of_ours_are_not_asked_about(
    document: dict[str, Any], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody forgot their commas, whatever the model was trained on."""
    asked: list[int] = []

    def noted(*arguments: Any) -> tuple[AnswerWarning, ...]:
        asked.append(arguments[3])
        return caution_of_joined(*arguments)

    monkeypatch.setattr("service.segmentation.answer.caution_of_joined", noted)
    async with running() as (client, _):
        assert (await post(client, document)).status_code == 200
    assert sorted(set(asked)) == expected
