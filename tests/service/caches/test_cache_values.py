"""Values in Redis: what is written is read back, and nothing else is."""

import hashlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.caches.cache_values import CorruptValueError, EmbeddingKeys, Row, decode, encode, is_unit

KEY = hashlib.sha256(b"sky").digest()
WIDTH = 8


def unit(seed: int = 0, width: int = WIDTH) -> Row:
    row = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    return row / np.float32(np.linalg.norm(row))


def sealed(head: bytes, payload: bytes) -> bytes:
    """A value whose checksum is right whatever else it says."""
    return head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def header(
    magic: bytes = b"EBTX", schema: int = 1, dtype: int = 1, width: int = WIDTH, key: bytes = KEY
) -> bytes:
    return struct.pack("<4sHHI32s", magic, schema, dtype, width, key)


def test_an_owner_is_told_from_a_class() -> None:
    keys, owned = EmbeddingKeys("d", ["{}."]), EmbeddingKeys("d", ["{}."], "o")
    found = {keys.of(["o", "x"]), owned.of(["x"]), keys.of(["x"]), owned.of(["o", "x"])}
    assert len(found) == 4


def test_layout_on_the_wire() -> None:
    row = unit()
    value = encode(KEY, row)
    assert value == sealed(header(), row.astype("<f4").tobytes())
    assert len(value) == 48 + 4 * WIDTH


@pytest.mark.parametrize("width", [1, 7, 512, 1024])
def test_round_trip_to_the_bit(width: int) -> None:
    row = unit(width=width)
    for known in (None, width):
        back = decode(KEY, encode(KEY, row), known)
        assert back.dtype == np.float32
        assert back.tobytes() == row.tobytes()
    assert not back.flags.writeable


ROW = unit().astype("<f4").tobytes()
NAN = np.where(np.arange(WIDTH) == 3, np.nan, unit()).astype("<f4").tobytes()
INFINITE = np.where(np.arange(WIDTH) == 3, np.inf, unit()).astype("<f4").tobytes()
HUGE = np.full(WIDTH, 3e38, "<f4").tobytes()  # whose square overflows


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "shorter"),
        (b"garbage", "shorter"),
        (b"\x80\x04\x95" + bytes(200), "wrong magic"),
        (header() + b"123", "shorter"),
        (sealed(header(magic=b"EBTY"), ROW), "wrong magic"),
        (sealed(header(schema=2), ROW), "wrong schema"),
        (sealed(header(dtype=2), ROW), "wrong dtype"),
        (sealed(header(width=WIDTH - 1), ROW[:-4]), "wrong width"),
        (sealed(header(width=0), b""), "wrong width"),
        (sealed(header(width=WIDTH), ROW[:-4]), "wrong length"),
        (sealed(header(), ROW + b"\0"), "wrong length"),
        (sealed(header(key=KEY[::-1]), ROW), "another key"),
        (sealed(header(), ROW)[:-1], "wrong length"),
        (sealed(header(), ROW) + b"\0", "wrong length"),
        (sealed(header(), ROW)[:-1] + b"\x7f", "wrong checksum"),
        (header() + bytes(4) + ROW, "wrong checksum"),
        (sealed(header(), NAN), "unit length"),
        (sealed(header(), INFINITE), "unit length"),
        (sealed(header(), HUGE), "unit length"),
        (sealed(header(), bytes(4 * WIDTH)), "unit length"),
        (sealed(header(), (unit() * 1.002).astype("<f4").tobytes()), "unit length"),
    ],
)
def test_anything_else_is_corrupt(value: bytes, reason: str) -> None:
    with pytest.raises(CorruptValueError, match=reason):
        decode(KEY, value, WIDTH)


@given(st.binary(max_size=200))
def test_any_bytes_are_corrupt_and_raise_nothing_else(value: bytes) -> None:
    with pytest.raises(CorruptValueError):
        decode(KEY, value, None)


@given(st.integers(0, 48 * 8 + 32 * WIDTH - 1))
def test_every_flipped_bit_is_found(bit: int) -> None:
    value = bytearray(encode(KEY, unit()))
    value[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptValueError):
        decode(KEY, bytes(value), None)


@pytest.mark.parametrize(
    "row",
    [
        unit() * np.float32(1.01),
        unit().astype(np.float64),
        unit().reshape(2, 4),
        np.full(8, np.nan, np.float32),
    ],
)
def test_what_could_not_be_read_back_is_not_written(row: Row) -> None:
    with pytest.raises(ValueError, match="unit length"):
        encode(KEY, row)


def test_unit_length_within_a_thousandth() -> None:
    assert is_unit(unit() * np.float32(1.0009))
    assert is_unit(unit() * np.float32(0.9991))
    assert not is_unit(unit() * np.float32(1.0011))
    assert not is_unit(unit() * np.float32(0.9989))


def test_keys_depend_on_everything() -> None:
    keys = EmbeddingKeys("tower", ("a {}", "b {}"))
    several = [
        keys.of(["sky", "tree"]),
        keys.of(["tree", "sky"]),
        keys.of(["skyt", "ree"]),
        keys.of(["sky"]),
        keys.of(["Sky"]),
        EmbeddingKeys("tower2", ("a {}", "b {}")).of(["sky"]),
        EmbeddingKeys("tower", ("b {}", "a {}")).of(["sky"]),
        EmbeddingKeys("tower", ("a {}",)).of(["b {}", "sky"]),  # a template is no class
        EmbeddingKeys("tower", ("a {}",)).of(["sky"]),
    ]
    assert len(set(several)) == len(several)
    assert all(len(key) == 32 for key in several)
    assert keys.of(["sky"]) == EmbeddingKeys("tower", ["a {}", "b {}"]).of(["sky"])


def test_the_key_of_a_class_never_changes() -> None:
    """Entries in Redis outlive releases: a change here needs a new schema."""
    parts = ["ab" * 32, "float32", "1", "1", "a photo of a {}.", "grün 🌲"]
    framed = [len(part.encode()).to_bytes(4, "little") + part.encode() for part in parts]
    key = EmbeddingKeys("ab" * 32, ("a photo of a {}.",)).of(["grün 🌲"])
    assert key == hashlib.sha256(b"".join(framed)).digest()
