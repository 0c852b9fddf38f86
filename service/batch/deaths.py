"""Workers that die over a shard: which picture is to blame, and when the run gives up; here and on a cluster.

Nobody knows which of a batch's pictures killed its worker. So a shard whose worker has died is done again one
picture at a time, each told of before it begins. One that kills workers even so gets a row with an error, and
the run goes on.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

DEATHS = 3  # over one shard, no picture of it being known, after which the run gives up
ALONE = 2  # deaths over one picture alone that make it deadly: one may be chance
NEIGHBOURS = 16  # deadly pictures one after the other that are rather a fault of the machine


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a shard is to be done now.

    Attributes:
        careful: one picture at a time.
        deadly: indices of pictures that are left out, their rows being errors.
        hopeless: not at all, for the run gives up.
    """

    careful: bool = False
    deadly: frozenset[int] = frozenset()
    hopeless: bool = False


@dataclass(slots=True)
class _Record:
    """A shard that has begun and not ended: deaths by the picture, and the one that is under way now."""

    deaths: Counter[int | None] = field(default_factory=Counter)
    picture: int | None = None


class Deaths:
    """What is known of shards that are under way; who begins one a second time says that its worker died."""

    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}

    def begin(self, shard: int) -> Attempt:
        """A worker is about to do a shard."""
        record = self._records.get(shard)
        if record is None:
            self._records[shard] = _Record()
            return Attempt()
        record.deaths[record.picture] += 1
        record.picture = None
        deadly = frozenset(
            index for index, count in record.deaths.items() if index is not None and count >= ALONE
        )
        hopeless = record.deaths[None] > DEATHS or _most_in_a_row(deadly) >= NEIGHBOURS
        return Attempt(careful=True, deadly=deadly, hopeless=hopeless)

    def picture(self, shard: int, index: int) -> None:
        """A worker begins with one picture of a shard, by itself."""
        self._records[shard].picture = index

    def ended(self, shard: int) -> None:
        """A shard is finished."""
        self._records.pop(shard, None)


def gave_up(where: str) -> str:
    """What is said of a run that ends by deaths of its workers."""
    return (
        f"workers die again and again {where}; images may take more memory or time than there is: take "
        "fewer --workers or a lower --max-pixels. What is finished is kept"
    )


def _most_in_a_row(indices: Iterable[int]) -> int:
    longest = length = 0
    last: int | None = None
    for index in sorted(indices):
        length = length + 1 if last is not None and index == last + 1 else 1
        longest, last = max(longest, length), index
    return longest
