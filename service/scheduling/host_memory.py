"""The host's memory that requests may use: reserved as soon as a size is known, and given back when the last
byte of an answer has left.
"""

import math
import os
import resource
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from service.errors import HostMemoryError, TooMuchMemoryError
from service.scheduling.returns import whole

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SHARE = 0.6  # of what is free: estimates miss, and allocators keep more than was asked for
_BURST = 64 << 20  # bytes reserved at a time, after which it is worth while to return freed memory
_LEAST = 64 << 20  # bytes that requests get in any case
_ARRIVING = 0.5  # of all bytes, for bodies on their way: to be put together each needs as much again
_DECODING = 10  # bytes a pixel: Pillow's four, ours three, and room for alpha and 16 bits
_PICTURE = 3  # bytes a pixel, of the picture that waits for its mask, or for a device
_REGIONS = 46  # bytes an output pixel while regions are found, see `segmentation.regions`
_PREDICTION = 32  # bytes a network pixel, of a hundred masks at a sixteenth of its resolution, and embeddings
_RESULT = 6  # bytes an output pixel: labels and confidence
_COPIES = 3  # of an answer while it is made: a file, its base64, the document
# bytes an output pixel, of an answer's parts at their largest: of noise, files in base64
_PARTS = {
    "png": 1.4,
    "npy": 2.7,
    "overlay": 5,
    "rle": 2,
    "polygons": 9,  # by `segmentation.polygons.CORNER_PIXELS`
    "regions": 9,
    "coco": 2,
    "panoptic": 3,
    "geojson": 9,
    "confidence": 1.4,
    "soft_mask": 1.4,
    "cutout": 4.7,
}
_SCORES = 2.7  # the same of a word's scores
_SHARES = 4  # bytes an output pixel, of what a soft mask is made of beside scores
_PALETTE = 256  # entries; the labels of longer lists have two bytes in a PNG
_TENSORS = 4  # the same of an answer without such parts


class Count(Protocol):
    """Where it is counted: in this process, or for several together.

    Attributes:
        most: bytes that there may be.
    """

    most: int

    @property
    def reserved(self) -> int:
        """Bytes that are reserved."""

    @property
    def arriving(self) -> int:
        """Those of `reserved` that bodies on their way have."""

    def add(self, change: int) -> None:
        """Reserves so many more, or fewer, for this process."""

    def add_arriving(self, change: int) -> None:
        """The same of `arriving`."""

    def whole(self) -> AbstractContextManager[None]:
        """Keeps other processes from changing it."""


class OwnCount:
    """A `Count` of one process alone.

    Args:
        most: bytes that there may be.
    """

    def __init__(self, most: int):
        self.most = most
        self.reserved = self.arriving = 0

    def add(self, change: int) -> None:
        """See `Count`."""
        self.reserved += change

    def add_arriving(self, change: int) -> None:
        """See `Count`."""
        self.arriving += change

    def whole(self) -> AbstractContextManager[None]:
        """See `Count`."""
        return _ALONE


_ALONE: AbstractContextManager[None] = nullcontext()


class HostBytes:
    """A number of bytes that all requests share. For any thread.

    Args:
        most: bytes in all; None for what is free when `settle` is called.
        retry_after: seconds until requests under way are likely to have given back theirs.
        count: where it is counted for several processes; None for this one alone.
        body_s: after which a body is here, or given up.
        answer_s: after which an answer is taken, or given up.
    """

    def __init__(
        self,
        most: int | None,
        retry_after: Callable[[], int] = lambda: 1,
        count: Count | None = None,
        *,
        body_s: float = 0.0,
        answer_s: float = 0.0,
    ):
        self._count = OwnCount(usable() if most is None else most) if count is None else count
        self._own = most is None
        self._retry_after = retry_after
        self.lock = threading.RLock()  # of all accounts too: one that was closed gets nothing more
        self._bodies: dict[HostAccount, Callable[[], None]] = {}  # the longest silent first; what ends each
        self._leaving: dict[HostAccount, float] = {}  # answers, and by when they are gone at the latest
        self._body_s = body_s
        self._answer_s = answer_s
        self._peak = 0  # of `reserved`, since it last subsided

    @property
    def most(self) -> int:
        """Bytes in all."""
        return self._count.most

    @property
    def reserved(self) -> int:
        """Bytes that requests have reserved."""
        return self._count.reserved

    @property
    def arriving(self) -> int:
        """Those of `reserved` that bodies on their way have."""
        return self._count.arriving

    def subsided(self) -> bool:
        """Whether much was reserved since this was last true, and little of it is now."""
        with self.lock:
            if self._peak < _BURST or self.reserved > self._peak / 4:
                return False
            self._peak = self.reserved
            return True

    def settle(self, caches: int) -> None:
        """Takes what is free now, with the models loaded and their caches full, unless a number was given."""
        if self._own:
            self._count.most = max(_LEAST, int(_SHARE * (usable() - caches)))

    def open(self) -> "HostAccount":
        """What one request reserves."""
        return HostAccount(self)

    def _move(self, account: "HostAccount", change: int) -> None:
        if not change:
            return
        with self.lock, self._count.whole():
            held = account.nbytes + change
            if change > 0:
                _refuse_above(held, self.most)
            full = change > 0 and self.reserved + change > self.most
            if not full:
                account.nbytes = held
                self._count.add(change)
                self._peak = max(self._peak, self.reserved)
        if full:
            raise self._full(change)

    def _full(self, change: int) -> HostMemoryError:
        """Says when so many bytes more are likely to be free.

        Requests under way give theirs back first. What clients hold, who do not read their answers or stall
        their bodies, is free when their time is over: nobody knows of an earlier moment.
        """
        with self.lock:
            held = [(until, account.nbytes) for account, until in self._leaving.items()]
            held += [(account.until, account.nbytes) for account in self._bodies]
            missing = self.reserved + change - self.most
            missing -= self.reserved - sum(nbytes for _, nbytes in held)  # of those under way
            return HostMemoryError(max(self._retry_after(), _free_in(held, missing)))

    def _bodies_full(self, change: int) -> HostMemoryError:
        """The same of the part that bodies have."""
        with self.lock:
            held = [(account.until, account.nbytes) for account in self._bodies]
            missing = self.arriving + change - int(_ARRIVING * self.most)
            return HostMemoryError(max(self._retry_after(), _free_in(held, missing)))

    def _arrive(self, account: "HostAccount", nbytes: int) -> None:
        """Reserves bytes of a body; where bodies have their share, the longest silent of larger ones goes."""
        most, held = int(_ARRIVING * self.most), account.nbytes + nbytes
        _refuse_above(held, most)
        while self.arriving + nbytes > most:
            larger = next((body for body in self._bodies if body.nbytes > held), None)
            if larger is None:
                raise self._bodies_full(nbytes)
            end = self._bodies[larger]
            larger.lacked = larger.nbytes
            self._arrived(larger)
            larger.close()
            end()
        self._move(account, nbytes)
        self._count.add_arriving(nbytes)
        self._bodies[account] = self._bodies.pop(account)

    def _arrived(self, account: "HostAccount") -> None:
        if self._bodies.pop(account, None) is not None:
            self._count.add_arriving(-account.nbytes)


class HostAccount:
    """Bytes of one request. For any thread: a picture thread may still reserve when the request has ended.

    Attributes:
        nbytes: that it holds.
        until: when its body's time is over, by `time.monotonic`.
        lacked: bytes of its body that had to go.
    """

    def __init__(self, host: HostBytes):
        self._host = host
        self._picture = 0
        self._closed = False
        self.nbytes = self.lacked = 0
        self.until = 0.0

    @contextmanager
    def arriving(self, end: Callable[[], None]) -> Iterator[None]:
        """While a body is on its way, whose bytes `arrive` reserves.

        Args:
            end: called if a smaller body needs the place, on its thread; what was reserved is given back.

        Raises:
            HostMemoryError: the body had to go, which shows on leaving at the latest.
        """
        host = self._host
        with host.lock:
            host._bodies[self] = end
            self.until = time.monotonic() + host._body_s
        try:
            yield
            if self._closed:
                raise self.full()
        finally:
            with host.lock:
                host._arrived(self)

    def arrive(self, nbytes: int) -> None:
        """Reserves bytes of a body on its way; errors as of `take`, of which bodies have a part only."""
        with self._host.lock:
            if not self._closed:
                self._host._arrive(self, nbytes)

    def full(self) -> HostMemoryError:
        """What is said to a request whose body had to go."""
        return self._host._bodies_full(self.lacked)

    def take(self, nbytes: int) -> None:
        """Reserves bytes of a picture that is fetched, or of a body that is here.

        Raises:
            TooMuchMemoryError: alone it has more than there may be.
            HostMemoryError: others have them.
        """
        with self._host.lock:
            if not self._closed:
                self._host._move(self, nbytes)

    def hold(self, nbytes: int) -> None:
        """Reserves so many in place of those that were held beside the body's; errors as of `take`."""
        with self._host.lock:
            if not self._closed:
                self._host._move(self, nbytes - self._picture)
                self._picture = nbytes

    def keep(self, nbytes: int) -> None:
        """Gives back all but so many: those of an answer that only has to leave."""
        with self._host.lock:
            if not self._closed:
                self._host._move(self, min(0, nbytes - self.nbytes))
                self._host._leaving[self] = time.monotonic() + self._host._answer_s

    def close(self) -> None:
        """Gives back all. May be called again."""
        with self._host.lock:
            if not self._closed:
                self._closed = True
                self._host._leaving.pop(self, None)
                self._host._move(self, -self.nbytes)


def _refuse_above(needed: int, most: int) -> None:
    if needed > most:
        raise TooMuchMemoryError(
            f"this request alone needs about {needed >> 20} MiB of memory, there are at most {most >> 20}; "
            "send a smaller image, or set output_size or fewer outputs"
        )


def _free_in(held: Iterable[tuple[float, int]], missing: int) -> int:
    """Whole seconds until so many bytes are given back by those that hold them until some time."""
    wait = 0
    for until, nbytes in sorted(held):
        if missing <= 0:
            break
        missing -= nbytes
        wait = whole(until - time.monotonic())
    return wait


def decoding_bytes(pixels: int) -> int:
    """What decoding a picture takes at its peak."""
    return _DECODING * pixels


def answer_bytes(pixels: int, words: int, outputs: frozenset[str]) -> int:
    """What a request holds from its turn on a device to its answer, at the most.

    Args:
        pixels: of the output.
        words: of the vocabulary.
        outputs: of the answer.
    """
    parts = sum(_SCORES * words if part == "scores" else _PARTS[part] for part in outputs) or _TENSORS
    parts += _PARTS["png"] if "png" in outputs and words >= _PALETTE else 0
    held = _RESULT + (_PICTURE if outputs & {"overlay", "cutout"} else 0)
    held += _REGIONS if outputs & {"regions", "coco", "panoptic", "geojson"} else 0
    held += 2 * words if outputs & {"soft_mask", "scores"} else 0
    held += _SHARES if "soft_mask" in outputs else 0
    return math.ceil(pixels * (held + _COPIES * parts))


def prepared_bytes(cost: int) -> int:
    """What a picture in one piece takes that waits for a device: `cost` network pixels."""
    return _PICTURE * cost


def tile_bytes(tiles: int, held: int, cost: int) -> int:
    """What a picture's tiles take.

    Args:
        tiles: of the picture, at network resolution.
        held: of them, whose predictions are held at a time.
        cost: network pixels of each.
    """
    return cost * (_PICTURE * tiles + _PREDICTION * held)


def usable() -> int:
    """Bytes that this process may still take: by its cgroup, its limits, and the machine's memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    limit = page * os.sysconf("SC_PHYS_PAGES")
    for path in map(Path, _CGROUPS):
        text = path.read_text().strip() if path.exists() else ""
        if text.isdecimal():
            limit = min(limit, int(text))
    statm = Path("/proc/self/statm")
    numbers = list(map(int, statm.read_text().split())) if statm.exists() else [0] * 6
    size, resident, data = numbers[0], numbers[1], numbers[5]
    free = limit - page * resident
    for kind, used in ((resource.RLIMIT_AS, size), (resource.RLIMIT_DATA, data)):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            free = min(free, soft - page * used)
    return max(_LEAST, free)
