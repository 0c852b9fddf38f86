"""What callers' lists leave in memory is bounded by their sizes."""

import random
import string
from concurrent.futures import ThreadPoolExecutor

import pytest
from model.network.libraries.open_clip.tokenizer import SimpleTokenizer

from model.network import tokenizer
from model.vocabulary.remembered import remembered


def test_sizes_bound_what_is_kept() -> None:
    calls = []

    @remembered(100, len)
    def twice(names: tuple[str, ...]) -> tuple[str, ...]:
        calls.append(names)
        return names * 2

    lists = [tuple(f"{number}-{place}" for place in range(19)) for number in range(6)]  # 20 each, five fit
    for names in (*lists, lists[5], lists[1]):
        assert twice(names) == names * 2
    assert calls == lists
    twice(lists[0])  # had to go
    twice(tuple(map(str, range(200))))  # larger than all
    twice(tuple(map(str, range(200))))
    twice(lists[5])  # stayed all the same
    assert len(calls) == len(lists) + 1 + 2


def test_errors_are_not_remembered() -> None:
    @remembered(100, len)
    def strict(names: str) -> str:
        raise ValueError(names)

    for _ in range(2):
        with pytest.raises(ValueError, match="a"):
            strict("a")


def test_new_words_for_ever_take_no_more_memory_and_change_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "_TOKENS_KEPT", 50)
    tokenizer.clip_tokenizer.cache_clear()
    try:
        ours, plain = tokenizer.clip_tokenizer(), SimpleTokenizer()
        random.seed(7)
        words = ["".join(random.choices(string.ascii_lowercase, k=6)) for _ in range(400)]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(ours.encode, [f"a photo of a {word}" for word in words * 3]))
        assert found == [plain.encode(f"a photo of a {word}") for word in words] * 3
        assert len(ours.cache) <= 50 + 4  # each thread may be about to add one
        assert len(plain.cache) > 400
    finally:
        tokenizer.clip_tokenizer.cache_clear()
