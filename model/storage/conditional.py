"""One object of a store in the place of another, only if nobody has written there meanwhile.

Amazon's, Google's and Azure's stores compare and write in one: by a tag, a number of a generation, or by
there being no such object yet. fsspec has a common word for the last of these only.
"""

import json
from typing import Any

from model.storage.versions import StoreError

_CONTENT_TYPE = "application/json"
_BOUNDARY = "ebseg-serving-json"
# What a file system says that it speaks, and what it calls the mark of an object's content.
_MARKS = {
    "s3": "ETag",
    "s3a": "ETag",
    "gs": "generation",
    "gcs": "generation",
    "az": "etag",
    "abfs": "etag",
    "abfss": "etag",
}


def can_compare(fs: Any) -> bool:
    """Whether the store behind a file system of fsspec can do it."""
    return _mark_name(fs) is not None


def mark(fs: Any, path: str) -> str | None:
    """What tells the object that is there from any other; None where there is none.

    Raises:
        StoreError: the store does not say.
    """
    name = _mark_name(fs)
    fs.invalidate_cache()
    try:
        found = fs.info(path)
    except FileNotFoundError:
        return None
    if name is None or not found.get(name):
        raise StoreError(f"{path}: the store names no {name} of it, without which nobody can compare")
    return str(found[name])


def put(fs: Any, path: str, content: bytes, former: str | None) -> None:
    """Puts an object there if the one that `mark` told of is still there; or still none.

    Raises:
        Exception: of the store's client, where another one is there: `FileExistsError`, or its answer 412 or
            409 in the words that `serving_state` knows.
    """
    kind = _mark_name(fs)
    if kind == "generation":
        _put_google(fs, path, content, former or "0")  # no object has generation 0
    elif former is None:
        fs.pipe_file(path, content, mode="create")
    elif kind == "ETag":
        fs.pipe_file(path, content, IfMatch=former)
    else:
        from azure.core import MatchConditions

        fs.pipe_file(path, content, etag=former, match_condition=MatchConditions.IfNotModified)


def _put_google(fs: Any, path: str, content: bytes, generation: str) -> None:
    """gcsfs sends no generation but 0, so the upload in one request is written out here."""
    bucket, key, _ = fs.split_path(path)
    parts = (json.dumps({"name": key}).encode(), content)
    body = b"".join(
        b"--%b\r\nContent-Type: %b\r\n\r\n%b\r\n" % (_BOUNDARY.encode(), _CONTENT_TYPE.encode(), part)
        for part in parts
    )
    fs.call(
        "POST",
        fs.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
        bucket,
        headers={"Content-Type": f'multipart/related; boundary="{_BOUNDARY}"'},
        data=body + b"--%b--\r\n" % _BOUNDARY.encode(),
        uploadType="multipart",
        ifGenerationMatch=generation,
    )


def _mark_name(fs: Any) -> str | None:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    return next((_MARKS[one] for one in protocols if one in _MARKS), None)
