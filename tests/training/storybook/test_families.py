"""Storybook of families: kin are alike and can be told apart, rare words are rare, new classes stay new."""

import dataclasses
import json
import multiprocessing
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ebseg
from tests.training.storybook.test_storybook_textures import SAMPLES, SIDE, named_right, spectra
from training.data.layout import SegmentationFolder
from training.recipes import tiny
from training.recipes.recipe import OF_FAMILIES
from training.recipes.tiny import make_encoders
from training.run.folder import read_config
from training.storybook.classes import ALIKE, FAMILIES, RARELY, STORYBOOK
from training.storybook.generate import HELD_OUT, TRAIN, generate, scene_of
from training.storybook.pretrain.pictures import pool
from training.storybook.scene import KINDS, draw
from training.storybook.sprites import Sprite
from training.storybook.textures import PALETTES, paint
from training.storybook.textures_families import FAMILY_TEXTURES
from training.storybook.things import sprite
from training.storybook.things_families import FAMILY_DRAWINGS

HEIGHT, WIDTH = 48, 64
KIN_OF_STUFF = {name: kin for name, kin in ALIKE.items() if set(kin) <= set(FAMILIES.stuff)}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws in this process, which has its sheets of texture already."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=ThreadPool))


def test_every_family_has_trained_and_new_kin_of_one_head_word() -> None:
    assert len(FAMILIES.classes) == len(set(FAMILIES.classes)) >= 40
    assert set(FAMILIES.trained) | set(FAMILIES.new) == set(FAMILIES.classes)
    for word, kin in ALIKE.items():
        assert all(name.endswith(word) for name in kin)
        assert set(kin) <= set(FAMILIES.classes)
        assert set(kin) & set(FAMILIES.new), word
        assert set(kin) & set(FAMILIES.trained), word
    assert set(FAMILIES.new) <= {name for kin in ALIKE.values() for name in kin}
    assert set(FAMILIES.rare) & set(FAMILIES.new)
    assert set(FAMILIES.rare) & set(FAMILIES.trained)


@pytest.mark.parametrize("word", KIN_OF_STUFF)
def test_the_pattern_tells_kin_apart(word: str) -> None:
    """By a spectrum alone; chance is one half to a sixth."""
    cuts = np.array(
        [
            [
                paint(name, np.random.default_rng([seed, *name.encode()]), SIDE, SIDE, 1.0)
                for seed in range(SAMPLES)
            ]
            for name in ALIKE[word]
        ]
    )
    assert named_right(spectra(cuts)).min() >= 0.6


def test_textures_of_families_have_known_palettes_that_kin_share() -> None:
    for name, (_, palettes) in FAMILY_TEXTURES.items():
        assert len(set(palettes)) == len(palettes) >= 5, name
        assert set(palettes) <= set(PALETTES), name
    for kin in ALIKE.values():
        assert len({FAMILY_TEXTURES[name][1] for name in kin if name in FAMILY_TEXTURES}) <= 1
        assert len({FAMILY_DRAWINGS[name].palettes for name in kin if name in FAMILY_DRAWINGS}) <= 1


@pytest.mark.parametrize("name", FAMILY_DRAWINGS)
def test_drawings_are_solid_vary_and_reach_all_four_edges(name: str) -> None:
    def drawn(seed: int) -> Sprite:
        return sprite(name, np.random.default_rng(seed), 64)

    for seed in range(6):
        found = drawn(seed)
        assert found.rgb.tobytes() == drawn(seed).rgb.tobytes()
        assert found.rgb.tobytes() != drawn(seed + 6).rgb.tobytes()
        inside = found.mask >= 128
        assert found.rgb.shape == (64, inside.shape[1], 3)
        assert 0.3 <= inside.mean() <= 0.9
        for edge in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]):
            assert edge.any()


def test_rare_words_are_in_few_captioned_scenes_and_storybook_has_none() -> None:
    rng = np.random.default_rng(0)
    often = Counter(name for _ in range(1000) for name in FAMILIES.captioned(rng))
    for name in FAMILIES.classes:
        assert often[name] == (pytest.approx(1000 * RARELY, abs=60) if name in FAMILIES.rare else 1000)
    before = rng.bit_generator.state
    assert STORYBOOK.captioned(rng) == STORYBOOK.classes
    assert rng.bit_generator.state == before


def test_scenes_that_are_trained_on_hold_no_new_class_and_the_others_hold_every_one() -> None:
    new = [FAMILIES.classes.index(name) for name in FAMILIES.new]
    mentioned: Counter[str] = Counter()
    for index in range(300):
        rng, kind, allowed = scene_of(0, HELD_OUT, index, FAMILIES)
        scene = draw(rng, kind, height=HEIGHT, width=WIDTH, book=FAMILIES, allowed=allowed)
        mentioned.update(FAMILIES.classes[number] for number in scene.mentioned)
    assert {name: mentioned[name] for name in FAMILIES.classes if mentioned[name] < 8} == {}
    for index in range(60):
        rng, kind, allowed = scene_of(0, TRAIN, index, FAMILIES)
        scene = draw(rng, kind, height=HEIGHT, width=WIDTH, book=FAMILIES, allowed=allowed)
        assert not np.isin(scene.labels, new).any()
        assert not any(name in scene.caption for name in FAMILIES.new)


@pytest.mark.parametrize("kind", KINDS)
def test_captions_name_things_of_the_book_with_an_article(kind: str) -> None:
    for seed in range(12):
        scene = draw(np.random.default_rng([4, seed]), kind, height=HEIGHT, width=WIDTH, book=FAMILIES)
        for number in scene.mentioned:
            name = FAMILIES.classes[number]
            assert (f"a {name}" in scene.caption) or (f"an {name}" in scene.caption) or name in FAMILIES.stuff
            assert name in scene.caption


def test_the_pool_leaves_rare_words_rare(tmp_path: Path, threads: None) -> None:
    shares = (1.0, 1.0, 1.0)
    found = pool(tmp_path / "pool", seed=2, count=12, side=32, shares=shares, book=FAMILIES, processes=1)
    assert found.mentioned.shape == (12, len(FAMILIES.classes))
    np.testing.assert_allclose(np.diff(found.odds, prepend=0), 1 / 12)
    even = dataclasses.replace(found, book=STORYBOOK)
    assert np.ptp(np.diff(even.odds, prepend=0)) > 0.001


def test_the_data_set_says_which_classes_are_new(
    tmp_path: Path, threads: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "storybook",
        str(tmp_path / "families"),
        "--families",
        "--train",
        "3",
        "--val",
        "2",
        "--jobs",
        "1",
    ]
    assert ebseg.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["train"] == 3
    folder = SegmentationFolder(tmp_path / "families", TRAIN)
    assert folder.title == "Storybook of families, seed 0"
    assert [item.name for item in folder.classes] == list(FAMILIES.classes)
    assert [name in FAMILIES.new for name in FAMILIES.classes] == [not known for known in folder.trained]
    generate(tmp_path / "again", train=3, held_out=2, seed=0, jobs=1, book=FAMILIES)
    for split in (TRAIN, HELD_OUT):
        first, again = (SegmentationFolder(tmp_path / name, split) for name in ("families", "again"))
        assert all((x.labels == y.labels).all() for x, y in zip(first, again, strict=True))


def test_its_recipe_runs_up_to_the_segmenter(
    tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "CEILING_SCENES", 4)
    said: list[str] = []
    config = make_encoders(tmp_path / "out", OF_FAMILIES.shrunk(0.0003), said.append)
    assert [line[:3] for line in said if "/5 " in line] == ["1/5", "2/5", "3/5", "4/5"]
    assert read_config(tmp_path / "out" / "run.json") == config
    assert config.name == "ebseg-families"
    assert config.fresh_decoder
    classes = json.loads((tmp_path / "out" / "storybook" / "classes.json").read_text())
    assert "steam boat" in json.dumps(classes)
