"""What a stranger needs to write a client from the OpenAPI document alone."""

import io
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
from PIL import Image

from service.http.problem_examples import DETAILS
from service.http.problems import KINDS
from service.segmentation.polygons import polygons
from service.segmentation.run_lengths import rles
from tests.service.fakes import PNG, running

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
OPERATIONS = {
    "segment": "POST /v1/segment",
    "segment_batch": "POST /v1/segment/batch",
    "segment_task": "POST /v1/tasks/image-segmentation",
    "list_vocabularies": "GET /v1/vocabularies",
    "get_vocabulary": "GET /v1/vocabularies/{name}",
    "store_vocabulary": "PUT /v1/vocabularies/{name}",
    "remove_vocabulary": "DELETE /v1/vocabularies/{name}",
    "list_models": "GET /v1/models",
    "get_model": "GET /v1/models/{name}",
    "pin_model": "POST /v1/models/{name}:pin",
    "unpin_model": "POST /v1/models/{name}:unpin",
    "rollback_model": "POST /v1/models/{name}:rollback",
    "try_model": "POST /v1/models/{name}:canary",
    "reload_model": "POST /v1/models/{name}:reload",
    "v2_server": "GET /v2",
    "v2_live": "GET /v2/health/live",
    "v2_ready": "GET /v2/health/ready",
    "v2_model": "GET /v2/models/{model}",
    "v2_version": "GET /v2/models/{model}/versions/{version}",
    "v2_model_ready": "GET /v2/models/{model}/ready",
    "v2_version_ready": "GET /v2/models/{model}/versions/{version}/ready",
    "v2_infer": "POST /v2/models/{model}/infer",
    "v2_repository_index": "POST /v2/repository/index",
    "v2_stats": "GET /v2/models/stats",
    "v2_model_stats": "GET /v2/models/{model}/stats",
    "v2_version_stats": "GET /v2/models/{model}/versions/{version}/stats",
    "v2_config": "GET /v2/models/{model}/config",
    "v2_version_config": "GET /v2/models/{model}/versions/{version}/config",
    "v2_infer_version": "POST /v2/models/{model}/versions/{version}/infer",
    "livez": "GET /livez",
    "startupz": "GET /startupz",
    "readyz": "GET /readyz",
    "health": "GET /health",
    "ping": "GET /ping",
    "metrics": "GET /metrics",
}


@pytest.fixture
async def document() -> Json:
    """The document of a service without keys."""
    async with running() as (client, _):
        made: Json = (await client.get("/openapi.json")).json()
    return made


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def form_fields(document: Json) -> Json:
    body = document["paths"]["/v1/segment"]["post"]["requestBody"]["content"]["multipart/form-data"]
    fields: Json = body["schema"]["properties"]
    return fields


def reachable(document: Json, start: Any) -> set[str]:
    """Names of the components that a part of the document refers to, over any number of steps."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(waiting.pop()))) - found
        found |= names
        waiting += [document["components"]["schemas"][name] for name in names]
    return found


async def test_operations_keep_their_names(document: Json) -> None:
    """Generated clients name their functions so."""
    documented = {
        operation["operationId"]: f"{method} {path}" for method, path, operation in operations(document)
    }
    assert documented == OPERATIONS
    tags = {tag["name"] for tag in document["tags"]}
    assert {tag for _, _, operation in operations(document) for tag in operation["tags"]} == tags


async def test_everything_is_described(document: Json) -> None:
    for method, path, operation in operations(document):
        assert operation["summary"], (method, path)
        assert operation["description"], (method, path)
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (path, parameter["name"])
        for status, answer in operation["responses"].items():
            assert answer["description"] not in ("", "Successful Response"), (method, path, status)
    for name, field in form_fields(document).items():
        assert field["description"], name
    names = reachable(document, document["paths"])
    assert {"SegmentRequest", "Rle", "VocabularyDetails", "QuarantinedVersion", "HealthAnswer"} <= names
    for name in names:
        schema = document["components"]["schemas"][name]
        assert schema["description"], name
        for field, about in schema.get("properties", {}).items():
            assert about.get("description"), (name, field)


async def test_errors_are_listed_by_the_word_of_their_type(document: Json) -> None:
    slugs = {status: set[str]() for status in {kind.status for kind in KINDS.values()}}
    for kind in KINDS.values():
        slugs[kind.status].add(kind.slug)
    segment = document["paths"]["/v1/segment"]["post"]["responses"]
    for status, answer in segment.items():
        if status != "200":
            assert set(re.findall(r"\(`([\w-]+)`\)", answer["description"])) == slugs[int(status)], status
    put = document["paths"]["/v1/vocabularies/{name}"]["put"]["responses"]
    assert put["400"]["description"] == "The request cannot be parsed (`malformed-request`)"
    too_large = (
        "The body is too large (`too-many-bytes`); The request needs too much memory (`too-much-memory`)"
    )
    assert put["413"]["description"] == too_large


async def test_every_error_has_an_example_of_its_kind(document: Json) -> None:
    kinds = {(kind.slug, kind.status): kind.title for kind in reversed(KINDS.values())}
    assert DETAILS.keys() == {slug for slug, _ in kinds}
    schema = {"$ref": "#/components/schemas/Problem", "components": document["components"]}
    for _, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status.startswith("2"):
                continue
            ((media, content),) = answer["content"].items()
            if path.startswith("/v2"):
                assert (media, content["example"].keys()) == ("application/json", {"error"}), (path, status)
                continue
            for slug, example in content["examples"].items():
                value = example["value"]
                jsonschema.Draft202012Validator(schema).validate(value)
                assert value["type"] == f"urn:ebseg:problem:{slug}"
                assert value["status"] == int(status)
                assert value["title"] == kinds[slug, value["status"]]


async def test_headers_are_told_and_come() -> None:
    async with running() as (client, _):
        document = (await client.get("/openapi.json")).json()
        mask = await client.post("/v1/segment", files={"image": PNG}, data={"classes": "sky"})
        refused = await client.get("/v1/vocabularies/nothing")
    responses = document["paths"]["/v1/segment"]["post"]["responses"]
    assert responses["200"]["headers"].keys() == {
        "X-Request-ID",
        "Server-Timing",
        "X-EBSeg-Model",
        "X-EBSeg-Untrained",
        "X-EBSeg-Warnings",
    }
    assert {name for name in responses["200"]["headers"] if name not in mask.headers} == {
        "X-EBSeg-Untrained",
        "X-EBSeg-Warnings",
    }
    assert "Retry-After" in responses["429"]["headers"]
    assert "WWW-Authenticate" in responses["401"]["headers"]
    for _, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            for name, header in answer["headers"].items():
                known = name in document["components"]["headers"]
                assert known == (header.get("$ref") == f"#/components/headers/{name}"), (path, name)
            assert {"X-Request-ID", "Server-Timing"} <= answer["headers"].keys(), (path, status)
    assert {"x-request-id", "server-timing"} <= refused.headers.keys()


def examples(node: Any) -> Iterator[tuple[Json, Any]]:
    """Schemas within a part of the document, each with every example of it."""
    if isinstance(node, dict):
        if isinstance(node.get("examples"), list):
            yield from ((node, example) for example in node["examples"])
        for value in node.values():
            yield from examples(value)
    elif isinstance(node, list):
        for value in node:
            yield from examples(value)


async def test_examples_fit_their_schemas(document: Json) -> None:
    documented = 0
    for schema, example in examples(document):
        if "in" in schema:  # a parameter's examples belong to its schema
            continue
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(example)
        documented += 1
    assert documented > 60


def filled(node: Any) -> Iterator[Json]:
    """Schemas within a part of the document that say what /docs fills a form with."""
    if isinstance(node, dict):
        if "example" in node and node.keys() & {"type", "enum", "anyOf", "$ref"}:
            yield node
        for value in node.values():
            yield from filled(value)
    elif isinstance(node, list):
        for value in node:
            yield from filled(value)


async def test_what_docs_fills_a_form_with_fits(document: Json) -> None:
    shown = list(filled(document["paths"]))
    for schema in shown:
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(schema["example"])
    assert len(shown) > 20


async def test_classes_or_a_vocabulary_are_asked_for(document: Json) -> None:
    """What has all that a body requires is answered; without either of the two it fits no schema."""
    components = document["components"]

    def fits(schema: Json, body: Json) -> bool:
        whole = {**schema, "components": components}
        return bool(jsonschema.Draft202012Validator(whole).is_valid(body))

    for path in ("/v1/segment", "/v1/segment/batch"):
        for media, content in document["paths"][path]["post"]["requestBody"]["content"].items():
            if media.startswith(("image/", "application/octet")):
                continue
            image: Any = ["x"] if path.endswith("batch") else "x"
            assert not fits(content["schema"], {"image": image}), (path, media)
            assert fits(content["schema"], {"image": image, "classes": ["sky"]}), (path, media)
            assert fits(content["schema"], {"image": image, "vocabulary": "voc-20"}), (path, media)
            assert not fits(content["schema"], {"classes": ["sky"]}), (path, media)
    assert not fits(components["schemas"]["SegmentRequest"], {"outputs": ["rle"]})


async def test_examples_of_bodies_are_answered_as_they_stand() -> None:
    async with running() as (client, _):
        document = (await client.get("/openapi.json")).json()
        schemas = document["components"]["schemas"]
        for example in schemas["SegmentRequest"]["examples"]:
            files, data = {"image": PNG}, {"request": json.dumps(example)}
            await answered(client, document, files=files, data=data)
        for example in schemas["JsonSegmentRequest"]["examples"]:
            answer = await answered(client, document, json=example)
            assert answer["size"] == {"width": 8, "height": 8}
        fields = form_fields(document)
        classes = {"classes": fields["classes"]["examples"][0]}
        for name, field in fields.items():
            for example in field.get("examples", []):
                given = {} if name == "vocabulary" else classes
                value = example if isinstance(example, list) else str(example)
                await answered(client, document, files={"image": PNG}, data={**given, name: value})
        raw = {"content": PNG, "headers": {"Content-Type": "image/png"}}
        for parameter in document["paths"]["/v1/segment"]["post"]["parameters"]:
            name, schema = parameter["name"], parameter.get("schema", {})
            for example in schema.get("examples", []):
                value = example if isinstance(example, list) else str(example)
                await answered(
                    client,
                    document,
                    params={**({} if name == "vocabulary" else {"classes": "sky"}), name: value},
                    **raw,
                )
        put = document["paths"]["/v1/vocabularies/{name}"]["put"]
        (example,) = put["requestBody"]["content"]["application/json"]["schema"]["examples"]
        (name,) = put["parameters"][0]["schema"]["examples"]
        stored = await client.put(f"/v1/vocabularies/{name}", json=example)
        assert stored.status_code == 201, stored.text
        assert stored.json() == (await client.get(f"/v1/vocabularies/{name}")).json()


async def answered(client: httpx.AsyncClient, document: Json, **request: Any) -> Json:
    """The answer to a segmentation, which has to be a mask as the document has it."""
    answer = await client.post("/v1/segment", **request)
    assert answer.status_code == 200, answer.text
    schema = {"$ref": "#/components/schemas/SegmentAnswer", "components": document["components"]}
    body: Json = answer.json()
    jsonschema.Draft202012Validator(schema).validate(body)
    return body


async def test_examples_of_masks_are_one_mask(document: Json) -> None:
    labels = np.array([[0, 1, 1], [0, 0, 1]], np.uint16)
    (run_lengths,) = rles(labels, 1)
    ((region,),) = polygons(labels, 1)
    schemas = document["components"]["schemas"]
    assert schemas["Rle"]["properties"]["size"]["examples"] == [run_lengths["size"]]
    assert schemas["Rle"]["properties"]["counts"]["examples"] == [run_lengths["counts"]]
    assert schemas["Polygon"]["properties"]["exterior"]["examples"] == [region.exterior.tolist()]


async def test_who_knows_only_the_document_gets_a_mask() -> None:
    """Looks for an operation that takes a form, and sends a file and what the schema has examples of."""
    async with running() as (client, _):
        document = (await client.get("/openapi.json")).json()
        (method, path, operation), *_ = operations(document)  # the first is what the service is for
        fields = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        files = {name: PNG for name, field in fields.items() if field.get("format") == "binary"}
        data = {name: field["examples"][0] for name, field in fields.items() if "examples" in field}
        assert "image/png" in operation["responses"]["200"]["content"]
        headers = {"Accept": "image/png"}
        answer = await client.request(method, path, files=files, data=data, headers=headers)
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as mask:
        assert json.loads(mask.info["classes"]) == ["other", *data["classes"]]
        assert mask.size == (8, 6)
