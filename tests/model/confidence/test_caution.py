"""What an answer is warned of, and which threshold holds."""

import dataclasses

import pytest

from model.confidence.background import BackgroundRule, asked, of_card
from model.confidence.card import Card
from model.confidence.caution import caution_of_joined, cautions
from model.vocabulary.classes import ClassName

CARD = Card(
    domain="drawn scenes",
    words=("house", "tree", "starry sky", "grass", "butterfly", "leaves"),
    threshold=0.5,
    confidence=((0.01, 0.4), (0.5, 0.7)),
)
BROAD = dataclasses.replace(CARD, words="any English noun")


def codes(*names: str, card: Card | None = CARD, own: float | None = 0.6, trained: bool = False) -> list[str]:
    classes = [ClassName(name=name) for name in names]
    return [one.code for one in cautions("tiny", card, classes, [trained] * len(classes), own)]


@pytest.mark.parametrize(
    "word",
    ["house", "House", "houses", "a house", "the  trees", "starry skies", "butterflies", "Grass", "leaves"],
)
def test_words_it_knows(word: str) -> None:
    assert codes(word) == []


@pytest.mark.parametrize("word", ["face", "a red dress", "household", "s", "", "hous", "gras", "sky"])
def test_words_it_does_not_know(word: str) -> None:
    assert codes(word) == ["unknown-words"]


def test_what_else_makes_a_word_known() -> None:
    assert codes("face", trained=True) == []
    synonym = ClassName(name="cottage", synonyms=("cottage", "houses"))
    assert cautions("tiny", CARD, [synonym], [False], None) == ()
    assert codes("face", card=BROAD) == codes("face", card=None) == []


def test_the_picture_counts_whatever_is_asked_for() -> None:
    assert codes("house", own=0.39) == codes("house", own=0.39, card=BROAD) == ["unlike-its-domain"]
    assert codes("house", own=0.4) == codes("house", own=None) == []
    assert codes("face", own=0.1) == ["unknown-words", "unlike-its-domain"]
    assert codes("house", own=0.0, card=dataclasses.replace(CARD, confidence=None)) == []
    assert codes("house", own=0.0, card=dataclasses.replace(CARD, confidence=((0.5, 0.7),))) == []


def test_sentences_say_what_to_do_and_stay_short() -> None:
    (one,) = cautions("tiny", CARD, [ClassName(name="face")], [False], None)
    assert one.message == (
        '"face" is no word that tiny knows; ask for words of its card (GET /v1/models), or take the '
        "released weights, which know any noun (ebseg pull base)."
    )
    (two,) = cautions("tiny", CARD, [ClassName(name="face"), ClassName(name="nose")], [False] * 2, None)
    assert two.message.startswith('"face" and "nose" are no words that tiny knows; ')
    many = [ClassName(name=f"{number} " + "x" * 190) for number in range(1024)]
    wordy = dataclasses.replace(CARD, domain="d" * 1000)
    both = cautions("n" * 100, wordy, many, [False] * 1024, 0.0)
    assert [one.code for one in both] == ["unknown-words", "unlike-its-domain"]
    assert "and 1021 more are no words that" in both[0].message
    assert all(len(one.message) < 600 for one in both)
    assert "(ebseg pull base)" in both[1].message
    (broad,) = cautions("base", BROAD, many, [False] * 1024, 0.0)
    assert broad.message.endswith("take a model made for such images.")


def test_which_threshold_holds() -> None:
    assert of_card(CARD) == BackgroundRule(0.5, "card")
    assert (
        of_card(None)
        == of_card(dataclasses.replace(CARD, threshold=None))
        == BackgroundRule(None, "uncalibrated")
    )
    assert asked(None) == BackgroundRule(None, "request")
    assert [asked(0.2).least, asked(None).least, of_card(CARD).least] == [0.2, 0.0, 0.5]


JOINED_WORDS = ("car", "dining table", "fence", "house", "person", "sun", "table", "traffic light", "tree")


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["house tree sun"], "house, tree, sun"),
        (["houses Trees"], "houses, Trees"),
        (["people car"], ""),  # no word for it
        (["person car"], "person, car"),
        (["person  traffic light dining table"], "person, traffic light, dining table"),
        (["sky", "house tree sun"], "house, tree, sun"),
        (["sky", "tree house"], ""),  # two words are a thing as often as two
        (["traffic light"], ""),
        (["red house tree"], ""),
        (["house, tree, sun"], ""),  # in quotes, so meant
        (["house"], ""),
        (["tree " * 12], ", ".join(["tree"] * 12)),
        (["tree " * 13], ""),
    ],
)
def test_a_list_without_commas_is_asked_about(names: list[str], meant: str) -> None:
    classes = [ClassName(name=name) for name in names]
    trained = [name in JOINED_WORDS for name in names]
    found = caution_of_joined(classes, trained, JOINED_WORDS, len(names))
    assert [one.code for one in found] == ["joined-names"] * bool(meant)
    assert all(f'is one class; did you mean "{meant}"?' in one.message for one in found)
    # nothing is known of other models, and the caller's word goes first
    assert caution_of_joined(classes, trained, (), len(names)) == ()
    assert caution_of_joined(classes, [True] * len(names), JOINED_WORDS, len(names)) == ()


def test_two_words_are_a_list_only_where_nothing_else_was_asked_for() -> None:
    """Also where only one of several classes is seen."""
    classes = [ClassName(name="tree house")]
    assert [len(caution_of_joined(classes, [False], JOINED_WORDS, asked)) for asked in (1, 2, 150)] == [
        1,
        0,
        0,
    ]
