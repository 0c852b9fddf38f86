"""Pretrains the tiny CLIP on Storybook's pictures and captions.

A contrastive loss between the pictures of a batch and its texts: every caption once, and for each class
that the batch mentions one prompt with its name. A text is true of a picture if the picture shows all that
it mentions, so equal captions are positives of each other. The loss is taken twice: on the class token, as
CLIP does, and on the mean of the surgery path's pixels. At this size and in minutes the pixels would
otherwise hardly learn to speak for themselves, as those of a CLIP that saw 400 million pictures do.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from model.network.build import LOGIT_SCALE, image_parts
from model.network.config import EBSegConfig
from model.network.copies import copies_of
from model.network.pictures import CLIP_FRACTIONS, normalise
from training.progress import progress
from training.run.precision import quick_autocast
from training.storybook.pretrain.clip_model import TEMPLATES, WordsInUse, open_clip_model, save
from training.storybook.pretrain.pictures import OUTSIDE, Pool
from training.storybook.scene import caption, phrase

FIRST_SCALE = math.log(1 / 0.07)  # of the logits, CLIP's start; a hundredfold is the most, as in CLIP
WHITENED = 500  # pictures whose patches the first layer is made to whiten
STEP = 8  # pixels; sheets are sewn along the borders of patches
PLACES = 0.3  # amplitude of the position table's sines


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPretraining:
    """Settings of the pretraining.

    Attributes:
        steps: in all.
        learning_rate, weight_decay, warm_up: AdamW, cosine schedule; warm-up in steps.
        cut_side, cuts: the first steps see so many small cuts of so many pixels, which cost little and show
            one or two classes; there names are learned.
        cut_steps: share of the steps that do.
        sheets: the other steps see so many sheets of CLIP's own size, each sewn of up to nine cuts. Every
            cut has its own caption, and its own part of the pixels and of the mask attention has to agree
            with it; there pixels learn to speak for their place and not for the whole picture.
        nearest, farthest: what a cut is magnified by at most and at least before it is seen.
        mentioned: share of a cut that a class covers for the cut's caption to mention it.
    """

    steps: int = 18_000
    learning_rate: float = 6e-4
    weight_decay: float = 0.1
    warm_up: int = 300
    cut_side: int = 64
    cuts: int = 16
    cut_steps: float = 0.6
    sheets: int = 8
    nearest: float = 1.25
    farthest: float = 0.8
    mentioned: float = 0.08
    seed: int = 0


def pretrain_clip(
    config: EBSegConfig, data: Pool, settings: ClipPretraining, out: Path, device: torch.device
) -> None:
    """Trains a CLIP from nothing on a device, and writes its open_clip state to `out` (safetensors)."""
    torch.manual_seed(settings.seed)
    clip = open_clip_model(config.clip)
    _start(clip, data)
    words = WordsInUse(clip, config.clip.context_length, data.book)
    image, attention = image_parts(clip.to(device).visual, config)
    copies = copies_of(device)
    optimiser = _optimiser(clip, settings)
    rng = np.random.default_rng(settings.seed)
    with progress("pretraining CLIP", settings.steps, unit="steps") as bar:
        for step in range(settings.steps):
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * cosine(step, settings.warm_up, settings.steps)
            if step < settings.cut_steps * settings.steps:
                sheets = [
                    _Sheet(data, settings.cut_side, (1, 1), settings, rng) for _ in range(settings.cuts)
                ]
            else:
                parts = rng.integers(1, 4, (settings.sheets, 2))
                side = config.clip.image_size
                sheets = [_Sheet(data, side, (int(r), int(c)), settings, rng) for r, c in parts]
            named = np.concatenate([sheet.named for sheet in sheets])
            texts, true = _texts(named, data.book.classes, rng)
            pictures, inside, tokens, true = copies.upload(
                [
                    torch.stack([sheet.picture for sheet in sheets]),
                    _tiles(sheets, config.clip.patch_size),
                    words.tokens(texts),
                    true,
                ]
            )
            with quick_autocast(device):
                features = image(normalise(pictures, CLIP_FRACTIONS), True)
                bias = torch.where(inside, 0.0, OUTSIDE)[:, None].expand(-1, config.clip.image_heads, -1, -1)
                by_attention, pixels = attention(features, bias)
                read = clip.encode_text(tokens)
            by_pixels = inside.float() @ pixels.float().flatten(2).transpose(1, 2)
            real = inside.any(2)
            scored = [_loss(clip.logit_scale.exp(), x[real], read, true) for x in (by_attention, by_pixels)]
            loss = torch.stack([loss for loss, _ in scored]).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
            optimiser.step()
            with torch.no_grad():
                clip.logit_scale.clamp_(0, LOGIT_SCALE)
            bar.advance(1, loss=loss.item(), B=scored[0][1], D=scored[1][1])
    words.give_back(clip)
    save(clip, out)


@torch.no_grad()
def _start(clip: open_clip.CLIP, data: Pool) -> None:
    """First values from which a small transformer learns textures in minutes.

    CLIP's own first logit scale; sines for places; and a first layer that whitens: it looks for the
    directions in which patches differ most, each divided by how much they do. Left to chance, it would
    pass on colour, which varies most and tells nothing here, and hardly any pattern.
    """
    clip.logit_scale.fill_(FIRST_SCALE)
    filters = clip.visual.conv1.weight
    size = filters.shape[-1]
    chosen = torch.from_numpy(data.pictures[:: max(1, len(data) // WHITENED)].copy()).permute(0, 3, 1, 2)
    patches = (
        F.unfold(normalise(chosen / 255, CLIP_FRACTIONS), size, stride=size).transpose(1, 2).flatten(0, 1)
    )
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))
    most = variances.topk(min(len(filters), len(variances))).indices
    whitening = directions[:, most] / (variances[most] + 1e-3).sqrt()
    filters[: len(most)] = whitening.T.unflatten(1, filters.shape[1:])
    table = clip.visual.positional_embedding
    side, quarter = math.isqrt(len(table) - 1), table.shape[1] // 4
    turns = torch.arange(side)[:, None] * 100.0 ** -(torch.arange(quarter) / quarter)
    waves = torch.cat([turns.sin(), turns.cos()], 1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves.expand(side, -1, -1)
    table[1:] = PLACES * torch.cat([rows, columns], 2).flatten(0, 1)


def _optimiser(clip: open_clip.CLIP, settings: ClipPretraining) -> torch.optim.AdamW:
    """AdamW; the text table, norms and biases don't decay."""
    table = clip.token_embedding.weight
    decayed = [x for x in clip.parameters() if x.dim() > 1 and x is not table]
    kept = [x for x in clip.parameters() if x.dim() <= 1 or x is table]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.98), eps=1e-6
    )


def cosine(step: int, warm_up: int, steps: int) -> float:
    """Share of the learning rate: a straight warm-up, then half a cosine down to a fiftieth."""
    if step < warm_up:
        return (step + 1) / warm_up
    share = (step - warm_up) / max(1, steps - warm_up)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))


class _Sheet:
    """Cuts of several scenes, sewn together in rows and columns of uneven sizes.

    Args:
        data: the scenes.
        side: pixels of the sheet.
        parts: rows and columns.
        settings: size of the cuts' patterns, and what captions mention.
        rng: decides everything.

    Attributes:
        picture: [3, side, side], 0..1.
        tiles: (top, bottom, left, right) of each cut, pixels.
        named: what the caption of each cut mentions, [tiles, classes].
    """

    def __init__(
        self,
        data: Pool,
        side: int,
        parts: tuple[int, int],
        settings: ClipPretraining,
        rng: np.random.Generator,
    ):
        rows, columns = (_split(side, part, rng) for part in parts)
        self.tiles = [(*row, *column) for row in rows for column in columns]
        picture = np.empty((side, side, 3), np.uint8)
        count = len(data.book.classes)
        self.named = np.empty((len(self.tiles), count), bool)
        whole = data.pictures.shape[1]
        for i, (top, bottom, left, right) in enumerate(self.tiles):
            height, width = bottom - top, right - left
            scale = max(rng.uniform(settings.farthest, settings.nearest), height / whole, width / whole)
            high, wide = int(height / scale), int(width / scale)
            scene = int(np.searchsorted(data.odds, rng.random()))
            y, x = rng.integers(0, whole - high + 1), rng.integers(0, whole - wide + 1)
            step = -1 if rng.random() < 0.5 else 1
            cut = data.pictures[scene, y : y + high, x : x + wide][:, ::step]
            picture[top:bottom, left:right] = cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR)
            shown = data.labels[scene, y : y + high, x : x + wide]
            shares = np.bincount(shown.ravel(), minlength=count) / shown.size
            self.named[i] = shares >= min(settings.mentioned, shares.max())
        self.picture = torch.from_numpy(picture).permute(2, 0, 1) / 255


def _split(side: int, parts: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """A side in parts of whole patches, none less than a fifth; (start, end) of each."""
    while True:
        inner = np.sort(rng.integers(1, side // STEP, parts - 1)) * STEP
        ends = [0, *inner.tolist(), side]
        if min(np.diff(ends)) >= side / 5:
            return list(itertools.pairwise(ends))


def _tiles(sheets: list[_Sheet], patch: int) -> Tensor:
    """Which patches belong to each tile, bool [sheets, most tiles, patches]; missing tiles have none."""
    grid = sheets[0].picture.shape[-1] // patch
    inside = torch.zeros(len(sheets), max(len(sheet.tiles) for sheet in sheets), grid, grid, dtype=torch.bool)
    for i, sheet in enumerate(sheets):
        for j, tile in enumerate(sheet.tiles):
            top, bottom, left, right = (edge // patch for edge in tile)
            inside[i, j, top:bottom, left:right] = True
    return inside.flatten(2)


def _texts(
    named: NDArray[np.bool_], classes: Sequence[str], rng: np.random.Generator
) -> tuple[list[str], Tensor]:
    """Texts of a batch, and of which pictures they are true, bool [pictures, texts]."""
    texts = {}
    for row in named:
        texts[caption(rng, [classes[c] for c in np.flatnonzero(row).tolist()])] = row
    for c in np.flatnonzero(named.any(0)).tolist():
        template = TEMPLATES[rng.integers(len(TEMPLATES))]
        name = classes[c] if rng.random() < 0.8 else phrase(classes[c])
        texts[template.format(name)] = np.arange(len(classes)) == c
    wanted = np.stack(list(texts.values()))
    true = (named[:, None] >= wanted[None]).all(2)
    return list(texts), torch.from_numpy(true)


def _loss(scale: Tensor, seen: Tensor, read: Tensor, true: Tensor) -> tuple[Tensor, float]:
    """Cross entropy in both directions, spread evenly over what is true; and how often the best is."""
    logits = scale * F.normalize(seen.float(), dim=-1) @ F.normalize(read.float(), dim=-1).T
    wanted = true.float()
    by_picture = -(wanted * logits.log_softmax(1)).sum(1) / wanted.sum(1)
    by_text = -(wanted * logits.log_softmax(0)).sum(0) / wanted.sum(0)
    right = true.gather(1, logits.argmax(1, keepdim=True)).float().mean().item()
    return (by_picture.mean() + by_text.mean()) / 2, right
