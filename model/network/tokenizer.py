"""CLIP's tokenizer, and which words it cuts."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.vocabulary.remembered import remembered

_AROUND = 2  # tokens: start and end
_READ_NAMES_KEPT = 1 << 16  # of class lists that were looked at
_TOKENS_KEPT = 1 << 15  # whose tokens are remembered


@functools.cache
def clip_tokenizer() -> Any:
    """CLIP's tokenizer; all models of a process share it."""
    # imported here, since its module imports torch, which takes seconds: checking a request needs neither
    from model.network.libraries.open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    tokenizer.cache = _Words(tokenizer)
    return tokenizer


class _Words(dict[str, str]):
    """The tokenizer's memory of words, which has no bound of its own: callers send new ones for ever.

    The tokenizer asks whether a word is there and then for the word, while another thread may make room.
    """

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer.cache)
        self._special = frozenset(self)
        self._tokenizer = tokenizer

    def __setitem__(self, word: str, tokens: str) -> None:
        if len(self) >= _TOKENS_KEPT:
            for old in [one for one in tuple(self) if one not in self._special]:
                self.pop(old, None)
        super().__setitem__(word, tokens)

    def __missing__(self, word: str) -> str:
        tokens: str = self._tokenizer.bpe(word)
        return tokens


@dataclass(frozen=True, slots=True)
class CutWords:
    """What the text tower has no room for.

    Attributes:
        cut: words, by their place, of which the longest template leaves a part unread.
        same: among them, those that are one word to the tower, whatever the template: pairs of places.
    """

    cut: tuple[int, ...]
    same: tuple[tuple[int, int], ...]


@remembered(_READ_NAMES_KEPT, lambda words, *_: len(words))  # each picture has the same
def cut_words(words: tuple[str, ...], templates: Sequence[str], context_length: int) -> CutWords:
    """Which words a text tower reads only in part.

    Args:
        words: of a vocabulary, as `Vocabulary.words`.
        templates: a tuple, each holding "{}".
        context_length: tokens of a prompt at most, its start and end among them.
    """
    encode = clip_tokenizer().encode
    room = context_length - _AROUND
    by_length = sorted(templates, key=lambda template: len(encode(template.replace("{}", ""))))
    shortest, longest = by_length[0], by_length[-1]
    least = room - len(longest.encode())  # bytes: a token has one at least
    cut, same = [], []
    first: dict[tuple[int, ...], int] = {}
    for place, word in enumerate(words):
        if len(word.encode()) <= least or len(encode(longest.replace("{}", word))) <= room:
            continue
        cut.append(place)
        tokens = tuple(encode(shortest.replace("{}", word)))
        if (former := first.setdefault(tokens[:room], place)) != place:
            same.append((former, place))
    return CutWords(tuple(cut), tuple(same))
