"""open_clip's model in our sizes: made, of few words while it is trained, saved."""

from pathlib import Path

import numpy as np
import open_clip
import safetensors.torch
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

from model.network.build import LOGIT_SCALE
from model.network.config import ClipConfig
from model.storage.files import replacing
from model.vocabulary.templates import VILD
from training.storybook.classes import Book
from training.storybook.scene import caption, phrase

TEMPLATES = (*VILD, "{}", "{}", "{}")  # of the prompts


def open_clip_model(config: ClipConfig) -> open_clip.CLIP:
    """A whole CLIP of these sizes, with random weights."""
    return open_clip.CLIP(
        embed_dim=config.joint_width,
        vision_cfg=CLIPVisionCfg(
            layers=config.image_layers,
            width=config.image_width,
            head_width=config.image_width // config.image_heads,
            patch_size=config.patch_size,
            image_size=config.image_size,
        ),
        text_cfg=CLIPTextCfg(
            context_length=config.context_length,
            vocab_size=config.text_vocabulary,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
        ),
        quick_gelu=True,
        init_logit_scale=LOGIT_SCALE,
    )


class WordsInUse:
    """The rows of the text table that a book's texts use: only they are learned, the rest stays random.

    Args:
        clip: its table is replaced by the used rows until `give_back`.
        context: tokens of a text.
        book: of the texts.
    """

    def __init__(self, clip: open_clip.CLIP, context: int, book: Book):
        self._tokenizer = open_clip.SimpleTokenizer(context_length=context)
        self._whole = clip.token_embedding
        rng, classes = np.random.default_rng(0), book.classes
        texts = [template.format(text) for template in TEMPLATES for c in classes for text in (c, phrase(c))]
        texts += [caption(rng, [a, *classes[:3], *classes[-3:]]) for a in classes]
        self._used = self._tokenizer(texts).unique()
        clip.token_embedding = nn.Embedding(len(self._used), self._whole.embedding_dim)
        with torch.no_grad():
            clip.token_embedding.weight.copy_(self._whole.weight[self._used])

    def tokens(self, texts: list[str]) -> Tensor:
        """Rows of the small table, int64 [texts, context]; the end token keeps the largest number."""
        tokens = self._tokenizer(texts)
        rows = torch.searchsorted(self._used, tokens)
        assert torch.equal(self._used[rows.clamp_max(len(self._used) - 1)], tokens)
        return rows

    @torch.no_grad()
    def give_back(self, clip: open_clip.CLIP) -> None:
        """Puts the whole table back, with what was learned."""
        self._whole.weight[self._used] = clip.token_embedding.weight.cpu()
        clip.token_embedding = self._whole


def save(clip: open_clip.CLIP, out: Path) -> None:
    """Writes the state, whole or not at all."""
    state = {
        name: value.cpu().contiguous() for name, value in clip.state_dict().items() if name != "attn_mask"
    }
    with replacing(out) as partial:
        safetensors.torch.save_file(state, partial)
