"""What each error may look like, for readers of /docs."""

from typing import Any

REQUEST_ID = "0b5c2d7e9f1a4b6c8d3e5f7a9b1c2d4e"
DETAILS = {  # by the slug of a kind
    "malformed-request": "the document is no JSON: expected value at line 1 column 1",
    "bad-picture": "the image is broken or cut short",
    "unauthorized": "this needs a key: send it as Authorization: Bearer KEY or X-API-Key: KEY",
    "forbidden": "this needs an admin key, and the key that was sent is none",
    "not-found": "there is no vocabulary of this name; GET /v1/vocabularies lists all",
    "not-acceptable": "responses come as application/json, image/png, image/webp, application/x-npy",
    "conflict": "this vocabulary is built in and cannot be changed; store yours by another name",
    "body-too-slow": "the body did not arrive within 30 s",
    "headers-too-slow": "the request's headers did not arrive within 10 s",
    "too-many-bytes": "the body is too large; at most 20971520 bytes are taken",
    "too-many-pixels": "the image has 12000 x 9000 = 108000000 pixels, at most 50000000 are taken; "
    "scale it down",
    "too-much-memory": "this request alone needs about 1900 MiB of memory, there are at most 1200; "
    "send a smaller image, or set output_size or fewer outputs",
    "unsupported-media-type": "this takes application/json",
    "invalid-request": "class: unknown field; did you mean classes?",
    "picture-not-fetched": "the image's host answered with status 404",
    "key-limited": "this key may ask 10 times a second; try again in 1 s",
    "queue-full": "the queue is full; try again in 2 s",
    "memory-full": "the requests under way have the memory that this one needs; try again in 2 s",
    "deadline-unmeetable": "the requests that wait leave no chance of a response within timeout_ms; "
    "try again in 3 s",
    "headers-too-large": "the request's headers are too large; at most 65536 bytes are taken",
    "client-gone": "the client hung up before its body was complete",
    "store-unavailable": "the store of vocabularies does not answer; try again in 1 s",
    "out-of-memory": "the device's memory does not hold this image at present",
    "too-many-connections": "the service has as many connections as it takes; try again in 1 s",
    "not-ready": "the model is loading",
    "deadline-exceeded": "no response within 30 s; see timeout_ms",
    "internal-error": "something went wrong inside the service; its log has more under this request_id",
}
FIELDS = {"invalid-request": [{"field": "class", "message": "unknown field; did you mean classes?"}]}


def example(slug: str, status: int, title: str) -> dict[str, Any]:
    """A problem document of a kind, as OpenAPI lists examples: summary and value."""
    value: dict[str, Any] = {
        "type": f"urn:ebseg:problem:{slug}",
        "title": title,
        "status": status,
        "detail": DETAILS[slug],
        "request_id": REQUEST_ID,
    }
    if slug in FIELDS:
        value["errors"] = FIELDS[slug]
    return {"summary": title, "value": value}
