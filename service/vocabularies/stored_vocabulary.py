"""One named class list: checked, for the model, and as it is stored.

It is stored as JSON in one form only, with a schema number and a digest over everything else, so that
whatever else a store may give is found out.
"""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from model.errors import VocabularyError
from model.vocabulary.classes import ClassName, SynonymMode, Vocabulary
from service.caller import Caller
from service.errors import FieldProblem, InvalidRequestError
from service.schemas.classes import ClassEntry

SCHEMA = 1
END_BYTES = 192  # of a list as it is stored, in which all is that `Ending` has
_ENTRIES = TypeAdapter(tuple[ClassEntry, ...])
_ENDING = re.compile(
    rb'(?:"owner":"(?P<owner>[a-z0-9:._-]{1,64})",)?(?:"schema":\d+,"sha256":"[0-9a-f]{64}",)?'
    rb'(?:"shared":(?P<shared>true),)?"size":(?P<size>\d{1,4})}$'
)


@dataclass(frozen=True, slots=True)
class Ending:
    """What the end of a list as it is stored tells.

    Attributes:
        size: number of classes.
        owner: who stored it; empty for a list that is everybody's.
        shared: whether others may use it.
    """

    size: int
    owner: str
    shared: bool

    @classmethod
    def of(cls, raw: bytes) -> "Ending | None":
        """The ending of a list, or of its last bytes; None if it is damaged."""
        found = _ENDING.search(raw[-END_BYTES:])
        if found is None:
            return None
        owner = (found["owner"] or b"").decode()
        return cls(int(found["size"]), owner, shared=found["shared"] is not None or not owner)

    def is_seen_by(self, caller: Caller) -> bool:
        """Whether the caller may know of it."""
        return self.shared or self.is_of(caller)

    def is_of(self, caller: Caller) -> bool:
        """Whether the caller may change it."""
        return caller.everything or self.owner in ("", caller.owner)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredVocabulary:
    """A class list with a name.

    Attributes:
        name: of the list.
        entries: the classes as they were given; a built-in's synonyms are all of its words.
        classes: the same for the model.
        builtin: one of the benchmarks'.
        owner: who stored it; empty for everybody.
        shared: whether others than its owner may use it.
    """

    name: str
    entries: tuple[ClassEntry, ...]
    classes: tuple[ClassName, ...]
    builtin: bool
    owner: str = ""
    shared: bool = True

    @property
    def ending(self) -> Ending:
        """Its size, and whose it is."""
        return Ending(len(self.entries), self.owner, self.shared)

    @property
    def colors(self) -> list[str | None]:
        """Their owner's choice of colours, one a class."""
        return [entry.color for entry in self.entries]

    def vocabulary(self, templates: tuple[str, ...], synonym_mode: SynonymMode = "best") -> Vocabulary:
        """The classes under a request's templates.

        Raises:
            VocabularyError: a template cannot be used.
        """
        return Vocabulary(classes=self.classes, templates=templates, synonym_mode=synonym_mode)


@functools.cache
def builtin(name: str) -> StoredVocabulary:
    """A benchmark's class list, with the official words.

    Raises:
        VocabularyError: there is none of that name.
    """
    classes = Vocabulary.builtin(name).classes
    entries = tuple(ClassEntry(name=item.name, synonyms=list(item.synonyms)) for item in classes)
    return StoredVocabulary(name=name, entries=entries, classes=classes, builtin=True)


def checked(
    name: str,
    entries: tuple[ClassEntry, ...],
    max_classes: int | None = None,
    *,
    owner: str = "",
    shared: bool = False,
) -> StoredVocabulary:
    """A caller's list, its names stripped; one without an owner is shared.

    Raises:
        InvalidRequestError, VocabularyError: too many classes, or one that cannot be used.
    """
    if max_classes is not None and len(entries) > max_classes:
        message = (
            f"{len(entries)} classes are too many; at most {max_classes} are taken (setting max_classes)"
        )
        raise InvalidRequestError([FieldProblem("classes", message)])
    names = Vocabulary.of(_for_model(entries)).names
    stripped = tuple(
        entry.model_copy(update={"name": name}) for entry, name in zip(entries, names, strict=True)
    )
    return StoredVocabulary(
        name=name,
        entries=stripped,
        classes=_for_model(stripped),
        builtin=False,
        owner=owner,
        shared=shared or not owner,
    )


def encoded(value: StoredVocabulary) -> bytes:
    """JSON with sorted keys, so that the last ones are those of `Ending`."""
    classes = [entry.model_dump(exclude_defaults=True) for entry in value.entries]
    document = {"schema": SCHEMA, "name": value.name, "classes": classes, "size": len(classes)}
    if value.owner:
        document |= {"owner": value.owner} | ({"shared": True} if value.shared else {})
    return _canonical({**document, "sha256": hashlib.sha256(_canonical(document)).hexdigest()})


def decoded(name: str, raw: bytes) -> StoredVocabulary | None:
    """The opposite of `encoded`; None for anything that it does not make."""
    try:
        document = json.loads(raw)
        owner, shared = document.get("owner", ""), document.get("shared", False)
        value = checked(name, _ENTRIES.validate_python(document["classes"]), owner=owner, shared=shared)
        return value if encoded(value) == raw and Ending.of(raw) == value.ending else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, VocabularyError):
        return None


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _for_model(entries: Sequence[ClassEntry]) -> tuple[ClassName, ...]:
    return tuple(entry.for_model() for entry in entries)
