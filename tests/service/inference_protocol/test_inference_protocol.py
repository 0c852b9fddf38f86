"""Inference requests from bytes, without a server."""

import base64
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.vocabulary.templates import SETS
from service.errors import (
    InvalidRequestError,
    MalformedRequestError,
)
from service.inference_protocol.protocol import read_inference
from service.schemas.segment import SegmentRequest
from tests.service.fakes import BASE64, PNG
from tests.service.inference_protocol.inference_requests import (
    BINARY_CLASSES,
    BINARY_IMAGE,
    CLASSES,
    IMAGE,
    Json,
    body,
    elements,
    read,
    tensor,
)


def malformed(content: bytes, header: str | None = None) -> str:
    with pytest.raises(MalformedRequestError) as caught:
        read(content, header)
    assert len(caught.value.detail) < 600
    return caught.value.detail


def wrong(*inputs: Json, **fields: Any) -> str:
    return malformed(*body(*inputs, **fields))


@pytest.mark.parametrize("image", [IMAGE, BINARY_IMAGE])
@pytest.mark.parametrize("classes", [CLASSES, BINARY_CLASSES])
def test_json_and_binary_data_say_the_same(image: Json, classes: Json) -> None:
    content, header = body(image, classes)
    inference = read(content, header, 3)
    assert inference.parsed.read_picture() == PNG
    spec = inference.parsed.spec
    assert spec == SegmentRequest(classes=["sky", "tree"], model="fake", version=3)  # type: ignore[list-item]
    assert [(one.tensor.name, one.binary) for one in inference.outputs] == [("label_map", False)]
    assert inference.id is None


def test_the_body_and_the_picture_are_kept_no_longer_than_needed() -> None:
    content, header = body(BINARY_CLASSES, BINARY_IMAGE)
    chunks = [content[:100], content[100:]]
    inference = read_inference(chunks, header, model="fake", version=None)
    assert chunks == []
    assert inference.parsed.read_picture() == PNG
    with pytest.raises(IndexError):
        inference.parsed.read_picture()


@pytest.mark.parametrize("threshold", [tensor("threshold", [0.25]), tensor("threshold", b"\0\0\x80\x3e", 1)])
def test_everything_that_can_be_asked_for(threshold: Json) -> None:
    templates = tensor("templates", ["a {}.", "ein {}, groß"])
    content, header = body(
        threshold,
        templates,
        BINARY_IMAGE,
        CLASSES,
        id="42",
        model_name="fake",
        parameters={"timeout": 1_500_001, "binary_data_output": True},
        outputs=[{"name": "class_names", "parameters": {"binary_data": False}}, {"name": "confidence"}],
    )
    inference = read(content, header)
    spec = inference.parsed.spec
    assert (spec.timeout_ms, spec.templates) == (1501, ("a {}.", "ein {}, groß"))
    assert spec.background is not None
    assert spec.background.threshold == 0.25
    assert [(one.tensor.name, one.binary) for one in inference.outputs] == [
        ("class_names", False),
        ("confidence", True),
    ]
    assert inference.id == "42"


def test_defaults() -> None:
    spec = read(*body(IMAGE, CLASSES, parameters={"timeout": 0}, outputs=[])).parsed.spec
    assert (spec.timeout_ms, spec.background, spec.templates) == (None, None, SETS["vild"])
    plain = read(*body(IMAGE, CLASSES, tensor("templates", ["plain"]))).parsed.spec
    assert plain.templates == SETS["plain"]
    (only,) = read(*body(IMAGE, CLASSES, parameters={"binary_data_output": True})).outputs
    assert (only.tensor.name, only.binary) == ("label_map", True)


def test_base64_where_it_is_said() -> None:
    names = [base64.b64encode(name.encode()).decode() for name in ("sky", "Bäume")]
    marked = {"content_type": "base64"}
    classes = tensor("classes", names, parameters=marked)
    assert [one.name for one in read(*body(IMAGE, classes)).parsed.spec.classes or []] == ["sky", "Bäume"]
    picture = tensor("image", [BASE64], parameters=marked)
    assert read(*body(picture, CLASSES)).parsed.read_picture() == PNG
    packed = elements(BASE64.encode())
    both = tensor("image", packed, 1, parameters={**marked, "binary_data_size": len(packed)})
    assert read(*body(both, CLASSES)).parsed.read_picture() == PNG
    assert "(classes): must be base64" in wrong(IMAGE, tensor("classes", ["sky!"], parameters=marked))
    assert "(image): must be base64" in wrong(tensor("image", ["ü"]), CLASSES)
    text = {"content_type": "str"}
    assert "in JSON an image is base64" in wrong(tensor("image", [BASE64], parameters=text), CLASSES)
    assert "content_type is for BYTES" in wrong(IMAGE, CLASSES, tensor("threshold", [0], parameters=text))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"inputs": ["\\ud800"]}', PNG])
def test_what_is_no_document(content: bytes) -> None:
    for header in (None, str(len(content))):
        assert malformed(content, header)


def test_what_is_no_json_is_said_so() -> None:
    assert "no JSON" in malformed(b"{")
    assert "Inference-Header-Content-Length must tell" in malformed(body(IMAGE, BINARY_CLASSES)[0])
    assert "no JSON" in malformed(b"[" * 100_000)
    assert malformed(b'{"inputs": [' + b"0," * 200_001 + b"0]}") == "the document holds too many values"


@pytest.mark.parametrize("header", ["", "-1", "+5", "1e2", "0x10", "²", "٣", "1 2", "9" * 19, "9" * 5000])
def test_a_length_that_is_none(header: str) -> None:
    assert "must be a whole number" in malformed(body(IMAGE, CLASSES)[0], header)


def test_lengths_and_the_body_do_not_agree() -> None:
    content, header = body(BINARY_IMAGE, BINARY_CLASSES)
    assert header is not None
    left = len(content) - int(header)
    assert f"but the body has {len(content)} bytes" in malformed(content, str(len(content) + 1))
    assert "no JSON" in malformed(content, "0")
    assert "no JSON" in malformed(content, str(int(header) - 1))
    assert "no JSON" in malformed(content, str(int(header) + 1))
    assert "1 bytes at the body's end belong to no input" in malformed(content + b"x", header)
    short = malformed(content[:-1], header)
    assert short == "inputs.1: binary_data_size is 15, but the body has 14 bytes left"
    assert left == len(PNG) + 4 + 15
    json_only, _ = body(IMAGE, CLASSES)
    assert "2 bytes at the body's end" in malformed(json_only + b"{}", str(len(json_only)))


@pytest.mark.parametrize("size", [-1, 1 << 63, 1 << 200, 1.5, "4", True])
def test_a_size_that_is_none(size: Any) -> None:
    classes = {**BINARY_CLASSES, "parameters": {"binary_data_size": size}}
    assert "inputs.1.parameters.binary_data_size" in wrong(IMAGE, classes)


@pytest.mark.parametrize(
    ("data", "count", "message"),
    [
        (b"", 2, "the shape has 2 elements, and the binary data 0"),
        (elements(b"sky"), 2, "the shape has 2 elements, and the binary data 1"),
        (elements(b"sky", b"tree"), 1, "8 bytes of the binary data are left after 1 elements"),
        (elements(b"sky")[:-1], 1, "element 0 says it has 3 bytes, but there are 2 left"),
        (b"\xff\xff\xff\xff", 1, "element 0 says it has 4294967295 bytes, but there are 0 left"),
        (b"\x01\0\0", 1, "the shape has 1 elements, and the binary data 0"),
        (elements(b"sky", b"\xc3"), 2, "must be UTF-8"),
        (b"", 1 << 62, "at most 4096 elements"),
        (b"", 4097, "at most 4096 elements"),
    ],
)
def test_binary_elements_that_cannot_be(data: bytes, count: int, message: str) -> None:
    assert wrong(IMAGE, tensor("classes", data, count)).startswith(f"inputs.1 (classes): {message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datatype": "UINT8"}, "(classes): datatype must be BYTES, not 'UINT8'"),
        ({"shape": [2, 1]}, "(classes): shape must be [-1], -1 being any length, not [2, 1]"),
        ({"shape": []}, "(classes): shape must be [-1]"),
        ({"shape": [-1]}, "inputs.1.shape.0: must be at least 0"),
        ({"shape": [10**30]}, "inputs.1.shape.0: "),
        ({"shape": [2.5]}, "inputs.1.shape.0: "),
        ({"shape": "2"}, "inputs.1.shape: "),
        ({"shape": [3]}, "(classes): the shape has 3 elements, and data 2"),
        ({"shape": [1]}, "(classes): the shape has 1 elements, and data 2"),
        ({"shape": [10**18]}, "(classes): at most 4096 elements"),
        ({"data": ["sky", 3]}, "(classes): data must be a flat list of strings"),
        ({"data": [["sky", "tree"]], "shape": [1]}, "(classes): data must be a flat list of strings"),
        ({"data": "sky"}, "inputs.1.data: "),
        ({"data": None}, "(classes): give either data or binary_data_size"),
        ({"name": "labels"}, "inputs.1: there is no input 'labels'; there are image, classes, templates"),
        ({"name": "x" * 101}, "inputs.1.name: "),
        ({"name": None}, "inputs.1.name: "),
        ({"color": "red"}, "inputs.1.color: unknown field"),
        ({"parameters": {"shared_memory_region": "r"}}, "parameters.shared_memory_region: unknown field"),
        ({"parameters": {"content_type": "np"}}, "inputs.1.parameters.content_type: "),
        ({"name": "image", "shape": [1], "data": [BASE64]}, "inputs.1 (image): is there twice"),
    ],
)
def test_an_input_that_cannot_be(changes: Json, message: str) -> None:
    assert message in wrong(IMAGE, CLASSES | changes)


def test_inputs_that_are_missing_or_too_many() -> None:
    assert wrong(CLASSES) == "inputs: image must be there"
    assert wrong(tensor("threshold", [0.5])) == "inputs: image and classes must be there"
    assert wrong().startswith("inputs: ")
    assert wrong(*[CLASSES] * 17).startswith("inputs: ")
    assert wrong(*[{}] * 16).count(": ") == 5  # problems reported
    both = tensor("classes", ["sky", "tree"], parameters={"binary_data_size": 0})
    content, _ = body(IMAGE, both)
    assert "give either data or binary_data_size" in malformed(content, str(len(content)))
    content, _ = body(tensor("image", elements(PNG), 1), CLASSES)
    alone = content[: -len(elements(PNG))]
    assert "binary data needs the header" in malformed(alone)


def test_thresholds_that_cannot_be() -> None:
    for data in ([True], ["0.5"], [None], [[0.5]]):
        assert "(threshold): data must hold numbers" in wrong(IMAGE, CLASSES, tensor("threshold", data))
    assert "the size of one FP32" in wrong(IMAGE, CLASSES, tensor("threshold", b"\0" * 8, 1))
    for value in ([1.5], [-1], [10**400], struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))):
        with pytest.raises(InvalidRequestError) as caught:
            read(*body(IMAGE, CLASSES, tensor("threshold", value, 1)))
        assert caught.value.fields[0].message == "must be between 0 and 1"


@pytest.mark.parametrize("templates", [[], ["no brace"], ["{} {}"], ["{}"] * 101])
def test_templates_that_cannot_be(templates: list[str]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read(*body(IMAGE, CLASSES, tensor("templates", templates)))
    assert caught.value.fields[0].field == "templates"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_name": "other"}, "model_name must be left out, or be the path's: fake"),
        ({"id": 42}, "id: "),
        ({"inputs": {}}, "inputs: "),
        ({"sequence": 1}, "sequence: unknown field"),
        ({"parameters": {"priority": 1}}, "parameters.priority: unknown field"),
        ({"parameters": {"timeout": -1}}, "parameters.timeout: "),
        ({"parameters": {"timeout": "5"}}, "parameters.timeout: "),
        ({"parameters": {"binary_data_output": 1}}, "parameters.binary_data_output: "),
        ({"outputs": [{"name": "masks"}]}, "outputs.0: there is no output 'masks'; there are label_map, "),
        ({"outputs": [{"name": "label_map"}] * 2}, "outputs.1 (label_map): is there twice"),
        ({"outputs": [{"name": "label_map"}] * 17}, "outputs: "),
        ({"outputs": [{}]}, "outputs.0.name: "),
        (
            {"outputs": [{"name": "label_map", "parameters": {"classification": 3}}]},
            "outputs.0.parameters.classification: unknown field",
        ),
    ],
)
def test_fields_that_cannot_be(fields: Json, message: str) -> None:
    assert message in wrong(IMAGE, CLASSES, **fields)


@pytest.mark.parametrize(
    ("microseconds", "ms"), [(0, None), (1, 1), (120_000_000, 120_000), (120_000_001, 120_001)]
)
def test_microseconds_are_rounded_up(microseconds: int, ms: int | None) -> None:
    spec = read(*body(IMAGE, CLASSES, parameters={"timeout": microseconds})).parsed.spec
    assert spec.timeout_ms == ms


@settings(max_examples=50, deadline=None)
@given(
    at=st.integers(0, 700),
    cut=st.integers(0, 4),
    put=st.binary(max_size=4),
    length=st.one_of(st.none(), st.integers(-3, 3)),
)
def test_a_body_with_an_accident_is_read_or_refused(
    at: int, cut: int, put: bytes, length: int | None
) -> None:
    content, header = body(BINARY_IMAGE, BINARY_CLASSES, tensor("threshold", [0.5]))
    assert header is not None
    spoilt = content[:at] + put + content[at + cut :]
    try:
        inference = read(spoilt, None if length is None else str(int(header) + length))
    except (MalformedRequestError, InvalidRequestError):
        pass
    else:
        assert inference.parsed.read_picture()
