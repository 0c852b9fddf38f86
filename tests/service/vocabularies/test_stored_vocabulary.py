import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import VocabularyError
from model.vocabulary.classes import ClassName, Vocabulary
from service.schemas.classes import ClassEntry
from service.vocabularies.stored_vocabulary import StoredVocabulary, checked, decoded, encoded
from tests.service.vocabularies.vocabulary_lists import ENTRIES


def test_classes_for_the_model_are_those_of_a_request() -> None:
    stored = checked("mine", (ClassEntry(name=" sky "), *ENTRIES[1:]))
    assert stored.classes == (
        ClassName(name="sky"),
        ClassName(name="tree", synonyms=("tree", "bush", "shrub"), prompts=("bush", "shrub"), trained=True),
        ClassName(name="Straße"),
    )
    assert tuple(entry.for_model() for entry in stored.entries) == stored.classes
    assert stored.entries[0].name == "sky"
    vocabulary = stored.vocabulary(("a {}", "{}"))
    assert vocabulary == Vocabulary(classes=stored.classes, templates=("a {}", "{}"))
    assert checked("mine", ENTRIES).colors == ["#87ceeb", None, None]


names = st.text(min_size=1, max_size=12).map(str.strip).filter(bool)
entries = st.builds(
    ClassEntry,
    name=names,
    synonyms=st.lists(names, max_size=3),
    trained=st.sampled_from([None, True, False]),
    color=st.sampled_from([None, "#00ffaa"]),
    threshold=st.sampled_from([None, 0.25]),
)


@settings(deadline=None)
@given(st.lists(entries, min_size=1, max_size=5))
def test_what_is_stored_is_read_again(given: list[ClassEntry]) -> None:
    try:
        stored = checked("mine", tuple(given))
    except VocabularyError:
        return
    raw = encoded(stored)
    assert decoded("mine", raw) == stored
    assert decoded("yours", raw) is None


def test_the_stored_form_is_pinned() -> None:
    raw = encoded(checked("mine", ENTRIES[:2]))
    classes = '[{"color":"#87ceeb","name":"sky"},{"name":"tree","synonyms":["bush","shrub"],"trained":true}]'
    signed = f'{{"classes":{classes},"name":"mine","schema":1,"size":2}}'
    digest = hashlib.sha256(signed.encode()).hexdigest()
    assert raw.decode() == f'{{"classes":{classes},"name":"mine","schema":1,"sha256":"{digest}","size":2}}'


@pytest.mark.parametrize("stored", [checked("mine", ENTRIES)])
def test_every_flipped_byte_is_noticed(stored: StoredVocabulary) -> None:
    raw = encoded(stored)
    for index in range(len(raw)):
        for bit in (0x01, 0x20, 0x80):
            assert decoded("mine", raw[:index] + bytes([raw[index] ^ bit]) + raw[index + 1 :]) is None
    assert all(decoded("mine", raw[:length]) is None for length in range(len(raw)))
    assert decoded("mine", raw + b" ") is None


def signed(**changes: Any) -> bytes:
    """A stored list with other contents and a digest that fits them."""
    document = {"schema": 1, "name": "mine", "classes": [{"name": "a"}], "size": 1, **changes}
    document = {key: value for key, value in document.items() if value is not None}
    plain = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    document["sha256"] = hashlib.sha256(plain).hexdigest()
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"schema": None},
        {"size": 2},
        {"more": 1},
        {"name": "yours"},
        {"classes": []},
        {"classes": None},
        {"classes": {"name": "a"}},
        {"classes": ["a"]},
        {"classes": [{"name": ""}]},
        {"classes": [{"name": "a", "weight": 1}]},
        {"classes": [{"name": "a", "trained": "yes"}]},
        {"classes": [{"name": "a", "trained": None}]},
        {"classes": [{"name": "a", "color": "red"}]},
        {"classes": [{"name": "a"}, {"name": "A"}], "size": 2},
        {"classes": [{"name": str(i)} for i in range(4097)], "size": 4097},
    ],
)
def test_a_sound_digest_over_something_else_is_not_enough(changes: dict[str, Any]) -> None:
    assert decoded("mine", signed()) is not None
    assert decoded("mine", signed(**changes)) is None


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"[]", b"7", b"\xff", b"[" * 100_000, b'"\\ud800"', b"1" * 9999]
)
def test_garbage_is_no_list(raw: bytes) -> None:
    assert decoded("mine", raw) is None
