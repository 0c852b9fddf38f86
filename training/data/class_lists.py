"""Class lists put together: a class of one list and a class of another are one if they share a word.

A class's words are its name and its synonyms, as the text tower reads them.
"""

import dataclasses
from collections.abc import Sequence

from model.vocabulary.classes import ClassName, TrainingClasses
from model.vocabulary.reading import as_read


def with_added(known: TrainingClasses, added: TrainingClasses) -> TrainingClasses:
    """The classes of both lists, `known` first and in its order.

    An added class that shares a word with a known one, the first in order, gives it its synonyms.

    Raises:
        VocabularyError: together they are too many.
    """
    classes = list(known.classes)
    for item in added.classes:
        place = next((index for index, one in enumerate(classes) if same(one, item)), None)
        if place is None:
            classes.append(item)
        else:
            classes[place] = united(classes[place], item)
    return TrainingClasses.of(classes)


def same(one: ClassName, other: ClassName) -> bool:
    """Whether two classes share a word."""
    return not words(one).isdisjoint(words(other))


def words(item: ClassName) -> set[str]:
    """A class's name and synonyms, in the form in which they are compared."""
    return {as_read(word) for word in (item.name, *item.synonyms)}


def united(first: ClassName, second: ClassName) -> ClassName:
    """One class for two: the first's name, and the words of both that decide whether a class is trained."""
    synonyms = tuple(dict.fromkeys([*_deciding(first), *_deciding(second)]))
    return dataclasses.replace(first, synonyms=() if synonyms == (first.name,) else synonyms)


def _deciding(item: ClassName) -> Sequence[str]:
    return item.synonyms or (item.name,)
