"""Pretraining CLIP: batches say what is true, and a short run is whole and repeatable."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from model import TrainingClasses
from model.network.build import LOGIT_SCALE, build
from model.network.pictures import CLIP_FRACTIONS
from tests.pretended import pretended_device
from tests.training.run.runs import micro_config
from training import encoders
from training.storybook.classes import CLASSES, STORYBOOK
from training.storybook.pretrain.clip import (
    ClipPretraining,
    _loss,
    _optimiser,
    _Sheet,
    _split,
    _start,
    _texts,
    _tiles,
    cosine,
    pretrain_clip,
)
from training.storybook.pretrain.clip_model import WordsInUse, open_clip_model
from training.storybook.pretrain.pictures import Pool

SIDE = 48
CPU = torch.device("cpu")
SHORT = ClipPretraining(steps=3, cuts=4, sheets=2, cut_side=16, warm_up=1)


@pytest.fixture(scope="module", autouse=True)
def _one_tokenizer() -> Iterator[None]:
    """open_clip's tokenizer takes half a second to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_clip, "SimpleTokenizer", functools.cache(open_clip.SimpleTokenizer))
        yield


@pytest.fixture(scope="module")
def data() -> Pool:
    """Six pictures of vertical bands, 5 grey levels a class: what a cut shows can be read off it."""
    rng = np.random.default_rng(0)
    bands = rng.integers(0, len(CLASSES), (6, 16), dtype=np.uint8)
    labels = np.repeat(np.repeat(bands, SIDE // 16, axis=1)[:, None], SIDE, axis=1)
    mentioned = np.stack([np.bincount(row, minlength=len(CLASSES)) > 0 for row in bands])
    pictures = np.repeat(5 * labels[..., None], 3, axis=3)
    return Pool(pictures=pictures, labels=labels, mentioned=mentioned, captions=[""] * 6)


def named(*pictures: tuple[str, ...]) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.array([[name in shown for name in CLASSES] for shown in pictures])


def test_the_learning_rate_warms_up_and_falls_to_a_fiftieth() -> None:
    assert [cosine(step, 4, 104) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert cosine(4, 4, 104) == pytest.approx(1.0)
    assert cosine(54, 4, 104) == pytest.approx(0.51)
    assert cosine(104, 4, 104) == pytest.approx(0.02)
    falling = [cosine(step, 4, 104) for step in range(4, 105)]
    assert (np.diff(falling) < 0).all()
    assert cosine(0, 0, 1) == 1.0


def test_texts_are_true_of_the_pictures_that_show_all_they_mention() -> None:
    shown = named(("grass", "house"), ("grass",), ("grass", "house"), ("grass", "house", "sky"))
    texts, true = _texts(shown, CLASSES, np.random.default_rng(0))
    assert true.shape == (4, len(texts))
    for text, column in zip(texts, true.T.tolist(), strict=True):
        wanted = [
            all(name not in text.lower().split() or name in picture for name in ("grass", "house", "sky"))
            for picture in (("grass", "house"), ("grass",), ("grass", "house"), ("grass", "house", "sky"))
        ]
        assert column == wanted, text
    for name in ("grass", "house", "sky"):  # each has a prompt of its own
        assert any(
            {word for word in ("grass", "house", "sky") if word in text.split()} == {name} for text in texts
        )
    assert true.any(dim=0).all()
    assert true.any(dim=1).all()


def test_texts_vary_with_the_random_numbers_only() -> None:
    shown = named(("grass", "tent"), ("net",))
    first, again, other = (_texts(shown, CLASSES, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def sheet(data: Pool, side: int, parts: tuple[int, int], seed: int, **settings: float) -> _Sheet:
    chosen = dataclasses.replace(SHORT, **settings)  # type: ignore[arg-type]
    return _Sheet(data, side, parts, chosen, np.random.default_rng(seed))


def test_a_cut_shows_what_its_caption_names(data: Pool) -> None:
    """A quarter of a picture is cut out; the pixels of the cut say which classes it shows."""
    before = data.pictures.tobytes() + data.labels.tobytes()
    mirrored, places = 0, set()
    rows = [labels[0].astype(int).tolist() for labels in data.labels]
    for seed in range(32):
        cut = sheet(data, SIDE // 2, (1, 1), seed, nearest=1.0, farthest=1.0)
        assert cut.picture.shape == (3, SIDE // 2, SIDE // 2)
        assert cut.tiles == [(0, SIDE // 2, 0, SIDE // 2)]
        labels = (255 * cut.picture[0] / 5).round().long().numpy()
        shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
        assert (cut.named[0] == (shares >= SHORT.mentioned)).all()
        row = labels[0].tolist()
        starts = [(i, x) for i, whole in enumerate(rows) for x in range(SIDE // 2 + 1)]
        there = [(i, x) for i, x in starts if rows[i][x : x + len(row)] == row]
        back = [(i, x) for i, x in starts if rows[i][x : x + len(row)] == row[::-1]]
        assert there or back
        mirrored += bool(back) and not there
        places.add((there or back)[0])
    assert 6 < mirrored < 26  # half of 32
    assert len(places) > 15
    assert data.pictures.tobytes() + data.labels.tobytes() == before


def test_cuts_are_magnified_or_shrunk_to_their_side(data: Pool) -> None:
    """A cut can be no more than the picture; the largest class is named however little it covers."""
    shares = np.stack([np.bincount(x.ravel(), minlength=len(CLASSES)) for x in data.labels]) / SIDE**2
    whole = sheet(data, 16, (1, 1), 0, nearest=1 / 3, farthest=1 / 3)
    assert any((whole.named[0] == (row >= SHORT.mentioned)).all() for row in shares)
    few = sheet(data, 16, (1, 1), 0, nearest=1 / 3, farthest=1 / 3, mentioned=1.0)
    assert any((few.named[0] == (row == row.max())).all() for row in shares)
    near = sheet(data, 16, (1, 1), 0, nearest=16.0, farthest=16.0)
    assert near.named.sum() == 1  # one pixel fills the cut
    assert near.picture.std(dim=(1, 2)).max() < 1e-5


def test_a_sheet_is_sewn_of_cuts_that_fill_it(data: Pool) -> None:
    for seed in range(10):
        sewn = sheet(data, SIDE, (2, 3), seed, nearest=1.0, farthest=1.0)
        covered = np.zeros((SIDE, SIDE), int)
        for (top, bottom, left, right), shown in zip(sewn.tiles, sewn.named, strict=True):
            covered[top:bottom, left:right] += 1
            assert bottom - top >= SIDE / 5
            assert right - left >= SIDE / 5
            labels = (255 * sewn.picture[0, top:bottom, left:right] / 5).round().long().numpy()
            shares = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
            assert (shown == (shares >= min(SHORT.mentioned, shares.max()))).all()
        assert (covered == 1).all()


def test_borders_fall_between_patches() -> None:
    rng = np.random.default_rng(0)
    for parts in (1, 2, 3):
        for _ in range(20):
            pieces = _split(128, parts, rng)
            assert len(pieces) == parts
            assert (pieces[0][0], pieces[-1][1]) == (0, 128)
            assert all(end == start for (_, end), (start, _) in itertools.pairwise(pieces))
            assert all(edge % 8 == 0 for piece in pieces for edge in piece)
            assert all(end - start >= 26 for start, end in pieces)


def test_tiles_say_which_patches_belong_to_a_cut(data: Pool) -> None:
    sheets = [sheet(data, SIDE, parts, 1) for parts in ((1, 1), (2, 1))]
    inside = _tiles(sheets, 8)
    assert inside.shape == (2, 2, 36)
    assert inside[0, 0].all()
    assert not inside[0, 1].any()  # that sheet has one cut only
    edge = sheets[1].tiles[0][1] // 8
    assert torch.equal(inside[1, 0].view(6, 6)[:, 0], torch.arange(6) < edge)
    assert torch.equal(inside[1, 1], ~inside[1, 0])


def test_rare_classes_are_shown_about_as_often() -> None:
    mentioned = np.array([[True, False]] * 9 + [[False, True]])
    blank = np.zeros((10, 8, 8), np.uint8)
    pool = Pool(pictures=blank[..., None], labels=blank, mentioned=mentioned, captions=[""] * 10)
    assert pool.odds[-1] == 1.0
    assert pool.odds[8] == pytest.approx(0.5, abs=1e-5)


def test_words_are_rows_of_the_whole_table_and_go_back_to_it() -> None:
    clip = open_clip_model(micro_config().clip)
    whole = clip.token_embedding.weight.detach().clone()
    words = WordsInUse(clip, 32, STORYBOOK)
    texts, _ = _texts(named(("tent", "starry sky"), ("corn field",)), CLASSES, np.random.default_rng(0))
    small = clip.token_embedding
    assert small.num_embeddings < 400
    tokens = open_clip.SimpleTokenizer(context_length=32)(texts)
    assert torch.equal(small(words.tokens(texts)), whole[tokens])
    assert torch.equal(words.tokens(texts).argmax(dim=1), tokens.argmax(dim=1))  # where the end is
    with torch.no_grad():
        small.weight.add_(1)
    words.give_back(clip)
    changed = (clip.token_embedding.weight != whole).any(dim=1)
    assert clip.token_embedding.weight.shape == whole.shape
    assert changed.sum() == small.num_embeddings
    torch.testing.assert_close(clip.token_embedding.weight[tokens], whole[tokens] + 1)


def test_the_first_layer_starts_as_a_whitening() -> None:
    """Its outputs over patches have equal variances and no correlation, as far as the pictures vary."""
    clip = open_clip_model(micro_config().clip)
    pictures = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
    noise = Pool(
        pictures=pictures, labels=pictures[..., 0], mentioned=np.ones((40, 1), bool), captions=[""] * 40
    )
    _start(clip, noise)
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_FRACTIONS.mean, CLIP_FRACTIONS.std))
    normed = (images - mean) / std
    with torch.no_grad():
        found = torch.cov(clip.visual.conv1(normed).transpose(0, 1).flatten(1))
    torch.testing.assert_close(found, torch.eye(len(found)), atol=0.01, rtol=0)
    assert clip.logit_scale.item() == pytest.approx(math.log(1 / 0.07))


def test_the_loss_is_a_cross_entropy_in_both_directions() -> None:
    eye = torch.eye(2)
    one_each = torch.eye(2, dtype=torch.bool)
    loss, right = _loss(torch.tensor(3.0), 5 * eye, eye, one_each)  # lengths don't count
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-3)))
    assert right == 1.0
    loss, right = _loss(torch.tensor(3.0), eye, eye.flip(0), one_each)
    assert loss.item() == pytest.approx(3 + math.log(1 + math.exp(-3)))
    assert right == 0.0


def test_equal_captions_are_positives_of_each_other() -> None:
    same = F.normalize(torch.ones(2, 4), dim=-1)
    loss, right = _loss(torch.tensor(7.0), same, same, torch.ones(2, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(2))  # spread evenly over both, the least there is
    assert right == 1.0


def test_on_another_device_it_learns_the_same(
    data: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.precision.cpu_amp", lambda: "off")  # as the pretended one computes
    with pretended_device() as device:
        found = []
        for place in (CPU, device):
            pretrain_clip(micro_config(), data, SHORT, path := tmp_path / f"{place.type}.safetensors", place)
            found.append(safetensors.torch.load_file(path))
    for name, wanted in found[0].items():
        assert (found[1][name] - wanted).abs().max().item() <= 1e-3, name  # three steps of 6e-4


def test_the_text_table_norms_and_biases_do_not_decay() -> None:
    clip = open_clip_model(micro_config().clip)
    decayed, kept = _optimiser(clip, SHORT).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (SHORT.weight_decay, 0.0)
    assert len(decayed["params"]) + len(kept["params"]) == len(list(clip.parameters()))
    assert any(parameter is clip.token_embedding.weight for parameter in kept["params"])
    assert all(parameter.dim() > 1 for parameter in decayed["params"])


def test_a_short_run_writes_a_clip_and_is_repeatable(data: Pool, tmp_path: Path) -> None:
    config = micro_config()
    paths = [tmp_path / f"{name}.safetensors" for name in ("first", "again", "other")]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        pretrain_clip(config, data, dataclasses.replace(SHORT, seed=seed), path, CPU)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    assert sorted(tmp_path.iterdir()) == sorted(paths)  # nothing partial is left

    state = safetensors.torch.load_file(paths[0])
    torch.manual_seed(SHORT.seed)
    clip = open_clip_model(config.clip)
    start = {name: value.clone() for name, value in clip.state_dict().items()}
    fit = clip.load_state_dict(state, strict=False)
    assert fit.unexpected_keys == []
    assert set(fit.missing_keys) <= {"attn_mask"}
    for name in ("visual.conv1.weight", "visual.proj", "text_projection", "logit_scale"):
        assert torch.isfinite(state[name]).all()
        assert not torch.equal(state[name], start[name])
    assert 0 <= state["logit_scale"].item() <= LOGIT_SCALE
    used = (state["token_embedding.weight"] != start["token_embedding.weight"]).any(dim=1).sum()
    assert 20 < used < 400  # of 49,408 rows, those that captions and prompts use

    ebseg = build(config, TrainingClasses.of(CLASSES), seed=7)
    encoders.load_clip(ebseg, paths[0])
    assert torch.equal(ebseg.clip_image.conv1.weight, state["visual.conv1.weight"])
