"""The manifest of a checkpoint folder: which files it holds, and what they are.

Written last, so a folder without a manifest is a folder that was never finished. It carries a seal,
the digest of its own content, since no other file vouches for it. Needs no torch: a registry reads
manifests of many versions without loading any.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from model.confidence.card import Card, card_values, check_license
from model.errors import CheckpointError, UnfinishedError
from model.network.json_reading import read
from model.storage.files import replacing

SCHEMA = 2
READABLE = (1, SCHEMA)  # schema 1 has neither licence nor card
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TRAINING_CLASSES = "training_classes.json"
GOLDEN = "golden.safetensors"
METRICS = "metrics.json"
FILES = (WEIGHTS, CONFIG, TRAINING_CLASSES, GOLDEN, METRICS)

_SINCE_2 = ("license", "card")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of the folder: its digest and its size."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a checkpoint folder says about itself.

    Attributes:
        schema: layout of the folder; this code writes `SCHEMA` and reads `READABLE`.
        name, version: the model's name in the registry and the version's number, from 1 up.
        variant: name of the configuration ("tiny", "base", "large").
        untrained: the weights are random; the masks mean nothing.
        files: digest and size of each of `FILES`.
        digest: sha256 over the files' digests: the identity of the version.
        text_digest: sha256 over the text tower's tensors, all that text embeddings depend on.
        parent: digest of the version that this one was trained from.
        created: ISO time, UTC.
        training: free notes on where the weights come from; JSON.
        license: of the weights, as SPDX writes it; None if nobody said.
        card: what the model is for and what it knows; None if nobody said.
    """

    schema: int = SCHEMA
    name: str
    version: int
    variant: str
    untrained: bool
    files: dict[str, FileEntry]
    digest: str
    text_digest: str
    parent: str | None
    created: str
    training: dict[str, Any]
    license: str | None = None
    card: Card | None = None

    def __post_init__(self) -> None:
        check_name(self.name, self.version)
        if self.license is not None:
            check_license(self.license, f"{MANIFEST}: license")
        if self.schema == 1 and (self.license, self.card) != (None, None):
            raise CheckpointError(f"{MANIFEST}: schema 1 has neither license nor card")
        if set(self.files) != set(FILES):
            raise CheckpointError(f"{MANIFEST}: files must be {', '.join(FILES)}; got {sorted(self.files)}")
        if any(SHA256.fullmatch(entry.sha256) is None or entry.bytes < 0 for entry in self.files.values()):
            raise CheckpointError(f"{MANIFEST}: a file's sha256 or size is malformed")
        if self.digest != files_digest(self.files):
            raise CheckpointError(f"{MANIFEST}: digest does not match the digests of the files")
        try:
            datetime.fromisoformat(self.created)
        except ValueError:
            raise CheckpointError(f"{MANIFEST}: created is no ISO time: {self.created!r}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, those that its schema has."""
        values = dataclasses.asdict(self) | {"card": None if self.card is None else self.card.to_dict()}
        return {name: values[name] for name in _fields(self.schema)}

    def to_json(self) -> str:
        """Text of manifest.json, seal included."""
        values = json.loads(to_json(self.to_dict()))  # as a reader will see it: lists, keys of text
        return to_json(values | {"seal": _seal(values)})

    def refuse_other_files(self, sizes: Mapping[str, int]) -> None:
        """Compares names and sizes with what lies in a folder, the manifest left out.

        Args:
            sizes: bytes of each file there.

        Raises:
            UnfinishedError: a file is missing or short. Whatever lies beside it may belong to a copy.
            CheckpointError: a file is too long, or one too many.
        """
        for name, entry in self.files.items():
            if name not in sizes:
                raise UnfinishedError(f"{name} is missing")
            if sizes[name] < entry.bytes:
                raise UnfinishedError(f"{name} has {sizes[name]} of its {entry.bytes} bytes")
        for name, entry in self.files.items():
            if sizes[name] > entry.bytes:
                raise CheckpointError(f"{name} has {sizes[name]} bytes, the manifest says {entry.bytes}")
        extra = sorted(sizes.keys() - {*self.files, MANIFEST})
        if extra:
            raise CheckpointError(f"unexpected files: {', '.join(extra)}")

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """The opposite of `to_json`.

        Raises:
            CheckpointError: the text is no manifest, or was changed after it was written.
            UnfinishedError: it is no JSON, as the first part of a manifest is none.
        """
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UnfinishedError(f"{MANIFEST} is not valid JSON: {error}") from None
        values = json_object(text, MANIFEST)
        seal = values.pop("seal", None)
        # before the seal, since another schema may seal otherwise
        schema = values.get("schema")
        if type(schema) is not int or schema not in READABLE:
            raise CheckpointError(
                f"{MANIFEST}: schema {schema!r} is unknown, this ebseg reads schemas "
                f"{' and '.join(map(str, READABLE))}; a newer ebseg may read it"
            )
        if seal != _seal(values):
            raise CheckpointError(f"{MANIFEST}: content and seal do not match, it was changed or damaged")
        if odd := sorted(values.keys() ^ set(_fields(schema))):
            raise CheckpointError(f"{MANIFEST}: missing or unknown fields {odd}")
        if isinstance(values.get("card"), dict):
            values["card"] = card_values(values["card"])
        manifest: Manifest = read(cls, values, MANIFEST, CheckpointError)
        return manifest


def rewrite(folder: Path, manifest: Manifest) -> None:
    """Puts another manifest in the place of a folder's, whole or not at all; the version stays what it is.

    Args:
        folder: a version folder.
        manifest: of the same files, which are not looked at.

    Raises:
        CheckpointError: it is of other files.
        OSError: the disk did not take it.
    """
    path = folder / MANIFEST
    if Manifest.from_json(path.read_bytes()).files != manifest.files:
        raise CheckpointError(f"{path} is of other files than what is to be written")
    with replacing(path, beside=folder) as partial:  # not in it: readers refuse more files
        partial.write_text(manifest.to_json(), encoding="utf-8")


def check_name(name: str, version: int) -> None:
    """Refuses what cannot be `<registry>/<name>/<version>` on every store.

    Raises:
        CheckpointError: with the rule that was broken.
    """
    if _NAME.fullmatch(name) is None:
        raise CheckpointError(
            "a model's name must be of letters, digits, dots, dashes and underscores, the first a letter or "
            f"digit; got {name!r}"
        )
    if version < 1:
        raise CheckpointError(f"a version must be a whole number from 1 up, got {version}")


def files_digest(files: Mapping[str, FileEntry]) -> str:
    """The digest of a version: sha256 over "name sha256" lines in the order of the names."""
    lines = "".join(f"{name} {files[name].sha256}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def to_json(values: dict[str, Any]) -> str:
    """JSON as the folder's files hold it.

    Raises:
        CheckpointError: a value that JSON cannot hold, NaN and infinity included.
    """
    try:
        return json.dumps(values, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"cannot be written as JSON: {error}") from None


def json_object(text: str | bytes, source: str) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        CheckpointError: no JSON, or no object; `source` is what the message names.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{source} must hold a JSON object, got a {type(values).__name__}")
    return values


def _seal(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _fields(schema: int) -> tuple[str, ...]:
    names = (item.name for item in dataclasses.fields(Manifest))
    return tuple(name for name in names if schema > 1 or name not in _SINCE_2)
