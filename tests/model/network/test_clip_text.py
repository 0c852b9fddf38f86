"""The text tower against open_clip's own: each prompt alone, padded to the whole context, all layers."""

import copy

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from model import EBSeg
from model.network import clip_text
from model.network.clip_text import ClipTextEncoder
from model.network.kernels import ByDevice
from model.vocabulary.templates import IMAGENET, PLAIN, VILD

TOLERANCE = 1e-12  # of float64
CONTEXT = 32  # of the tiny variant
LONG = " ".join(["very"] * 60) + " long name"

NAMES = [
    "cat",
    "traffic light",
    "door-frame",
    "a",
    "sky, clouds",
    "tree trunk",
    "Zebra",
    "猫",
    "{}",
    "cat 🐈",
]


@pytest.fixture(scope="module")
def ours(uneven: EBSeg) -> ClipTextEncoder:
    return copy.deepcopy(uneven.clip_text).double()


@pytest.fixture(scope="module")
def theirs(uneven: EBSeg) -> open_clip.CLIP:
    """open_clip's CLIP with our text tower's weights; its image tower is not used."""
    config = uneven.config.clip
    clip = open_clip.CLIP(
        embed_dim=config.joint_width,
        vision_cfg=CLIPVisionCfg(layers=1, width=64, head_width=64, patch_size=16, image_size=16),
        text_cfg=CLIPTextCfg(
            context_length=config.context_length,
            vocab_size=config.text_vocabulary,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
        ),
        quick_gelu=True,
    )
    weights = {
        name.replace("blocks.", "transformer.resblocks."): tensor
        for name, tensor in uneven.clip_text.state_dict().items()
    }
    missing, unexpected = clip.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith("visual.") for name in missing)
    return clip.double().eval()


@torch.no_grad()
def plainly(theirs: open_clip.CLIP, names: list[str], templates: tuple[str, ...]) -> Tensor:
    """Prompt after prompt: unit embedding, mean over templates, unit again."""
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
    rows = []
    for name in names:
        embeddings = []
        for template in templates:
            tokens = tokenizer([template.replace("{}", name)])
            assert tokens.shape == (1, CONTEXT)
            embeddings.append(F.normalize(theirs.encode_text(tokens)[0], dim=0))
        rows.append(F.normalize(torch.stack(embeddings).mean(0), dim=0))
    return torch.stack(rows)


def error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max())


@pytest.mark.parametrize(
    ("names", "templates"),
    [
        (NAMES, VILD),
        (NAMES, PLAIN),
        (NAMES[:3], IMAGENET),
        (["cat"], VILD),
        (["cat"], ("{}",)),
        (["cat", "dog", "dogs and cats"], ("{}", "{} {}", "the {}, {} and {}.")),
        # longer than the context: cut, with the end token kept
        ([LONG], VILD),
        (["cat", LONG, LONG + " too", "dog"], VILD),
        # prompts that are equal up to the cut
        ([LONG, LONG + " too"], PLAIN),
        # one prompt begins with the whole of another
        (["cat", "cat.", "cat. cat", "cat. cat."], ("{}", "a {}")),
        # the tower reads the first end token
        (["cat <end_of_text> dog", "cat", "<end_of_text>", "<start_of_text> cat"], VILD),
        (["<end_of_text>", "<end_of_text> cat"], ("{}",)),
        # the template's own text may be cut as well
        (["cat", "dog"], (" ".join(["wide"] * 40) + " {}", "{} " + " ".join(["wide"] * 40))),
    ],
)
def test_equals_open_clip(
    names: list[str], templates: tuple[str, ...], ours: ClipTextEncoder, theirs: open_clip.CLIP
) -> None:
    found = ours.encode(names, templates)
    assert error(found.norm(dim=-1), torch.ones(len(names))) <= TOLERANCE
    assert error(found, plainly(theirs, names, templates)) <= TOLERANCE


def test_names_that_mean_the_same_prompt(ours: ClipTextEncoder) -> None:
    found = ours.encode([LONG, LONG + " too", "cat <end_of_text> dog", "cat <end_of_text>"], ("{}",))
    assert error(found[0], found[1]) <= TOLERANCE
    assert error(found[2], found[3]) <= TOLERANCE
    assert error(found[0], found[2]) > 1e-2


def test_float32_is_near(uneven: EBSeg, theirs: open_clip.CLIP) -> None:
    found = uneven.encode_text(NAMES)
    assert found.dtype == torch.float32
    assert error(found.double(), plainly(theirs, NAMES, VILD)) <= 2e-6


def test_company_does_not_matter(uneven: EBSeg) -> None:
    """A class's embedding may be kept and used in another vocabulary."""
    names = [*NAMES, LONG]
    together = uneven.encode_text(names)
    backwards = uneven.encode_text(names[::-1])
    assert error(backwards.flip(0), together) <= 1e-6
    for i in (0, 4, len(names) - 1):
        assert error(uneven.encode_text([names[i]])[0], together[i]) <= 1e-6


def test_doubled_names_have_one_embedding(uneven: EBSeg) -> None:
    found = uneven.encode_text(["cat", "dog", "cat"])
    assert error(found[0], found[2]) <= 1e-6
    assert error(found[0], found[1]) > 1e-3


def test_work_is_bounded_by_passes(
    ours: ClipTextEncoder, theirs: open_clip.CLIP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many prompts go in several passes, which share nothing but the result."""
    names = [f"thing {i}" for i in range(30)] + NAMES
    wanted = plainly(theirs, names, VILD[:3])
    for limit in (1, 17, 64, 1000):
        monkeypatch.setattr(clip_text, "TOKENS_AT_ONCE", ByDevice(cpu=limit, cuda=limit))
        assert error(ours.encode(names, VILD[:3]), wanted) <= TOLERANCE


def test_no_gradient(uneven: EBSeg) -> None:
    assert not uneven.encode_text(["cat"]).requires_grad


def test_default_templates_are_those_of_the_training(uneven: EBSeg) -> None:
    assert len(VILD) == 14
    assert torch.equal(uneven.encode_text(NAMES), uneven.encode_text(NAMES, VILD))
    assert error(uneven.encode_text(NAMES), uneven.encode_text(NAMES, PLAIN)) > 1e-3
