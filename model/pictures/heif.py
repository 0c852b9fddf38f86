"""How many pixels an AVIF or HEIC file makes its decoder compute, which its header may not say.

The file is boxes (ISO/IEC 14496-12) that hold items (ISO/IEC 23008-12). An item's `ispe` says how large it
is, but the codec believes what the compressed data says: the sequence parameter sets of HEVC (ITU-T H.265,
7.3.2.2.1) and the sequence headers of AV1 (its specification, 5.5.1). All of them are read here, so that a
small picture on the outside is no bomb within.
"""

import struct
from collections.abc import Callable, Iterator

Size = tuple[int, int]  # width, height
Take = Callable[[Size], None]
_DERIVED = frozenset({b"iden", b"tmap", b"Exif", b"mime", b"uri "})  # no pixels of their own
_HEVC = frozenset({b"hvc1", b"hev1"})
_SPS = 33  # NAL unit type
_SEQUENCE_HEADER = 1  # OBU type
MOST_PARTS = 20_000  # boxes, items, NAL units and OBUs of a file; the largest camera writes hundreds


class HeifError(Exception):
    """The file is broken, or holds what is not taken."""


def is_avif(data: bytes) -> bool | None:
    """Whether a file is AVIF, or HEIC; None if it is neither."""
    if data[4:8] != b"ftyp":
        return None
    length = min(struct.unpack_from(">I", data)[0], 512)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, length, 4))}
    if brands & {b"avif", b"avis"}:
        return True
    return False if brands & {b"heic", b"heix", b"heim", b"heis", b"mif1"} else None


def check_sizes(data: bytes, take: Take) -> None:
    """Shows all sizes to `take`, which may raise.

    Raises:
        HeifError: the file is broken, or holds items of other codecs, or a sequence.
    """
    try:
        _File(data, take).check()
    except (struct.error, IndexError, OverflowError):
        raise HeifError("its boxes do not fit") from None


def primary_colors(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer (ITU-T H.273) of the main picture; None where its properties tell none.

    Raises:
        HeifError: the file is broken.
    """
    try:
        return _File(data, lambda size: None).colors()
    except (struct.error, IndexError, OverflowError):
        raise HeifError("its boxes do not fit") from None


class _Bits:
    """Bits of bytes, the highest first."""

    def __init__(self, data: bytes):
        self._number = int.from_bytes(data[:512], "big")
        self._left = 8 * min(len(data), 512)

    def take(self, count: int) -> int:
        if count > self._left:
            raise HeifError("a header of its codec is cut short")
        self._left -= count
        return self._number >> self._left & (1 << count) - 1

    def exp_golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise HeifError("a header of its codec is broken")
        return (1 << zeros) - 1 + self.take(zeros)


class _File:
    """One file, looked through from its first box on."""

    def __init__(self, data: bytes, take: Take):
        self._data = data
        self._take = take
        self._parts = 0
        self._bytes = 0  # of all items; they may overlap

    def check(self) -> None:
        boxes = dict(self._boxes(0, len(self._data)))
        if b"moov" in boxes:
            raise HeifError(
                "it is a sequence, and of AVIF and HEIC still images are taken; send it as GIF, WebP or PNG, "
                "which are taken by `frame`"
            )
        if b"meta" not in boxes:
            raise HeifError("it has no box of items")
        start, end = boxes[b"meta"]
        meta = dict(self._boxes(start + 4, end))
        for kind, place in self._properties(meta):
            self._property(kind, *place)
        types = self._types(*meta[b"iinf"]) if b"iinf" in meta else {}
        if not types or b"iloc" not in meta:
            raise HeifError("it has no items")
        idat = meta.get(b"idat", (0, 0))[0]
        for item, content in self._contents(*meta[b"iloc"], idat):
            kind = types.get(item, b"")
            if kind in _HEVC:
                self._nal_units(content)
            elif kind == b"av01":
                self._obus(content)
            elif kind == b"grid":
                wide = content[1] & 1
                self._take(struct.unpack_from(">II" if wide else ">HH", content, 4))
            elif kind not in _DERIVED:
                raise HeifError(f"it holds an item of the type {kind.decode('latin-1')!r}")

    def colors(self) -> tuple[int, int] | None:
        start, end = dict(self._boxes(0, len(self._data))).get(b"meta", (-4, 0))
        meta = dict(self._boxes(start + 4, end))
        if not {b"pitm", b"iprp"} <= meta.keys():
            return None
        at = meta[b"pitm"][0]
        primary = self._number(at + 4, 4 if self._data[at] else 2)
        properties = [(b"", (0, 0)), *self._properties(meta)]  # which count from 1
        for box, (at, end) in self._boxes(*meta[b"iprp"]):
            for number in self._of_item(primary, at, end) if box == b"ipma" else ():
                kind, (place, stop) = properties[number if number < len(properties) else 0]
                if kind == b"colr" and self._data[place : place + 4] == b"nclx" and place + 8 <= stop:
                    return self._number(place + 4, 2), self._number(place + 6, 2)
        return None

    def _of_item(self, wanted: int, at: int, end: int) -> Iterator[int]:
        """Numbers of an item's properties, from 1."""
        wide, size = (4 if self._data[at] else 2), (2 if self._data[at + 3] & 1 else 1)
        at += 8
        while at < end:
            self._count()
            item, count = self._number(at, wide), self._number(at + wide, 1)
            at += wide + 1
            if item == wanted:
                for place in range(at, at + count * size, size):
                    yield self._number(place, size) & (1 << 8 * size - 1) - 1
            at += count * size

    def _count(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise HeifError("it has too many parts")

    def _boxes(self, at: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """Types of boxes, each with where its content begins and ends."""
        while at + 8 <= end:
            self._count()
            length, kind = struct.unpack_from(">I4s", self._data, at)
            head = 8
            if length == 1:
                length, head = struct.unpack_from(">Q", self._data, at + 8)[0], 16
            stop = end if length == 0 else at + length
            if (length and length < head) or stop > end:
                raise HeifError("its boxes do not fit")
            yield kind, (at + head, stop)
            at = stop

    def _properties(self, meta: dict[bytes, tuple[int, int]]) -> Iterator[tuple[bytes, tuple[int, int]]]:
        for kind, place in self._boxes(*meta.get(b"iprp", (0, 0))):
            if kind == b"ipco":
                yield from self._boxes(*place)

    def _property(self, kind: bytes, at: int, end: int) -> None:
        data = self._data
        if kind == b"ispe":
            self._take(struct.unpack_from(">II", data, at + 4))
        elif kind == b"av1C":
            self._obus(data[at + 4 : end])
        elif kind == b"hvcC":
            if data[at + 21] & 3 != 3:
                raise HeifError("lengths of its NAL units are not of four bytes")
            place = at + 23
            for _ in range(data[at + 22]):
                units = struct.unpack_from(">H", data, place + 1)[0]
                place += 3
                for _ in range(units):
                    length = struct.unpack_from(">H", data, place)[0]
                    self._nal_unit(data[place + 2 : min(end, place + 2 + length)])
                    place += 2 + length

    def _types(self, at: int, end: int) -> dict[int, bytes]:
        """Types of items."""
        count = ">I" if self._data[at] else ">H"
        types: dict[int, bytes] = {}
        for kind, (place, _) in self._boxes(at + 4 + struct.calcsize(count), end):
            version = self._data[place]
            if kind != b"infe" or version not in (2, 3):
                raise HeifError("its list of items cannot be read")
            form = ">H2x4s" if version == 2 else ">I2x4s"
            item, what = struct.unpack_from(form, self._data, place + 4)
            if types.setdefault(item, what) != what:
                raise HeifError("an item has two types")
        return types

    def _contents(self, at: int, end: int, idat: int) -> Iterator[tuple[int, bytes]]:
        """Items, each with all of its bytes."""
        version = self._data[at]
        sizes = struct.unpack_from(">H", self._data, at + 4)[0]
        offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
        index_size = sizes & 15 if version else 0
        at += 6
        wide = 4 if version == 2 else 2
        count, at = self._number(at, wide), at + wide
        for _ in range(count):
            self._count()
            item, at = self._number(at, wide), at + wide
            method = 0
            if version:
                method, at = self._number(at, 2) & 15, at + 2
            source = self._number(at, 2)
            base, at = self._number(at + 2, base_size), at + 2 + base_size
            extents, at = self._number(at, 2), at + 2
            if at > end or source or method not in (0, 1):
                raise HeifError("its items cannot be found")
            pieces = []
            for _ in range(extents):
                self._count()
                at += index_size
                start = base + self._number(at, offset_size) + (idat if method else 0)
                length = self._number(at + offset_size, length_size) or len(self._data) - start
                at += offset_size + length_size
                pieces.append(self._data[start : start + length])
                self._bytes += len(pieces[-1])
                if self._bytes > 2 * len(self._data):
                    raise HeifError("its items overlap")
            yield item, b"".join(pieces)

    def _number(self, at: int, size: int) -> int:
        if at + size > len(self._data):
            raise HeifError("its boxes do not fit")
        return int.from_bytes(self._data[at : at + size], "big")

    def _nal_units(self, data: bytes) -> None:
        at = 0
        while at + 4 <= len(data):
            length = struct.unpack_from(">I", data, at)[0]
            self._nal_unit(data[at + 4 : at + 4 + length])
            at += 4 + length

    def _nal_unit(self, unit: bytes) -> None:
        self._count()
        if len(unit) > 2 and unit[0] >> 1 & 63 == _SPS:
            self._take(_hevc_size(unit))

    def _obus(self, data: bytes) -> None:
        """Open bitstream units."""
        at = 0
        while at < len(data):
            self._count()
            head = data[at]
            at += 2 if head & 4 else 1
            length = len(data) - at
            if head & 2:
                length = shift = 0
                while True:
                    byte = data[at]
                    length |= (byte & 127) << shift
                    at, shift = at + 1, shift + 7
                    if not byte & 128:
                        break
                    if shift > 56:
                        raise HeifError("a unit of its codec has no length")
            if head >> 3 & 15 == _SEQUENCE_HEADER:
                self._take(_av1_size(data[at : at + length]))
            at += length


def _hevc_size(unit: bytes) -> Size:
    """Width and height of a sequence parameter set."""
    bits = _Bits(unit[:512].replace(b"\0\0\3", b"\0\0")[2:])
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.exp_golomb()
    if bits.exp_golomb() == 3:
        bits.take(1)
    return bits.exp_golomb(), bits.exp_golomb()


def _av1_size(unit: bytes) -> Size:
    """Largest width and height of the frames that follow a sequence header."""
    bits = _Bits(unit)
    bits.take(3 + 1)
    if bits.take(1):  # reduced, as of a still
        bits.take(5)
    else:
        model, delay = False, 0
        if bits.take(1):  # timing
            bits.take(64)
            if bits.take(1):
                bits.exp_golomb()
            model = bool(bits.take(1))
            if model:
                delay = bits.take(5) + 1
                bits.take(32 + 10)
        display = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if model and bits.take(1):
                bits.take(2 * delay + 1)
            if display and bits.take(1):
                bits.take(4)
    width, height = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(width) + 1, bits.take(height) + 1
