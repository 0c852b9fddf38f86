import hashlib
import importlib.resources
import json
from collections.abc import Sequence
from typing import Any

import pytest

from model.errors import CheckpointError, VocabularyError
from model.vocabulary.classes import ClassName, TrainingClasses, Vocabulary
from model.vocabulary.templates import SETS, has_control, resolve

COCO = TrainingClasses.coco_stuff()


def failed(classes: Any, **options: Any) -> VocabularyError:
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.of(classes, **options)
    return caught.value


def matches(*classes: str | ClassName, strict: bool = False) -> list[bool]:
    return COCO.matches(Vocabulary.of(classes), strict=strict)


# --- the benchmarks


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("name", "classes", "synonyms", "overlap"),
    [
        ("coco-stuff-171", 171, 328, 171),
        ("voc-20", 20, 79, 20),
        ("pascal-context-59", 59, 160, 51),
        ("pascal-context-459", 459, 559, 94),
        ("ade20k-150", 150, 403, 67),
        ("ade20k-847", 847, 1342, 115),
    ],
)
def test_benchmarks_overlap_with_coco_stuff_as_published(
    name: str, classes: int, synonyms: int, overlap: int, strict: bool
) -> None:
    vocabulary = Vocabulary.builtin(name)
    assert len(vocabulary) == classes
    assert sum(len(item.synonyms) for item in vocabulary.classes) == synonyms
    assert sum(COCO.matches(vocabulary, strict=strict)) == overlap


# A changed digest means changed prompts: other text embeddings and useless caches.
@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("coco-stuff-171", "85a0a0546b9dda82efde779d097b72c0aeadb24ae4f14cfb98351b61c94a136e"),
        ("voc-20", "a5499260381b49bc99162a8d0eac989ebe495508198b05b52eb2d49800035b4f"),
        ("pascal-context-59", "7d49880ea56b137fc1e9b7ee80c3aad7d3cb61cf559b5c426498a02b09e93c9f"),
        ("pascal-context-459", "403276ca62c1f9e8f533c7b5210751b6506a137a8204f6fc259dbcc2e6bf95bf"),
        ("ade20k-150", "7ab854765a4d5eed54b2baccb4e42afce5d21972ebbd7311b7ca1ba3abf9084b"),
        ("ade20k-847", "2e1b4c3bcbfc1c9001194083caa9215a7e513c40cea194d1179c5aa4479170cb"),
    ],
)
def test_benchmarks_keep_their_names_and_order(name: str, digest: str) -> None:
    assert Vocabulary.builtin(name).digest == digest


@pytest.mark.parametrize(
    ("name", "index", "prompt_name", "synonyms"),
    [
        ("coco-stuff-171", 84, "building-other", ["building", "buildings"]),
        ("coco-stuff-171", 165, "wall-wood", ["wall-wood", "wood wall", " wall wood"]),
        ("voc-20", 19, "tv", ["tvmonitor", "monitor", "tv"]),
        ("pascal-context-59", 18, "computer", ["computer case"]),
        ("pascal-context-459", 457, "wood", ["wood piece"]),
        ("ade20k-150", 8, "window", ["windowpane", "window", "windows"]),  # "window " at the source
        ("ade20k-847", 1, "building, edifice", ["building", "buildings", "edifice", "edifices"]),
    ],
)
def test_prompt_names_are_the_registered_ones(
    name: str, index: int, prompt_name: str, synonyms: list[str]
) -> None:
    item = Vocabulary.builtin(name).classes[index]
    assert item == ClassName(name=prompt_name, synonyms=tuple(synonyms))


def test_every_vocabulary_file_is_offered_and_nothing_else() -> None:
    files = (importlib.resources.files("model.vocabulary") / "benchmarks").iterdir()
    assert sorted(file.name for file in files) == sorted(f"{n}.json" for n in Vocabulary.builtin_names())


def test_builtin_takes_templates() -> None:
    assert len(Vocabulary.builtin("voc-20").templates) == 14
    assert Vocabulary.builtin("voc-20", templates="plain").templates == ("a photo of a {}.",)


@pytest.mark.parametrize("name", ["ade20k", "../config", ""])
def test_an_unknown_builtin_lists_the_known_ones(name: str) -> None:
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.builtin(name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in Vocabulary.builtin_names())


# --- trained or new


def test_words_match_regardless_of_case_and_space() -> None:
    assert matches("SKY", " Palm Tree ", "unicorn") == [True, True, False]
    assert matches("SKY", "palm tree", "unicorn", strict=True) == [False, True, False]


def test_synonyms_decide_in_the_place_of_the_name() -> None:
    classes = (
        ClassName(name="automobile", synonyms=("motorcar", "Car")),
        ClassName(name="sofa", synonyms=("settee",)),
        ClassName(name="hound", synonyms=("dog",)),
    )
    assert matches(*classes) == [True, False, True]
    assert matches(*classes, strict=True) == [False, False, True]


def test_strict_keeps_the_sources_space() -> None:
    assert matches("wall wood") == [True]
    assert matches("wall wood", strict=True) == [False]  # the official list says " wall wood"
    spaced = ClassName(name="planks", synonyms=(" wall wood",))
    assert matches(spaced, strict=True) == [True]


@pytest.mark.parametrize("strict", [False, True])
def test_the_callers_word_wins(strict: bool) -> None:
    vocabulary = Vocabulary.of(["sky", "unicorn", "tree", "dragon"], trained=[False, True, None, None])
    assert COCO.matches(vocabulary, strict=strict) == [False, True, True, False]


def test_the_list_goes_over_the_classes_own_word_except_for_none() -> None:
    classes = [ClassName(name="sky", trained=False), ClassName(name="tree", trained=False)]
    assert [item.trained for item in Vocabulary.of(classes).classes] == [False, False]
    marked = Vocabulary.of(classes, trained=[True, None])
    assert [item.trained for item in marked.classes] == [True, False]


def test_training_classes_of_ones_own() -> None:
    own = TrainingClasses.of(["rust", ClassName(name="dent", synonyms=("bump",), trained=False)])
    assert len(own) == 2
    assert own.classes[1] == ClassName(name="dent", synonyms=("bump",))
    assert own.matches(Vocabulary.of(["Bump", "rust", "sky"])) == [True, True, False]
    assert TrainingClasses.of(Vocabulary.builtin("coco-stuff-171")) == COCO


def test_training_classes_survive_json() -> None:
    values = json.loads(json.dumps(COCO.to_json()))
    assert values["classes"][1] == {"name": "bicycle", "synonyms": ["bicycle", "bicycles", "bike", "bikes"]}
    assert TrainingClasses.from_json(values) == COCO


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], '"classes"'),
        ({"classes": [], "more": 1}, '"classes"'),
        ({"classes": "sky"}, "list, got str"),
        ({"classes": []}, "empty"),
        ({"classes": ["sky"]}, "class 0 must be an object"),
        ({"classes": [{"name": "sky", "synonyms": []}, {"name": "tree"}]}, "class 1 must be an object"),
        ({"classes": [{"name": "sky", "synonyms": "sky"}]}, "class 0 must be an object"),
        ({"classes": [{"name": "sky", "synonyms": [1]}]}, "class 0: synonyms must be a list of strings"),
        ({"classes": [{"name": 3, "synonyms": []}]}, "class 0 must be a string, got int"),
        ({"classes": [{"name": "a", "synonyms": []}, {"name": "A", "synonyms": []}]}, "given twice"),
    ],
)
def test_malformed_training_classes_are_a_checkpoint_error(values: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=r"^training classes: ") as caught:
        TrainingClasses.from_json(values)
    assert message in str(caught.value)


# --- names


def test_names_are_kept_as_given_but_for_space_around() -> None:
    names = ["  Sky\t", "dog {0}", "tree, oak", "naïve café", "🧑‍🚀", "{}"]
    assert Vocabulary.of(names).names == ["Sky", "dog {0}", "tree, oak", "naïve café", "🧑‍🚀", "{}"]


def test_the_largest_vocabulary_is_taken() -> None:
    vocabulary = Vocabulary.of([f"{i:0200d}" for i in range(4096)])
    assert len(vocabulary) == 4096
    assert vocabulary.names[-1] == "0" * 196 + "4095"


@pytest.mark.parametrize(
    ("classes", "index", "message"),
    [
        ([], None, "empty"),
        ([str(i) for i in range(4097)], None, "4097 classes are too many, at most 4096"),
        ("sky, tree", None, "must be a list of names, got str"),
        ({"sky": 1}, None, "must be a list of names, got dict"),
        (["sky", ""], 1, "class 1 has an empty name"),
        (["sky", "tree", " \n "], 2, "class 2 has an empty name"),
        (["sky", ClassName(name="tree", synonyms=("bush", " "))], 1, "class 1 has an empty synonym"),
        (["x" * 201], 0, "201 characters, at most 200"),
        (["sky", "a\x00b"], 1, "control character"),
        (["sky", "a\nb"], 1, "control character"),
        (["sky", "a\u2028b"], 1, "control character"),
        (["sky", "\ud83d"], 1, "control character"),
        (["sky", "tree", 7], 2, "class 2 must be a string, got int"),
        (["sky", None], 1, "class 1 must be a string, got NoneType"),
        (["sky", ClassName(name=3)], 1, "class 1 must be a string, got int"),  # type: ignore[arg-type]
        (["sky", "tree", " SKY "], 2, "class 'SKY' is given twice: 'sky' is the same but for its case"),
        ([ClassName(name="sky", synonyms="abc")], 0, "synonyms"),  # type: ignore[arg-type]
        ([ClassName(name="sky", synonyms=(1,))], 0, "synonyms"),  # type: ignore[arg-type]
        ([ClassName(name="sky", synonyms=None)], 0, "synonyms"),  # type: ignore[arg-type]
        (["a", ClassName(name="sky", trained=1)], 1, "trained must be"),  # type: ignore[arg-type]
    ],
)
def test_unusable_classes_are_refused_with_their_index(classes: Any, index: int | None, message: str) -> None:
    error = failed(classes)
    assert error.index == index
    assert message in str(error)


@pytest.mark.parametrize(
    ("trained", "index", "message"),
    [
        ([True], None, "1 entries for 2 classes"),
        ([True, None, False], None, "3 entries for 2 classes"),
        ([True, "yes"], 1, "trained must be true, false or null, got 'yes'"),
    ],
)
def test_a_wrong_list_of_trained_is_refused(trained: list[Any], index: int | None, message: str) -> None:
    error = failed(["sky", "tree"], trained=trained)
    assert error.index == index
    assert message in str(error)


def test_a_vocabulary_made_directly_is_checked_as_well() -> None:
    with pytest.raises(VocabularyError, match="given twice"):
        Vocabulary(classes=(ClassName(name="a"), ClassName(name="A ")))
    with pytest.raises(VocabularyError, match="template 0"):
        Vocabulary(classes=(ClassName(name="a"),), templates=("{} {}",))
    assert Vocabulary(classes=(ClassName(name=" a "),)) == Vocabulary.of(["a"])


# --- digest


def test_the_digest_is_over_templates_and_ordered_names() -> None:
    digest = Vocabulary.of(["sky", "tree"], templates="plain").digest
    content = '{"names":["sky","tree"],"templates":["a photo of a {}."]}'
    assert digest == hashlib.sha256(content.encode()).hexdigest()
    assert Vocabulary.of(["sky", "tree"]).digest == (
        "062f88815d717659ec756f5e909609cd53c0ec945ab019f7957f81ac0ffdc76a"
    )


@pytest.mark.parametrize(
    "other",
    [
        Vocabulary.of(["tree", "sky"]),
        Vocabulary.of(["s ky", "tree"]),
        Vocabulary.of(["sky", "tree", "road"]),
        Vocabulary.of(["sky", "tree"], templates="plain"),
        Vocabulary.of(["sky", "tree"], templates=SETS["vild"][::-1]),
    ],
)
def test_the_digest_changes_with_names_order_and_templates(other: Vocabulary) -> None:
    assert other.digest != Vocabulary.of(["sky", "tree"]).digest


def test_the_digest_does_not_change_with_case_synonyms_or_trained() -> None:
    digest = Vocabulary.of(["sky", "tree"]).digest
    assert Vocabulary.of(["Sky", "tree"]).digest == digest  # the tower reads small letters
    assert Vocabulary.of([ClassName(name="sky", synonyms=("heaven",)), "tree"]).digest == digest
    assert Vocabulary.of(["sky ", "tree"], trained=[True, False]).digest == digest


# --- templates


@pytest.mark.parametrize(
    ("name", "count", "first", "last", "digest"),
    [
        ("vild", 14, "a photo of a {}.", "There is a large {} in the scene.", "20c81c13267c6b93"),
        ("imagenet", 80, "a bad photo of a {}.", "a tattoo of the {}.", "4f976686fb651bb5"),
        ("plain", 1, "a photo of a {}.", "a photo of a {}.", "e8e367e769f86c27"),
    ],
)
def test_template_sets_keep_their_text(name: str, count: int, first: str, last: str, digest: str) -> None:
    templates = resolve(name)
    assert len(set(templates)) == len(templates) == count
    assert (templates[0], templates[-1]) == (first, last)
    assert hashlib.sha256("\n".join(templates).encode()).hexdigest()[:16] == digest
    assert resolve(templates) == templates


def test_vild_sentences_end_as_they_were_trained() -> None:
    undotted = [template for template in SETS["vild"] if not template.endswith(".")]
    assert undotted == [
        "This is a photo of a {}",
        "There is a {} in the scene",
        "There is the {} in the scene",
        "a photo of a {} in the scene",
    ]


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ("an aerial view of {}", ("an aerial view of {}",)),
        ("{}", ("{}",)),
        (["{} seen from above", "{}"], ("{} seen from above", "{}")),
        (["{}"] * 100, ("{}",) * 100),
    ],
)
def test_own_templates(given: str | Sequence[str], resolved: tuple[str, ...]) -> None:
    assert resolve(given) == resolved
    assert Vocabulary.of(["sky"], templates=given).templates == resolved


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wild", "unknown template set 'wild'"),
        ("", "unknown template set ''"),
        ([], "between 1 and 100 templates are needed, got 0"),
        (["{}"] * 101, "between 1 and 100 templates are needed, got 101"),
        (["{}", "a photo"], "template 1 must hold"),
        ("{} and {}", "template 0 must hold"),
        ("{name}", "template 0 must hold"),
        ("{} {0}", "template 0 must hold"),
        ("{{}}", "template 0 must hold"),
        ({"{}": 1}, "templates must be a set's name"),
    ],
)
def test_wrong_templates_are_refused_and_the_sets_named(given: Any, message: str) -> None:
    error = failed(["sky"], templates=given)
    assert message in str(error)
    assert all(f'"{name}"' in str(error) for name in ("vild", "imagenet", "plain"))
    assert error.index is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["{}", 3], "template 1 must be a string, got int"),
        (["{}" + "x" * 199], "template 0 has 201 characters, at most 200"),
        (["{}\x07"], "template 0 holds a control character"),
    ],
)
def test_unusable_template_texts_are_refused(given: Any, message: str) -> None:
    assert message in str(failed(["sky"], templates=given))


def test_joiners_are_no_control_characters() -> None:
    assert not has_control("a\u00a0b \u200d \u200c é")
    assert has_control("\x7f")
