"""The classes of a request: names, synonyms, templates, and which of them count as trained.

A class counts as trained if one of the words for it is a word for a class that the weights were trained
on (the official code matches the lists of synonyms below `benchmarks/` this way), or if the caller
says so. Names and further prompts are answered as given, and go to the text tower as its tokenizer reads
them, see `reading.as_read`; synonyms decide trained or new and nothing else, as in the official code.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from model.errors import CheckpointError, VocabularyError, question
from model.vocabulary import templates as prompt_templates
from model.vocabulary.reading import as_read

MAX_CLASSES = 4096  # LVIS has 1203
MAX_NAME_LENGTH = 200  # characters; the text tower cuts prompts at 77 tokens
MAX_WORDS = 4096  # names and further prompts of a vocabulary
SynonymMode = Literal["best", "mean"]

BUILTIN_NAMES = (
    "coco-stuff-171",
    "voc-20",
    "pascal-context-59",
    "pascal-context-459",
    "ade20k-150",
    "ade20k-847",
)
LARGEST_BUILTIN = "ade20k-847"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassName:
    """One class.

    Attributes:
        name: what the prompts say.
        synonyms: the words that decide whether it counts as trained, the name not among them unless it
            is listed; left out, the name alone decides.
        trained: the caller's word on that; None leaves it to the words.
        prompts: further words that the text tower reads; `Vocabulary.synonym_mode` says what becomes of them.
        threshold: pixels of this class whose confidence is lower become "other", 0..1; None leaves that to
            whoever asks for a label map.
        ignored: competes for every pixel, and those that it wins are "other".
    """

    name: str
    synonyms: tuple[str, ...] = ()
    trained: bool | None = None
    prompts: tuple[str, ...] = ()
    threshold: float | None = None
    ignored: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """An ordered list of classes and the templates that make prompts of their names.

    Attributes:
        classes: 1 to 4096, whose names are stripped, and which the text tower can tell apart.
        templates: each holds "{}" once.
        synonym_mode: a class of several prompts is as like a picture as the "best" of them, or as all in the
            "mean".

    Raises:
        VocabularyError: a class or template cannot be used; `index` tells which class.
    """

    classes: tuple[ClassName, ...]
    templates: tuple[str, ...] = prompt_templates.VILD
    synonym_mode: SynonymMode = "best"

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _checked(self.classes))
        if all(item.ignored for item in self.classes):
            raise VocabularyError("every class is ignored; one has to be reported")
        if len(self.words) > MAX_WORDS:
            raise VocabularyError(
                f"{len(self.words)} names and synonyms are too many, at most {MAX_WORDS} are allowed"
            )
        if self.synonym_mode not in ("best", "mean"):
            raise VocabularyError(f'synonym_mode must be "best" or "mean", got {self.synonym_mode!r}')
        object.__setattr__(self, "templates", prompt_templates.resolve(self.templates))

    @classmethod
    def of(
        cls,
        classes: Sequence[str | ClassName],
        *,
        trained: Sequence[bool | None] | None = None,
        templates: str | Sequence[str] = "vild",
    ) -> "Vocabulary":
        """A caller's vocabulary.

        Args:
            classes: 1 to 4096 names, or names with synonyms.
            trained: for each class whether it counts as trained; goes over the classes' own word, and
                None leaves it there.
            templates: see `templates.resolve`.

        Raises:
            VocabularyError: a class, template or the length of `trained` is wrong.
        """
        if isinstance(classes, str | bytes) or not isinstance(classes, Sequence):
            raise VocabularyError(f"classes must be a list of names, got {type(classes).__name__}")
        named = tuple(ClassName(name=item) if isinstance(item, str) else item for item in classes)
        vocabulary = cls(classes=named, templates=prompt_templates.resolve(templates))
        if trained is None:
            return vocabulary
        if len(trained) != len(named):
            raise VocabularyError(f"`trained` has {len(trained)} entries for {len(named)} classes")
        marked = (
            item if word is None else dataclasses.replace(item, trained=word)
            for item, word in zip(vocabulary.classes, trained, strict=True)
        )
        return dataclasses.replace(vocabulary, classes=tuple(marked))

    @classmethod
    def builtin(cls, name: str, templates: str | Sequence[str] = "vild") -> "Vocabulary":
        """A benchmark's vocabulary, in its order and with the official synonyms.

        Raises:
            VocabularyError: there is none of that name; the message lists the known ones.
        """
        if name not in BUILTIN_NAMES:
            raise VocabularyError(
                f"there is no built-in vocabulary {name!r}; known are {', '.join(BUILTIN_NAMES)}"
                f"{question(name, BUILTIN_NAMES)}"
            )
        return cls(classes=_benchmark(name), templates=prompt_templates.resolve(templates))

    @classmethod
    def builtin_names(cls) -> tuple[str, ...]:
        """Names that `builtin` takes."""
        return BUILTIN_NAMES

    @property
    def names(self) -> list[str]:
        """The classes' names, in order."""
        return [item.name for item in self.classes]

    @property
    def words(self) -> list[str]:
        """What the text tower reads: each class's name and further prompts, in order; P of them."""
        return [as_read(word) for item in self.classes for word in (item.name, *item.prompts)]

    @property
    def word_classes(self) -> list[int] | None:
        """Which class each of the P words is of, from 0 and in order; None if every class has one word."""
        if not any(item.prompts for item in self.classes):
            return None
        return [index for index, item in enumerate(self.classes) for _ in range(1 + len(item.prompts))]

    @property
    def labels(self) -> list[int]:
        """The value of each class in label maps: 1, 2, ... in order, and 0 for those that are ignored."""
        label, labels = 0, []
        for item in self.classes:
            label += not item.ignored
            labels.append(0 if item.ignored else label)
        return labels

    @property
    def reported(self) -> list[int]:
        """The classes that are not ignored, by their place from 0."""
        return [index for index, item in enumerate(self.classes) if not item.ignored]

    @property
    def digest(self) -> str:
        """sha256 in hexadecimal over what text embeddings depend on: templates and ordered words."""
        content = {"names": self.words, "templates": self.templates}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingClasses:
    """The classes that weights were trained on.

    Attributes:
        classes: names with synonyms; `trained` is None in all.

    Raises:
        VocabularyError: a class cannot be used; `index` tells which.
    """

    classes: tuple[ClassName, ...]

    def __post_init__(self) -> None:
        plain = tuple(dataclasses.replace(item, trained=None) for item in _checked(self.classes))
        object.__setattr__(self, "classes", plain)

    @classmethod
    def of(cls, classes: Vocabulary | Sequence[str | ClassName]) -> "TrainingClasses":
        """From a vocabulary or a list of classes.

        Raises:
            VocabularyError: a class cannot be used.
        """
        vocabulary = classes if isinstance(classes, Vocabulary) else Vocabulary.of(classes)
        return cls(classes=vocabulary.classes)

    @classmethod
    def coco_stuff(cls) -> "TrainingClasses":
        """COCO-Stuff's 171 classes with their 328 synonyms, which the released weights were trained on."""
        return cls(classes=_benchmark("coco-stuff-171"))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: `{"classes": [{"name": ..., "synonyms": [...]}, ...]}`."""
        return {"classes": [{"name": item.name, "synonyms": list(item.synonyms)} for item in self.classes]}

    @classmethod
    def from_json(cls, values: Any) -> "TrainingClasses":
        """The opposite of `to_json`.

        Raises:
            CheckpointError: the values are not what `to_json` makes.
        """
        if not isinstance(values, dict) or set(values) != {"classes"}:
            raise CheckpointError('training classes: expected an object with the one key "classes"')
        items = values["classes"]
        if not isinstance(items, list):
            raise CheckpointError(f'training classes: "classes" must be a list, got {type(items).__name__}')
        for index, item in enumerate(items):
            if (
                not isinstance(item, dict)
                or set(item) != {"name", "synonyms"}
                or not isinstance(item["synonyms"], list)
            ):
                raise CheckpointError(
                    f'training classes: class {index} must be an object with "name" and a list "synonyms"'
                )
        try:
            return cls(classes=_from_rows(items))
        except VocabularyError as error:
            raise CheckpointError(f"training classes: {error}") from None

    def matches(self, vocabulary: Vocabulary, strict: bool = False) -> list[bool]:
        """Which classes of a vocabulary count as trained.

        The caller's `trained` goes first. Without it a class counts if one of its words is one of the
        training classes' words. A class's words are its synonyms, or its name if it has none, as the
        text tower reads them.

        Args:
            vocabulary: K classes.
            strict: words must be equal to the last space, as in the official code.

        Returns:
            K truth values.
        """
        known = _known_words(self.classes, strict)
        return [
            not known.isdisjoint(_words(item, strict)) if item.trained is None else item.trained
            for item in vocabulary.classes
        ]

    @property
    def words(self) -> tuple[str, ...]:
        """All words for them, as the text tower reads them, in the order of the alphabet."""
        return tuple(sorted(_known_words(self.classes, strict=False)))

    def __len__(self) -> int:
        return len(self.classes)


@functools.lru_cache(maxsize=16)  # every request asks for the loaded model's
def _known_words(classes: tuple[ClassName, ...], strict: bool) -> frozenset[str]:
    return frozenset().union(*(_words(item, strict) for item in classes))


def _words(item: ClassName, strict: bool) -> frozenset[str]:
    words = item.synonyms or (item.name,)
    return frozenset(words if strict else map(as_read, words))


def _checked(classes: Sequence[ClassName]) -> tuple[ClassName, ...]:
    """The classes with stripped names, or VocabularyError."""
    if not classes:
        raise VocabularyError("the class list is empty; give at least one class name")
    if len(classes) > MAX_CLASSES:
        raise VocabularyError(f"{len(classes)} classes are too many, at most {MAX_CLASSES} are allowed")
    seen: dict[str, int] = {}
    checked: list[ClassName] = []
    for index, item in enumerate(classes):
        name = _checked_name(index, item)
        first = seen.setdefault(as_read(name), index)
        if first != index:
            raise VocabularyError(_doubled(index, name, first, checked[first].name), index)
        prompts = _checked_prompts(index, item, name)
        checked.append(dataclasses.replace(item, name=name, synonyms=tuple(item.synonyms), prompts=prompts))
    return tuple(checked)


def _doubled(index: int, name: str, first: int, former: str) -> str:
    """What is said of two classes that are one to the text tower."""
    if name == former:
        same = ""
    elif name.lower() == former.lower():
        same = f": {former!r} is the same but for its case"
    else:
        same = f": {former!r} is the same to the model, which reads {as_read(name)!r} in both"
    return f"class {name!r} is given twice{same} (places {first} and {index}, counted from 0)"


def _checked_name(index: int, item: ClassName) -> str:
    """The stripped name of a class that is sound in all parts, or VocabularyError."""
    if not isinstance(item, ClassName) or not isinstance(item.name, str):
        wrong = item.name if isinstance(item, ClassName) else item
        raise VocabularyError(f"class {index} must be a string, got {type(wrong).__name__}", index)
    if not isinstance(item.synonyms, tuple | list) or not all(
        isinstance(word, str) for word in item.synonyms
    ):
        raise VocabularyError(f"class {index}: synonyms must be a list of strings", index)
    if not all(word.strip() for word in item.synonyms):
        raise VocabularyError(f"class {index} has an empty synonym", index)
    if item.trained is not None and not isinstance(item.trained, bool):
        raise VocabularyError(
            f"class {index}: trained must be true, false or null, got {item.trained!r}", index
        )
    if item.threshold is not None and not 0 <= item.threshold <= 1:
        raise VocabularyError(f"class {index}: threshold must be in 0..1, got {item.threshold!r}", index)
    return _checked_word(index, "name", item.name)


def _checked_prompts(index: int, item: ClassName, name: str) -> tuple[str, ...]:
    """The stripped further prompts, each once and none of them the name, or VocabularyError."""
    words = {as_read(name): name}
    for word in item.prompts:
        if not isinstance(word, str):
            raise VocabularyError(f"class {index}: synonyms must be a list of strings", index)
        stripped = _checked_word(index, "synonym", word)
        words.setdefault(as_read(stripped), stripped)
    return tuple(words.values())[1:]


def _checked_word(index: int, what: str, word: str) -> str:
    stripped = word.strip()
    if not stripped:
        raise VocabularyError(f"class {index} has an empty {what}", index)
    if len(stripped) > MAX_NAME_LENGTH:
        raise VocabularyError(
            f"class {index}'s {what} has {len(stripped)} characters, at most {MAX_NAME_LENGTH} are allowed",
            index,
        )
    if prompt_templates.has_control(stripped):
        raise VocabularyError(f"class {index}'s {what} holds a control character: {stripped!r}", index)
    if not as_read(stripped):
        raise VocabularyError(f"class {index}'s {what} is empty to the model: {stripped!r}", index)
    return stripped


@functools.cache
def _benchmark(name: str) -> tuple[ClassName, ...]:
    folder = importlib.resources.files("model.vocabulary") / "benchmarks"
    return _from_rows(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")))


def _from_rows(rows: list[dict[str, Any]]) -> tuple[ClassName, ...]:
    return tuple(ClassName(name=row["name"], synonyms=tuple(row["synonyms"])) for row in rows)
