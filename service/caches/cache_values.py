"""Text embeddings as they lie in Redis: the keys, and a checked header before raw bytes.

offset  bytes  little-endian
     0      4  magic "EBTX"
     4      2  schema
     6      2  dtype: 1 is float32
     8      4  width C, numbers
    12     32  the class's key; a value that was copied under another key is found out
    44      4  crc32 over the 44 bytes before and all after
    48    4 C  the embedding
"""

import hashlib
import math
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SCHEMA = 1
DTYPE = "float32"
LENGTH_TOLERANCE = 1e-3  # of an embedding's length, which is 1; float32 keeps it far better
_MAGIC = b"EBTX"
_FLOAT32 = 1
_HEAD = struct.Struct("<4sHHI32s")
_CRC = struct.Struct("<I")
_START = _HEAD.size + _CRC.size

Row = NDArray[np.float32]


class CorruptValueError(ValueError):
    """Bytes that are no embedding of the class they are stored for; the text says why."""


class EmbeddingKeys:
    """Keys of everything that one text tower makes with one list of templates; 32 bytes each.

    Args:
        text_digest: of the tower's weights and its tokenizer.
        templates: in order.
        owner: who alone finds them again; empty for everybody.
    """

    def __init__(self, text_digest: str, templates: Sequence[str], owner: str = ""):
        own = ["", owner] if owner else []  # no class has an empty name
        head = [text_digest, DTYPE, str(SCHEMA), str(len(templates)), *templates, *own]
        self._base = hashlib.sha256(b"".join(map(_framed, head)))

    def of(self, names: Sequence[str]) -> bytes:
        """The key of classes in this order; of one class it is the class's own."""
        digest = self._base.copy()
        digest.update(b"".join(map(_framed, names)))
        return digest.digest()


def encode(key: bytes, row: Row) -> bytes:
    """Makes the value of an embedding.

    Args:
        key: of the class, 32 bytes.
        row: float32 [C] of unit length.

    Raises:
        ValueError: `row` is none that `decode` would take.
    """
    if row.dtype != np.float32 or row.ndim != 1 or not is_unit(row):
        raise ValueError(f"an embedding is float32 [C] of unit length, got {row.dtype} {list(row.shape)}")
    head = _HEAD.pack(_MAGIC, SCHEMA, _FLOAT32, row.size, key)
    payload = row.astype("<f4").tobytes()
    return head + _CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + payload


def decode(key: bytes, value: bytes, width: int | None) -> Row:
    """Reads a value back.

    Args:
        key: that it was found under, 32 bytes.
        value: what was found.
        width: C, if it is known.

    Returns:
        float32 [C], read-only; it shares memory with `value`.

    Raises:
        CorruptValueError: anything is not as `encode` writes it.
    """
    if len(value) < _START:
        raise CorruptValueError("shorter than its header")
    magic, schema, dtype, count, written_key = _HEAD.unpack_from(value)
    if magic != _MAGIC:
        raise CorruptValueError("wrong magic")
    if schema != SCHEMA:
        raise CorruptValueError("wrong schema")
    if dtype != _FLOAT32:
        raise CorruptValueError("wrong dtype")
    if count == 0 or width not in (None, count):
        raise CorruptValueError("wrong width")
    if written_key != key:
        raise CorruptValueError("another key's value")
    if len(value) != _START + 4 * count:
        raise CorruptValueError("wrong length")
    payload = memoryview(value)[_START:]
    if zlib.crc32(payload, zlib.crc32(value[: _HEAD.size])) != _CRC.unpack_from(value, _HEAD.size)[0]:
        raise CorruptValueError("wrong checksum")
    row: Row = np.frombuffer(payload, "<f4").astype(np.float32, copy=False)
    if not is_unit(row):
        raise CorruptValueError("not of unit length")
    return row


def decode_many(
    keys: Sequence[bytes], values: Sequence[bytes | None], width: int | None
) -> tuple[dict[bytes, Row], list[bytes]]:
    """Reads what was found under keys; of a thousand values it takes some 10 ms.

    Args:
        keys: of classes.
        values: what was found for the first of them; None for a miss.
        width: C, if it is known; otherwise all have to be of the first one's.

    Returns:
        The rows by key, and the keys whose value is corrupt.
    """
    rows: dict[bytes, Row] = {}
    corrupt: list[bytes] = []
    for key, value in zip(keys, values, strict=False):
        if value is None:
            continue
        try:
            rows[key] = decode(key, value, width)
        except CorruptValueError:
            corrupt.append(key)
            continue
        width = rows[key].size
    return rows, corrupt


def value_bytes(width: int) -> int:
    """Length of the value of an embedding of C numbers."""
    return _START + 4 * width


def is_unit(row: Row) -> bool:
    """Whether float32 [C] is of unit length; never if a number in it is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(np.dot(row, row))
    return math.isfinite(square) and abs(math.sqrt(square) - 1) <= LENGTH_TOLERANCE


def _framed(text: str) -> bytes:
    """With its length before it, so that no two lists of texts look the same."""
    raw = text.encode()
    return len(raw).to_bytes(4, "little") + raw
