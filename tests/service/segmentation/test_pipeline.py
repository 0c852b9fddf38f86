"""Decisions about a request that need no server."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest

from model.confidence.background import of_card
from model.confidence.caution import AnswerWarning, lowered_timeout
from model.network.balance import Balance
from model.vocabulary.classes import Vocabulary
from service.errors import DeadlineExceededError, InvalidRequestError
from service.http.parsed_request import ParsedRequest
from service.scheduling.deadline import Deadline
from service.scheduling.engine import EngineResult
from service.schemas.balance import BalanceSpec
from service.schemas.classes import ClassEntry
from service.schemas.segment import LongSide, SegmentRequest
from service.segmentation import answer
from service.segmentation.answer import SegmentationResult, encode_answer, make_file
from service.segmentation.outputs import check_outputs
from service.segmentation.requested import check_length, output_size, to_balance
from tests.service.fakes import INFO


@pytest.mark.parametrize(
    ("long_side", "picture", "expected"),
    [
        (None, (30, 40), (30, 40)),
        (20, (30, 40), (15, 20)),
        (80, (30, 40), (60, 80)),
        (100, (999, 333), (100, 33)),
        (10, (1, 1000), (1, 10)),
        (1, (30, 40), (1, 1)),
    ],
)
def test_output_size(long_side: int | None, picture: tuple[int, int], expected: tuple[int, int]) -> None:
    spec = None if long_side is None else LongSide(long_side=long_side)
    assert output_size(spec, picture, 10_000) == expected


def test_outputs_that_would_be_too_large() -> None:
    check_outputs(frozenset(["overlay"]), (10, 16_383), 1)
    check_outputs(frozenset(["png", "rle"]), (10, 20_000), 1024)
    check_outputs(frozenset(["scores"]), (1024, 1024), 32)
    with pytest.raises(InvalidRequestError) as overlay:
        check_outputs(frozenset(["overlay"]), (10, 16_384), 1)
    with pytest.raises(InvalidRequestError) as scores:
        check_outputs(frozenset(["scores"]), (1024, 1024), 33)
    for caught in (overlay, scores):
        assert caught.value.fields[0].field == "outputs"
        assert "output_size" in caught.value.fields[0].message


def test_a_mean_alone_takes_that_means_weights() -> None:
    arithmetic, geometric = BalanceSpec(mean="arithmetic"), BalanceSpec(mean="geometric")
    assert to_balance(None, INFO.balance) is None
    assert to_balance(geometric, INFO.balance) == INFO.balance
    assert to_balance(arithmetic, INFO.balance) == Balance.arithmetic()
    own = Balance.arithmetic(supervised_trained=0.1)
    assert to_balance(arithmetic, own) == own
    with pytest.raises(InvalidRequestError) as caught:
        to_balance(geometric, own)
    assert caught.value.fields[0].field == "balance"


def test_vocabularies_take_the_requests_templates_and_synonyms() -> None:
    classes = [ClassEntry(name="tree", synonyms=["bush"], trained=True), ClassEntry(name="sky")]
    vocabulary = SegmentRequest(classes=classes, templates=("{}",)).listed
    assert vocabulary.names == ["tree", "sky"]
    assert [item.synonyms for item in vocabulary.classes] == [("tree", "bush"), ()]
    assert [item.trained for item in vocabulary.classes] == [True, None]
    assert vocabulary.templates == ("{}",)


def test_a_list_that_is_too_long() -> None:
    check_length("classes", 20, 20)
    with pytest.raises(InvalidRequestError) as caught:
        check_length("classes", 21, 20)
    assert caught.value.fields[0].field == "classes"
    assert (
        caught.value.fields[0].message
        == "21 classes are too many; at most 20 are taken (setting max_classes)"
    )


def test_a_picture_in_json_is_kept_no_longer_than_needed() -> None:
    parsed = ParsedRequest(SegmentRequest(vocabulary="voc-20"), [b"picture"].pop)
    assert parsed.read_picture() == b"picture"
    with pytest.raises(IndexError):
        parsed.read_picture()


def segmentation(deadline: Deadline, *outputs: str) -> SegmentationResult:
    vocabulary = Vocabulary.builtin("voc-20")
    labels = np.ones((2, 3), np.uint16)
    result = EngineResult(
        labels=labels, confidence=labels.astype(np.float32), scores=None, trained=[True] * 20
    )
    return SegmentationResult(
        vocabulary=vocabulary,
        given_colors=[None] * 20,
        spec=SegmentRequest(vocabulary="voc-20"),
        info=INFO,
        result=result,
        picture=None,
        background=of_card(None),
        outputs=frozenset(outputs),
        request_id="id",
        seconds={},
        began=0.0,
        caches=None,
        check=deadline.check,
    )


def test_encoding_stops_when_nobody_waits() -> None:
    deadline = Deadline(60)
    assert encode_answer(segmentation(deadline, "polygons"), "application/json").body.startswith(b"{")
    deadline.abandoned = True
    with pytest.raises(DeadlineExceededError):
        encode_answer(segmentation(deadline, "polygons"), "application/json")
    with pytest.raises(DeadlineExceededError):
        encode_answer(segmentation(Deadline(0), "npy"), "application/x-npy")


def test_warnings_are_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def cautions(*given: object) -> tuple[AnswerWarning, ...]:
        calls.append(given)
        return (AnswerWarning("unknown-words", "some"),)

    monkeypatch.setattr(answer, "cautions", cautions)
    own = (lowered_timeout(5000, 1000),)
    made = encode_answer(replace(segmentation(Deadline(60), "rle"), request_warnings=own), "application/json")
    assert [one.code for one in made.warnings] == ["unknown-words", "lowered-timeout"]
    assert [one["code"] for one in json.loads(made.body)["warnings"]] == ["unknown-words", "lowered-timeout"]
    assert len(calls) == 1


def test_files_need_what_they_are_made_of() -> None:
    made = segmentation(Deadline(60))
    assert np.load(io.BytesIO(make_file(made, "npy"))).shape == (2, 3)
    for name in ("overlay", "scores"):
        with pytest.raises(ValueError, match=f"nothing to make {name} of"):
            make_file(made, name)
