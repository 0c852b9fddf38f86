"""Answers and errors of the Open Inference Protocol to bytes, without a server."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from model.confidence.background import of_card
from model.confidence.caution import untrained
from model.vocabulary.classes import Vocabulary
from service.errors import DeadlineExceededError, FieldProblem, InvalidRequestError, QueueFullError
from service.http.inference_errors import error_response, speaks_protocol
from service.inference_protocol.answer import MOST_JSON_NUMBERS, check_size, encode_inference
from service.inference_protocol.protocol import Inference
from service.scheduling.deadline import Deadline
from service.scheduling.engine import EngineResult, ModelInfo
from service.schemas.inference_protocol import OUTPUTS, InferenceAnswer
from service.schemas.segment import SegmentRequest
from service.segmentation.answer import SegmentationResult
from tests.service.fakes import INFO
from tests.service.inference_protocol.inference_requests import CLASSES, IMAGE, body, elements, read


def segmentation(info: ModelInfo = INFO, deadline: Deadline | None = None) -> SegmentationResult:
    labels = np.array([[1, 2, 2], [0, 1, 20]], np.uint16)
    result = EngineResult(
        labels=labels,
        confidence=np.array([[0.5, 0.1, 0.75], [0.0, 1.0, 0.3]], np.float32),
        scores=None,
        trained=[index % 2 == 0 for index in range(20)],
    )
    return SegmentationResult(
        vocabulary=Vocabulary.builtin("voc-20"),
        given_colors=[None] * 20,
        spec=SegmentRequest(vocabulary="voc-20"),
        info=info,
        result=result,
        picture=None,
        background=of_card(None),
        outputs=frozenset(),
        request_id="id",
        seconds={"decode": 0.5},
        began=0.0,
        caches=None,
        check=(deadline or Deadline(60)).check,
    )


def asked(*names: str, binary: bool, **fields: Any) -> Inference:
    outputs = [{"name": name, "parameters": {"binary_data": binary}} for name in names]
    return read(*body(IMAGE, CLASSES, outputs=outputs, **fields))


def test_an_answer_in_json() -> None:
    made = segmentation()
    tricky = '"data":[],"outputs":[ü'
    reply = encode_inference(made, asked(*OUTPUTS, binary=False, id=tricky))
    assert (reply.media_type, reply.headers, reply.info) == ("application/json", {}, INFO)
    assert reply.seconds.keys() == {"decode", "encode"}
    document = json.loads(reply.body)
    InferenceAnswer.model_validate(document)
    assert {key: document[key] for key in document if key != "outputs"} == {
        "model_name": "fake",
        "model_version": "3",
        "id": tricky,
        "parameters": {"threshold": 0.0, "threshold_source": "uncalibrated"},
    }
    labels, confidence, names, trained = document["outputs"]
    assert labels == {
        "name": "label_map",
        "shape": [2, 3],
        "datatype": "UINT16",
        "data": [1, 2, 2, 0, 1, 20],
    }
    assert np.array(confidence["data"], np.float32).tolist() == made.result.confidence.ravel().tolist()
    assert (names["shape"], names["data"]) == ([20], made.vocabulary.names)
    assert (trained["datatype"], trained["data"]) == ("BOOL", made.result.trained)


def test_an_answer_with_binary_data() -> None:
    made = segmentation()
    reply = encode_inference(made, asked(*OUTPUTS, binary=True))
    assert reply.media_type == "application/octet-stream"
    length = int(reply.headers["Inference-Header-Content-Length"])
    document, behind = json.loads(reply.body[:length]), reply.body[length:]
    InferenceAnswer.model_validate(document)
    parts = []
    for output in document["outputs"]:
        size = output["parameters"]["binary_data_size"]
        parts.append(behind[:size])
        behind = behind[size:]
        assert "data" not in output
    assert behind == b""
    assert parts[0] == bytes([1, 0, 2, 0, 2, 0, 0, 0, 1, 0, 20, 0])
    assert parts[1] == made.result.confidence.astype("<f4").tobytes()
    assert parts[2] == elements(*(name.encode() for name in made.vocabulary.names))
    assert parts[3] == bytes([1, 0] * 10)


def test_an_untrained_model_is_said_so() -> None:
    reply = encode_inference(
        segmentation(dataclasses.replace(INFO, untrained=True)), asked("label_map", binary=False)
    )
    assert json.loads(reply.body)["parameters"] == {
        "threshold": 0.0,
        "threshold_source": "uncalibrated",
        "untrained": True,
        "warnings": untrained("fake").message,
    }


def test_encoding_stops_when_nobody_waits() -> None:
    deadline = Deadline(60)
    deadline.abandoned = True
    for binary in (True, False):
        with pytest.raises(DeadlineExceededError):
            encode_inference(segmentation(deadline=deadline), asked("label_map", binary=binary))


def test_maps_that_are_too_large_for_json() -> None:
    check_size(asked("label_map", binary=False), (2048, MOST_JSON_NUMBERS // 2048), 1)
    check_size(asked("label_map", "confidence", binary=True), (9000, 9000), 1)
    for names in (("label_map", "confidence"), ("confidence", "label_map", "trained")):
        with pytest.raises(InvalidRequestError) as caught:
            check_size(asked(*names, binary=False), (2048, 1025), 1)
        assert (
            "of 2048 x 1025 are more than 4194304 numbers, too many for JSON"
            in caught.value.fields[0].message
        )


def test_errors_in_one_string() -> None:
    many = InvalidRequestError([FieldProblem(f"classes.{index}", "is empty") for index in range(7)])
    answer = error_response(many, "id")
    reported = "; ".join(f"classes.{index}: is empty" for index in range(5))
    assert (answer.status_code, json.loads(bytes(answer.body))) == (422, {"error": f"{reported}; and more"})
    full = error_response(QueueFullError(3), "id")
    assert (full.status_code, full.headers["retry-after"]) == (429, "3")
    assert full.headers["content-type"] == "application/json"
    inside = json.loads(bytes(error_response(RuntimeError("secret"), "id").body))
    assert inside["error"].startswith("something went wrong inside the service")


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("/v2", "", True),
        ("/v2/x", "", True),
        ("/v20", "", False),
        ("/v1/v2/", "", False),
        ("/a/v2", "/a", True),
    ],
)
def test_which_paths_speak_the_protocol(path: str, root: str, expected: bool) -> None:
    assert speaks_protocol({"path": path, "root_path": root}) is expected
