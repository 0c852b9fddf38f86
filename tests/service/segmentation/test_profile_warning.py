"""Warnings of an image's colours and of names without commas: of each answer, and in a notebook."""

import numpy as np
import pytest
from PIL import Image

import ebseg
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
