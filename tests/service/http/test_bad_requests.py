"""What strangers send, and what they are told: a status, and words that name what was seen and what to do."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.service.fakes import BASE64, PNG, live

ONE, BATCH, LISTS = "/v1/segment", "/v1/segment/batch", "/v1/vocabularies/"
IMAGE = ("image", ("a.png", PNG))
SKY = ("classes", (None, "sky"))
WHOLE = json.dumps({"image": BASE64, "classes": ["sky"]})
PNG_TYPE = {"content-type": "image/png"}
JSON_TYPE = {"content-type": "application/json"}


def document(**fields: Any) -> dict[str, Any]:
    """A JSON request with other fields than a good one."""
    return {"json": {"image": BASE64, "classes": ["sky"], **fields}}


def form(*parts: Any) -> dict[str, Any]:
    return {"files": list(parts)}


def raw(data: bytes) -> dict[str, Any]:
    return {"content": data, "headers": PNG_TYPE}


# path, what is sent, the status, and a part of what is told
REQUESTS: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "nothing": (ONE, {}, 415, "this one has no Content-Type"),
    "form of a page": (ONE, {"data": {"classes": "sky"}}, 415, "'application/x-www-form-urlencoded'"),
    "empty object": (ONE, {"json": {}}, 422, "give either classes or vocabulary; neither came"),
    "curl without a type": (
        ONE,
        {"content": PNG, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        415,
        "curl's -F sends the file a.jpg as image=@a.jpg, or add -H",
    ),
    "no object": (ONE, {"content": b"sky", "headers": JSON_TYPE}, 400, "is no JSON: expected value"),
    "threshold": (ONE, document(threshold=0.3), 422, "did you mean background.threshold?"),
    "bare threshold": (ONE, document(background=0.3), 422, 'must be an object, such as {"threshold": 0.3}'),
    "one output": (ONE, document(outputs="rle"), 422, 'must be a list, such as ["rle", "png"]'),
    "one synonym": (
        ONE,
        document(classes=[{"name": "a", "synonyms": "b"}]),
        422,
        'classes.0.synonyms: must be a list, such as ["bush"]',
    ),
    "document in a form": (
        ONE,
        form(IMAGE, SKY, ("background", (None, '{"threshold": 0.3}'))),
        422,
        "must be a number, such as 0.3, in a form background=0.3",
    ),
    "regions in a form": (
        ONE,
        form(IMAGE, SKY, ("regions", (None, '{"min_area": 3}'))),
        422,
        "regions: has no form as text; send everything in a JSON document, in the field request",
    ),
    "threshold in a form": (
        ONE,
        form(IMAGE, SKY, ("threshold", (None, "1"))),
        422,
        "did you mean background?",
    ),
    "list": (ONE, {"json": []}, 422, "the document must be a JSON object"),
    "cut JSON": (ONE, {"content": WHOLE[:20], "headers": JSON_TYPE}, 400, "EOF while parsing"),
    "mark": (ONE, {"content": b"\xef\xbb\xbf" + WHOLE.encode(), "headers": JSON_TYPE}, 400, "byte order"),
    "UTF-16": (ONE, {"content": WHOLE.encode("utf-16"), "headers": JSON_TYPE}, 400, "byte order mark"),
    "data URL of SVG": (ONE, document(image="data:image/svg+xml;utf8,<svg/>"), 422, "in base64 only"),
    "data URL without a comma": (ONE, document(image="data:image/png;base64"), 422, "in base64 only"),
    "data URL of a text": (ONE, document(image="data:text/plain;base64,aGVsbG8="), 415, "this is text"),
    "base64 for URLs": (ONE, document(image="_-" + BASE64[2:]), 422, "which only the form for URLs has"),
    "cut base64": (ONE, document(image=BASE64[:-3]), 422, "it was cut short"),
    "no base64": (ONE, document(image=""), 400, "the image is empty"),
    "null": (ONE, document(image=None), 422, "image: is missing, and so is url"),
    "file's name": (ONE, document(image="C:\\photo.JPG"), 422, "this is the name of a file"),
    "URL as image": (ONE, document(image="https://a.test/a.jpg"), 422, "goes into the field url"),
    "list of bytes": (ONE, document(image=[137, 80]), 422, "image: must be text: the file's bytes in base64"),
    "bytes as Python prints": (ONE, document(image=repr(PNG)), 422, 'character 1 is "\'"'),
    "twice in base64": (
        ONE,
        document(image=base64.b64encode(BASE64.encode()).decode()),
        415,
        "an image in base64, and its bytes are wanted",
    ),
    "URL": (
        ONE,
        {"json": {"url": "https://a.test/a", "classes": ["a"]}},
        422,
        "url_hosts and url_buckets",
    ),
    "both images": (ONE, document(url="https://a.test/a"), 422, "either in image, or by its url"),
    "no class": (ONE, document(classes=[]), 422, "the class list is empty; give at least one"),
    "empty text": (ONE, document(classes=""), 422, "class 0 has an empty name"),
    "a comma too many": (ONE, document(classes="sky, tree,"), 422, "class 2 has an empty name"),
    "twice by case": (ONE, document(classes=["Sky", "sky"]), 422, "'Sky' is the same but for its case"),
    "twice": (ONE, document(classes=["sky", "sky"]), 422, "class 'sky' is given twice (places 0 and 1"),
    "twice to the model": (
        ONE,
        document(classes=["apple pie", "apple\u00a0pie"]),
        422,
        "'apple pie' is the same to the model, which reads 'apple pie' in both",
    ),
    "numbers": (
        ONE,
        document(classes=[1]),
        422,
        "must be a name, or an object with a name, and is a number",
    ),
    "list in a list": (ONE, document(classes=[["sky"]]), 422, "and is a list"),
    "object of classes": (ONE, document(classes={"sky": 1}), 422, "classes: must be a list"),
    "label of a class": (ONE, document(classes=[{"label": "sky"}]), 422, "did you mean name?"),
    "colour's name": (ONE, document(classes=[{"name": "a", "color": "red"}]), 422, "such as #1f77b4"),
    "long name": (ONE, document(classes=["x" * 300]), 422, "has 300 characters, at most 200 are allowed"),
    "classes and a list": (ONE, document(vocabulary="voc-20"), 422, "vocabulary; both came"),
    "labels": (
        ONE,
        {"json": {"image": BASE64, "labels": ["sky"]}},
        422,
        "unknown field; did you mean cl",
    ),
    "unknown list": (
        ONE,
        {"json": {"image": BASE64, "vocabulary": "coco"}},
        404,
        "built in are coco-stuff",
    ),
    "template": (ONE, document(templates=["a %s"]), 422, 'must hold "{}" exactly once'),
    "percent": (ONE, document(background={"threshold": 50}), 422, "threshold: must be at most 1"),
    "infinite": (
        ONE,
        {"content": WHOLE[:-1] + ', "background": {"threshold": NaN}}', "headers": JSON_TYPE},
        422,
        "background.threshold: must be finite",
    ),
    "unknown output": (ONE, document(outputs=["mask"]), 422, "outputs.0: must be rle, png, overlay"),
    "no output": (ONE, document(outputs=[]), 422, "outputs: must not be empty"),
    "size": (ONE, document(output_size=512), 422, 'must be "image" or {"long_side": pixels}'),
    "no time": (ONE, document(timeout_ms=0), 422, "timeout_ms: must be at least 1"),
    "frame": (ONE, document(frame=3), 422, "the image has no frame 3; they count from 0"),
    "model": (ONE, document(model="sam"), 404, "this model is not loaded; loaded: fake"),
    "version": (ONE, document(version=99), 404, "this version of fake is not loaded; loaded: 3"),
    "regions": (ONE, document(regions={"min_area": 3}), 422, "regions needs one of coco, geojson"),
    "subject": (ONE, document(outputs=["cutout"], subject="Sky"), 422, "did you mean sky?"),
    "palette": (ONE, document(palette=["red"]), 422, 'must be "distinct", "voc", or a list of colours'),
    "form without an image": (ONE, form(SKY), 422, "send it as a file in this field"),
    "name of a file in a form": (ONE, form(SKY, ("image", (None, "a.png"))), 422, "as image=@a.jpg"),
    "other name": (
        ONE,
        form(SKY, ("file", ("a.png", PNG))),
        422,
        "file: unknown field; did you mean im",
    ),
    "two images": (ONE, form(IMAGE, IMAGE, SKY), 422, "several images go to /v1/segment/batch"),
    "names as PHP sends them": (
        ONE,
        form(IMAGE, ("classes[]", (None, "sky"))),
        422,
        "did you mean classes?",
    ),
    "file of classes": (
        ONE,
        form(IMAGE, ("classes", ("a.txt", b"sky"))),
        422,
        "must be text, not a file",
    ),
    "list without quotes": (ONE, form(IMAGE, ("classes", (None, "[sky]"))), 422, "in brackets is JSON"),
    "tuple": (ONE, form(IMAGE, ("classes", (None, "('sky', 'tree')"))), 422, "quotes or in none"),
    "curly quotes": (
        ONE,
        form(IMAGE, ("classes", (None, "\u201csky\u201d, \u201ctree\u201d"))),
        422,
        "straight double quotes or in none",
    ),
    "single quotes": (
        ONE,
        form(IMAGE, ("classes", (None, "'sky', 'tree'"))),
        422,
        "quotes or in none",
    ),
    "form and document": (
        ONE,
        form(IMAGE, SKY, ("request", (None, "{}"))),
        422,
        "inside the part request",
    ),
    "no boundary": (
        ONE,
        {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "names no boundary; HTTP clients add it",
    ),
    "cut form": (
        ONE,
        {
            "content": b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc',
            "headers": {"content-type": "multipart/form-data; boundary=b"},
        },
        400,
        "the form is cut short",
    ),
    "query beside a form": (f"{ONE}?classes=sky", form(IMAGE), 422, "classes: give it in the body"),
    "image alone": (ONE, raw(PNG), 422, "neither came"),
    "misspelt query": (f"{ONE}?class=sky", raw(PNG), 422, "class: unknown field; did you mean classes?"),
    "page": (f"{ONE}?classes=sky", raw(b"<!DOCTYPE html>"), 415, "this is an HTML page"),
    "text of an image": (f"{ONE}?classes=sky", raw(BASE64.encode()), 415, "an image in base64"),
    "data URL as a body": (
        f"{ONE}?classes=sky",
        raw(b"data:image/png;base64,"),
        415,
        "an image in base64",
    ),
    "compressed": (
        f"{ONE}?classes=sky",
        {"content": PNG, "headers": PNG_TYPE | {"content-encoding": "gzip"}},
        415,
        "without a Content-Encoding",
    ),
    "other responses": (ONE, {"headers": {"accept": "text/html"}}, 406, "responses come as application/json"),
    "wrong place": ("/segment", document(), 404, "/openapi.json lists all paths"),
    "several as JSON": (BATCH, document(), 415, "come as multipart/form-data, each as a part image"),
    "several of none": (BATCH, form(SKY), 422, "send each as a file in this field"),
    "too many": (BATCH, form(*[IMAGE] * 17, SKY), 422, "17 images are too many; 16 are taken"),
    "tensor": ("/v2/models/fake/infer", {"json": {"inputs": []}}, 400, "inputs: must not be empty"),
    "keys": ("/v1/models/fake:pin", {"json": {"version": 1}}, 403, "EBSEG_ADMIN_KEYS"),
}
STORED: dict[str, tuple[str, Any, int, str]] = {
    "name": ("My List", {"classes": ["a"]}, 422, "must be 1 to 100 small letters"),
    "built in": ("voc-20", {"classes": ["a"]}, 409, "store yours by another name"),
    "list": ("mine", ["a"], 422, "the document must be a JSON object"),
    "empty": ("mine", {"classes": []}, 422, "the class list is empty"),
    "case": ("mine", {"classes": ["a", "A"]}, 422, "is the same but for its case"),
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with live() as (url, _), httpx.Client(base_url=url) as made:
        yield made


def told(answer: httpx.Response) -> str:
    """The words of a problem, or of an error of the Open Inference Protocol."""
    found = answer.json()
    return str(found["error"] if "error" in found else found["detail"])


@pytest.mark.parametrize("name", REQUESTS)
def test_a_bad_request_is_told_what_was_seen(name: str, client: httpx.Client) -> None:
    path, sent, status, words = REQUESTS[name]
    answer = client.post(path, **sent)
    assert (answer.status_code, words in told(answer)) == (status, True), answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("name", STORED)
def test_a_bad_list_is_told_what_was_seen(name: str, client: httpx.Client) -> None:
    path, sent, status, words = STORED[name]
    answer = client.put(f"{LISTS}{path}", json=sent)
    assert (answer.status_code, words in told(answer)) == (status, True), answer.text


def test_what_looks_odd_and_is_sound_is_served(client: httpx.Client) -> None:
    lines = "\r\n".join(BASE64[at : at + 20] for at in range(0, len(BASE64), 20))
    for image in (lines, f" {BASE64}\n", f"data:image/jpeg;base64,{BASE64}", f"DATA:;base64,{BASE64}"):
        answer = client.post(ONE, **document(image=image))
        assert answer.status_code == 200, answer.text
    for written in ("'80s car, rock 'n' roll", '["sky"]', '"(small) tree"', "5' pole"):
        answer = client.post(ONE, **form(IMAGE, ("classes", (None, written))))
        assert answer.status_code == 200, answer.text
