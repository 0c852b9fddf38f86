"""What to know before an answer is trusted: words that a model does not know, pictures unlike its own."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from model.confidence.card import Card
from model.network.tokenizer import cut_words
from model.pictures.tiff_bands import BandsRemark
from model.vocabulary.classes import ClassName
from model.vocabulary.reading import as_read, is_foreign

Code = Literal[
    "untrained",
    "unknown-words",
    "unlike-its-domain",
    "cut-names",
    "foreign-script",
    "joined-names",
    "lowered-timeout",
    "colour-profile",
    "bands",
]
RARE = 0.01  # pictures of its own domain whose confidence is lower; such an answer is warned of
MOST_NAMED = 3  # unknown words
MOST_LETTERS = 40  # of each
MOST_JOINED = 12  # words of a name that is looked at as a list without commas
_ARTICLE = re.compile(r"^(a|an|the) ")
_PLURALS = (
    ("ies", "y"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("sses", "ss"),
    ("xes", "x"),
    ("ss", "ss"),
    ("s", ""),
)


@dataclass(frozen=True, slots=True)
class AnswerWarning:
    """A warning: a code for programs, and a sentence that says what to do."""

    code: Code
    message: str


def untrained(name: str) -> AnswerWarning:
    """Of random weights."""
    return AnswerWarning(
        "untrained",
        f"{name} is untrained: its weights are random and its masks mean nothing; take another model.",
    )


def lowered_timeout(asked: int, most: int) -> AnswerWarning:
    """Of a request that asked for more time than the service gives, both in milliseconds."""
    return AnswerWarning(
        "lowered-timeout",
        f"timeout_ms was {asked}, and this service gives a request {most} ms at the most: it had those.",
    )


def of_picture(remark: str) -> AnswerWarning:
    """Of a picture whose colour profile or bands could not be used as they are, as the decoder says it."""
    code: Code = "bands" if isinstance(remark, BandsRemark) else "colour-profile"
    return AnswerWarning(code, f"{remark[:1].upper()}{remark[1:]}.")


def cautions(
    name: str, card: Card | None, classes: Sequence[ClassName], trained: Sequence[bool], own: float | None
) -> tuple[AnswerWarning, ...]:
    """What the card says against an answer; nothing where it says nothing.

    Args:
        name: of the model.
        card: of its checkpoint.
        classes: that were asked for.
        trained: which of them count as trained, and so are known.
        own: how sure the model is of its own words in the picture, see `domain.OwnWords`.
    """
    if card is None:
        return ()
    narrow = not isinstance(card.words, str)
    found = []
    unknown = _unknown(card, classes, trained)
    if unknown:
        several = len(unknown) > 1
        found.append(
            AnswerWarning(
                "unknown-words",
                f"{_listed(unknown)} {'are no words' if several else 'is no word'} that {name} knows; ask "
                "for words of its card (GET /v1/models), or take the released weights, which know any noun "
                "(ebseg pull base).",
            )
        )
    least = dict(card.confidence or ()).get(RARE)
    if own is not None and least is not None and own < least:
        instead = "the released weights (ebseg pull base)" if narrow else "a model made for such images"
        found.append(
            AnswerWarning(
                "unlike-its-domain",
                f"The image is unlike those that {name} is for ({_cut(card.domain, 200)}), and its mask "
                f"may mean nothing; take {instead}.",
            )
        )
    return tuple(found)


def cautions_of_prompts(
    card: Card | None,
    classes: Sequence[ClassName],
    trained: Sequence[bool],
    templates: Sequence[str],
    context_length: int,
) -> tuple[AnswerWarning, ...]:
    """What there is to say of names that the text tower cannot read, or not to their end.

    Args:
        card: of the checkpoint, which may list the words that it knows.
        classes, templates: that were asked for.
        trained: which of them count as trained, and so were read in training.
        context_length: of the text tower, tokens.
    """
    found = []
    words = [word for item in classes for word in (item.name, *item.prompts)]
    read = cut_words(tuple(map(as_read, words)), tuple(templates), context_length)
    if read.cut:
        several = len(read.cut) > 1
        same = "".join(
            f" {_listed([words[one], words[other]])} are one class to it, of which the second is never found."
            for one, other in read.same[:1]
        )
        found.append(
            AnswerWarning(
                "cut-names",
                f"{_listed([words[place] for place in read.cut])} {'are' if several else 'is'} too long: "
                f"the model reads {context_length - 2} tokens of a name in its template, and not the rest."
                f"{same} Give shorter names, or templates.",
            )
        )
    listed = card is not None and not isinstance(card.words, str)  # whose unknown words are told already
    pairs = zip(classes, trained, strict=True)
    foreign = [item.name for item, sure in pairs if not (sure or listed) and is_foreign(item.name)]
    if foreign:
        found.append(
            AnswerWarning(
                "foreign-script",
                f"{_listed(foreign)} {'are' if len(foreign) > 1 else 'is'} in no Latin letters, and CLIP has "
                "read little but English; give English names.",
            )
        )
    return tuple(found)


def caution_of_joined(
    classes: Sequence[ClassName], trained: Sequence[bool], training_words: tuple[str, ...], asked: int
) -> tuple[AnswerWarning, ...]:
    """What there is to say of a name that reads like a list without commas: of one class, or three words.

    Args:
        classes: of the answer.
        trained: which of them count as trained.
        training_words: of the classes that the weights were trained on.
        asked: classes that were asked for, seen or not.
    """
    known = _plain_words(training_words)
    for item, sure in zip(classes, trained, strict=True):
        parts = () if sure or item.synonyms else _parted(item.name.split(), known)
        if len(parts) > (1 if asked == 1 else 2):
            meant = _cut(", ".join(parts), 2 * MOST_LETTERS)
            return (
                AnswerWarning(
                    "joined-names",
                    f'"{_cut(item.name, MOST_LETTERS)}" is one class; did you mean "{meant}"? Commas stand '
                    "between classes.",
                ),
            )
    return ()


def _parted(words: Sequence[str], known: frozenset[str]) -> tuple[str, ...]:
    """Known names that follow each other, the longest first; none if there is a word of none."""
    parts, at = [], 0
    while at < len(words) <= MOST_JOINED:
        ends = range(len(words), at, -1)
        end = next((end for end in ends if _plain(" ".join(words[at:end])) in known), at)
        if end == at:
            return ()
        parts.append(" ".join(words[at:end]))
        at = end
    return tuple(parts)


def _unknown(card: Card, classes: Sequence[ClassName], trained: Sequence[bool]) -> list[str]:
    if isinstance(card.words, str):
        return []
    known = _plain_words(card.words)
    return [
        item.name
        for item, sure in zip(classes, trained, strict=True)
        if not sure and known.isdisjoint(_plain(word) for word in (item.name, *item.synonyms))
    ]


@lru_cache(maxsize=16)
def _plain_words(words: Iterable[str]) -> frozenset[str]:
    return frozenset(map(_plain, words))


def _plain(word: str) -> str:
    """A word without case, article and plural, so far as English has rules for them."""
    folded = _ARTICLE.sub("", " ".join(word.casefold().split()))
    for ending, instead in _PLURALS:
        if folded.endswith(ending) and len(folded) > len(ending) + 1:
            return folded[: len(folded) - len(ending)] + instead
    return folded


def _listed(words: Sequence[str]) -> str:
    quoted = [f'"{_cut(word, MOST_LETTERS)}"' for word in words[:MOST_NAMED]]
    more = len(words) - len(quoted)
    if more:
        return f"{', '.join(quoted)} and {more} more"
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
