"""Words as the tokenizer reads them: one to it is one to us, and what it cuts is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.confidence.caution import cautions_of_prompts
from model.errors import VocabularyError
from model.network.tokenizer import clip_tokenizer, cut_words
from model.vocabulary.classes import BUILTIN_NAMES, ClassName, TrainingClasses, Vocabulary
from model.vocabulary.reading import as_read, is_foreign
from model.vocabulary.templates import SETS

# ways to write one name
SAME = [
    ("apple  pie", "apple pie"),
    ("apple\u00a0pie", "Apple Pie"),
    ("caf\u00e9", "cafe\u0301"),
    ("salt &amp; pepper", "salt & pepper"),
    ("salt &amp;amp;amp; pepper", "salt &pepper"),
    ("dog\u2019s bed", "dog's bed"),
    ("\u201cx\u201d", '"x"'),
    ("ice-cream", "ice - cream"),
    ("No1", "no 1"),
    ("\ufb01nch", "finch"),
    ("&eacute;tag\u00e8re", "\u00e9tag\u00e8re"),
]
APART = [("stra\u00dfe", "strasse"), ("ice cream", "icecream"), ("it's", "it' s"), ("12", "1-2")]
TRICKY = st.text(
    st.sampled_from(
        "ab1 -'\u2019&amp;;\u00a0\u00e9\u00c9e\u0301\ufb01\u5bb6\u201c\"\u00bd\u00c3<>#39\u017fsS"
    )
)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_names_that_the_tokenizer_makes_equal_are_refused_with_both(one: str, other: str) -> None:
    encode = clip_tokenizer().encode
    with pytest.raises(VocabularyError) as caught:
        Vocabulary.of(["sky", one, other])
    assert (caught.value.index, encode(as_read(one))) == (2, encode(as_read(other)))
    message = str(caught.value)
    assert repr(one) in message
    assert repr(other) in message
    assert f"reads {as_read(one)!r} in both" in message
    assert Vocabulary.of([one]).digest == Vocabulary.of([other]).digest
    assert Vocabulary.of([ClassName(name=one, prompts=(other,))]).words == [as_read(one)]


@pytest.mark.parametrize(("one", "other"), APART)
def test_names_that_it_reads_differently_are_two(one: str, other: str) -> None:
    assert Vocabulary.of([one, other]).names == [one, other]


@pytest.mark.parametrize("name", ["&nbsp;", " &#32; "])
def test_a_name_of_nothing_but_space_is_refused(name: str) -> None:
    with pytest.raises(VocabularyError, match="name is empty to the model"):
        Vocabulary.of([name])


@given(TRICKY | st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=12))
def test_a_word_as_read_has_the_tokens_of_the_word(word: str) -> None:
    read = as_read(word)
    assert as_read(read) == read
    encode = clip_tokenizer().encode
    tokens = encode(word)
    if "&" not in word and "<" not in word:  # a text that is escaped twice is mended to its end
        assert encode(read) == tokens
    assert clip_tokenizer().decode(encode(read)).strip() == read  # so that no two have the same


def test_the_benchmarks_read_as_before() -> None:
    encode, coco = clip_tokenizer().encode, TrainingClasses.coco_stuff()
    for name in BUILTIN_NAMES:
        vocabulary = Vocabulary.builtin(name)
        for template in (SETS["vild"][0], SETS["plain"][0]):
            for given_name, read in zip(vocabulary.names, vocabulary.words, strict=True):
                assert encode(template.replace("{}", read)) == encode(template.replace("{}", given_name))
        known = {word.strip().casefold() for item in coco.classes for word in item.synonyms or (item.name,)}
        expected = [
            not known.isdisjoint(word.strip().casefold() for word in item.synonyms or (item.name,))
            for item in vocabulary.classes
        ]
        assert coco.matches(vocabulary) == expected


def test_long_names_are_cut_at_the_tower_s_context() -> None:
    plain = SETS["plain"]
    around = len(clip_tokenizer().encode(plain[0].replace("{}", ""))) + 2
    word = " ".join(["tree"] * (77 - around))
    longer, other = f"{word} oak", f"{word} elm"
    assert cut_words((word,), plain, 77).cut == ()
    found = cut_words((word, longer, "sky", other), plain, 77)
    assert found.cut == (1, 3)
    assert cut_words(("tree",), ("x " * 74 + "{}",), 77).cut == ()
    assert cut_words(("tree",), ("x " * 75 + "{}",), 77).cut == (0,)


def test_names_that_become_equal_by_the_cut_are_told() -> None:
    start = " ".join(["very"] * 80)
    classes = [ClassName(name="sky"), ClassName(name=f"{start} old oak"), ClassName(name=f"{start} new elm")]
    (one,) = cautions_of_prompts(None, classes, [True] * 3, SETS["vild"], 77)
    assert one.code == "cut-names"
    assert "the model reads 75 tokens of a name in its template" in one.message
    assert "are one class to it, of which the second is never found" in one.message
    (one,) = cautions_of_prompts(None, classes[:2], [True] * 2, SETS["vild"], 77)
    assert "one class" not in one.message
    assert one.message.startswith('"very very')
    assert cautions_of_prompts(None, classes[:1], [True], SETS["imagenet"], 77) == ()


@pytest.mark.parametrize(
    "name",
    [
        "\u5bb6",
        "\u0434\u043e\u043c",
        "\u05d1\u05d9\u05ea",
        "\u03b4\u03ad\u03bd\u03c4\u03c1\u03bf",
    ],
)
def test_names_in_other_scripts_are_warned_of(name: str) -> None:
    assert is_foreign(name)
    (one,) = cautions_of_prompts(None, [ClassName(name=name)], [False], SETS["plain"], 77)
    assert (one.code, one.message.startswith(f'"{name}" is in no Latin letters')) == ("foreign-script", True)
    assert cautions_of_prompts(None, [ClassName(name=name)], [True], SETS["plain"], 77) == ()


@pytest.mark.parametrize(
    "name",
    ["na\u00efve caf\u00e9", "1 2", "\u00bd", "\U0001f9d1", "Stra\u00dfe", "\u2019s", "\u03b1 particle"],
)
def test_latin_names_signs_and_numbers_are_not(name: str) -> None:
    assert not is_foreign(name)
