from typing import Any

import pytest

from model.errors import VocabularyError
from model.vocabulary.classes import TrainingClasses, Vocabulary
from service.errors import ConflictError, InvalidRequestError, NotFoundError
from service.observability.metrics import Metrics
from service.schemas.classes import ClassEntry
from service.vocabularies import catalog as module
from service.vocabularies import store as vocabulary_store
from service.vocabularies.catalog import Vocabularies
from service.vocabularies.stored_vocabulary import checked, encoded
from tests.service.vocabularies.vocabulary_lists import ENTRIES, ONE, own_sizes

pytestmark = pytest.mark.anyio


def local(**values: Any) -> Vocabularies:
    return Vocabularies(None, Metrics(), **{"max_classes": 1024, **values})


async def test_a_list_is_stored_replaced_and_removed_in_the_process() -> None:
    vocabularies = local()
    stored, created = await vocabularies.put("mine", ENTRIES)
    assert created
    assert (stored.name, stored.builtin, stored.entries) == ("mine", False, ENTRIES)
    assert await vocabularies.get("mine") == stored
    other, created = await vocabularies.put("mine", ONE)
    assert not created
    assert await vocabularies.get("mine") == other
    await vocabularies.put("a.b_c-1", ENTRIES)
    assert await own_sizes(vocabularies) == {"a.b_c-1": 3, "mine": 1}
    await vocabularies.delete("mine")
    for call in (vocabularies.get, vocabularies.delete):
        with pytest.raises(NotFoundError, match="no vocabulary of this name"):
            await call("mine")
    with pytest.raises(NotFoundError, match=r"; did you mean voc-20\?$"):
        await vocabularies.get("voc20")
    assert await own_sizes(vocabularies) == {"a.b_c-1": 3}
    assert (await vocabularies.put("mine", ENTRIES))[1]


async def test_built_in_lists_keep_their_words_and_cannot_be_changed() -> None:
    vocabularies = local(max_classes=1)
    found = await vocabularies.get("ade20k-150")
    official = Vocabulary.builtin("ade20k-150", "plain")
    assert found.builtin
    assert found.vocabulary(("{}",)) == Vocabulary(classes=official.classes, templates=("{}",))
    assert [entry.synonyms for entry in found.entries] == [list(item.synonyms) for item in official.classes]
    assert found.colors == [None] * 150
    known = TrainingClasses.coco_stuff()
    assert known.matches(found.vocabulary(("{}",))) == known.matches(official)
    for change in (vocabularies.put("ade20k-150", ONE), vocabularies.delete("ade20k-150")):
        with pytest.raises(ConflictError, match="built in"):
            await change
    assert [(item.name, item.size) for item in await vocabularies.summaries()] == [
        (name, len(Vocabulary.builtin(name))) for name in Vocabulary.builtin_names()
    ]


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "a b", "a/b", "ä", "a" * 101, "a\n", "a\0"])
async def test_names_that_cannot_be(name: str) -> None:
    vocabularies = local()
    with pytest.raises(InvalidRequestError) as caught:
        await vocabularies.put(name, ONE)
    assert caught.value.fields[0].field == "name"
    for call in (vocabularies.get, vocabularies.delete):
        with pytest.raises(NotFoundError):
            await call(name)


@pytest.mark.parametrize("name", ["a", "0", "a" * 100, "a..", "1-2_3"])
async def test_names_that_can_be(name: str) -> None:
    vocabularies = local()
    await vocabularies.put(name, ONE)
    assert (await vocabularies.get(name)).name == name


async def test_classes_are_checked_like_a_requests() -> None:
    vocabularies = local(max_classes=2)
    with pytest.raises(InvalidRequestError) as caught:
        await vocabularies.put("mine", ENTRIES)
    assert "3 classes are too many; at most 2" in caught.value.fields[0].message
    with pytest.raises(VocabularyError, match="given twice") as doubled:
        await vocabularies.put("mine", [ClassEntry(name="a"), ClassEntry(name=" A ")])
    assert doubled.value.index == 1
    with pytest.raises(VocabularyError, match="empty"):
        await vocabularies.put("mine", [])
    with pytest.raises(NotFoundError):
        await vocabularies.get("mine")


async def test_one_list_has_a_number_of_bytes() -> None:
    vocabularies = local()
    words = [f"{i:03}" + "\N{OLD ITALIC LETTER A}" * 197 for i in range(100)]
    with pytest.raises(InvalidRequestError, match="classes") as caught:
        await vocabularies.put("mine", [ClassEntry(name=str(i), synonyms=words) for i in range(40)])
    assert "at most 1048576" in caught.value.fields[0].message
    longest = [ClassEntry(name=f"{i:04}" + "\N{OLD ITALIC LETTER A}" * 196) for i in range(1024)]
    await vocabularies.put("mine", longest)  # as long as names alone can make it


async def test_the_process_holds_a_number_of_lists_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_store, "MOST", 2)
    vocabularies = local()
    for name in ("a", "b", "a"):
        await vocabularies.put(name, ONE)
    with pytest.raises(ConflictError, match=r"full.*DELETE"):
        await vocabularies.put("c", ONE)
    await vocabularies.delete("a")
    await vocabularies.put("c", ONE)
    monkeypatch.setattr(vocabulary_store, "MOST_BYTES", 2 * len(encoded(checked("c", ONE))))
    await vocabularies.put("b", ONE)
    with pytest.raises(ConflictError):
        await vocabularies.put("b", ENTRIES)
    assert await own_sizes(vocabularies) == {"b": 1, "c": 1}


async def test_copies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COPIES", 3)
    vocabularies = local()
    for number in range(5):
        await vocabularies.put(str(number), ONE)
    for number in range(50):
        with pytest.raises(NotFoundError):
            await vocabularies.get(f"none-{number}")
    assert len(vocabularies._copies) == 3
    assert (await vocabularies.get("0")).classes == tuple(entry.for_model() for entry in ONE)
    monkeypatch.setattr(module, "COPY_BYTES", 2 * len(encoded(checked("0", ONE))))
    for number in range(5):
        await vocabularies.get(str(number))
    assert list(vocabularies._copies) == ["3", "4"]
    assert vocabularies._copy_bytes == module.COPY_BYTES
    assert not vocabularies._locks
