"""Prompt templates: the sentences that a class name is put into before the text tower reads it.

A class's text embedding is the mean over its templates, so their exact text matters, final dots included.
Only "{}" is ever replaced, literally (`template.replace("{}", name)`), so a class name may hold braces.
"""

import unicodedata
from collections.abc import Sequence

from model.errors import VocabularyError

MAX_TEMPLATES = 100
MAX_TEMPLATE_LENGTH = 200  # characters; the text tower cuts prompts at 77 tokens
_UNUSABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, halves of surrogate pairs, line separators


def has_control(text: str) -> bool:
    """Whether a text holds a character that no prompt can: control, lone surrogate, line separator."""
    return not text.isprintable() and any(unicodedata.category(character) in _UNUSABLE for character in text)


def resolve(templates: str | Sequence[str]) -> tuple[str, ...]:
    """The templates behind a set's name, or a caller's own after a check.

    Args:
        templates: a name of `SETS`, one template, or a list of 1 to 100. A template holds "{}" once
            and no other brace.

    Raises:
        VocabularyError: the set is unknown or a template cannot be used.
    """
    if isinstance(templates, str):
        if templates in SETS:
            return SETS[templates]
        if "{" not in templates:
            raise VocabularyError(
                f"unknown template set {templates[:80]!r}; known are {_known()}, "
                'and a template of your own holds "{}" where the class name goes'
            )
        templates = (templates,)
    if not isinstance(templates, Sequence) or isinstance(templates, bytes):
        raise VocabularyError(
            f"templates must be a set's name ({_known()}) or a list, got {type(templates).__name__}"
        )
    if not 1 <= len(templates) <= MAX_TEMPLATES:
        raise VocabularyError(
            f"between 1 and {MAX_TEMPLATES} templates are needed, got {len(templates)}; "
            f"or name one of the sets {_known()}"
        )
    for index, template in enumerate(templates):
        _check(index, template)
    return tuple(templates)


def _check(index: int, template: object) -> None:
    if not isinstance(template, str):
        raise VocabularyError(f"template {index} must be a string, got {type(template).__name__}")
    if len(template) > MAX_TEMPLATE_LENGTH:
        raise VocabularyError(
            f"template {index} has {len(template)} characters, at most {MAX_TEMPLATE_LENGTH} are allowed"
        )
    if has_control(template):
        raise VocabularyError(f"template {index} holds a control character: {template!r}")
    rest = template.replace("{}", "", 1)
    if rest == template or "{" in rest or "}" in rest:
        raise VocabularyError(
            f'template {index} must hold "{{}}" exactly once and no other brace, got {template!r}; '
            f"or name one of the sets {_known()}"
        )


def _known() -> str:
    return ", ".join(f'"{name}"' for name in SETS)


PLAIN = ("a photo of a {}.",)
"""One sentence, at a fourteenth of the text work of "vild"."""

VILD = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
"""The 14 that EBSeg was trained and evaluated with; they come from ViLD."""

IMAGENET = (
    "a bad photo of a {}.",
    "a photo of many {}.",
    "a sculpture of a {}.",
    "a photo of the hard to see {}.",
    "a low resolution photo of the {}.",
    "a rendering of a {}.",
    "graffiti of a {}.",
    "a bad photo of the {}.",
    "a cropped photo of the {}.",
    "a tattoo of a {}.",
    "the embroidered {}.",
    "a photo of a hard to see {}.",
    "a bright photo of a {}.",
    "a photo of a clean {}.",
    "a photo of a dirty {}.",
    "a dark photo of the {}.",
    "a drawing of a {}.",
    "a photo of my {}.",
    "the plastic {}.",
    "a photo of the cool {}.",
    "a close-up photo of a {}.",
    "a black and white photo of the {}.",
    "a painting of the {}.",
    "a painting of a {}.",
    "a pixelated photo of the {}.",
    "a sculpture of the {}.",
    "a bright photo of the {}.",
    "a cropped photo of a {}.",
    "a plastic {}.",
    "a photo of the dirty {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of the {}.",
    "a photo of the {}.",
    "a good photo of the {}.",
    "a rendering of the {}.",
    "a {} in a video game.",
    "a photo of one {}.",
    "a doodle of a {}.",
    "a close-up photo of the {}.",
    "a photo of a {}.",
    "the origami {}.",
    "the {} in a video game.",
    "a sketch of a {}.",
    "a doodle of the {}.",
    "a origami {}.",
    "a low resolution photo of a {}.",
    "the toy {}.",
    "a rendition of the {}.",
    "a photo of the clean {}.",
    "a photo of a large {}.",
    "a rendition of a {}.",
    "a photo of a nice {}.",
    "a photo of a weird {}.",
    "a blurry photo of a {}.",
    "a cartoon {}.",
    "art of a {}.",
    "a sketch of the {}.",
    "a embroidered {}.",
    "a pixelated photo of a {}.",
    "itap of the {}.",
    "a jpeg corrupted photo of the {}.",
    "a good photo of a {}.",
    "a plushie {}.",
    "a photo of the nice {}.",
    "a photo of the small {}.",
    "a photo of the weird {}.",
    "the cartoon {}.",
    "art of the {}.",
    "a drawing of the {}.",
    "a photo of the large {}.",
    "a black and white photo of a {}.",
    "the plushie {}.",
    "a dark photo of a {}.",
    "itap of a {}.",
    "graffiti of the {}.",
    "a toy {}.",
    "itap of my {}.",
    "a photo of a cool {}.",
    "a photo of a small {}.",
    "a tattoo of the {}.",
)
"""The 80 that CLIP was evaluated with on ImageNet."""

SETS: dict[str, tuple[str, ...]] = {"vild": VILD, "imagenet": IMAGENET, "plain": PLAIN}
"""Template sets by name."""
