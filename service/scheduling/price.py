"""What work costs, in seconds of a device: learned from what steps took, for each version, device and step.

A step's seconds are a constant and a rate times its units: network pixels with their padding, text tokens, or
output pixels times classes. Both are medians over a window of steps of all sizes, so that single odd steps
move nothing.
"""

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from service.scheduling.engine import Measurement, ModelInfo

EMBED, PREDICT, CLASSIFY = "embed", "predict", "classify"
CHUNK_SECONDS = 0.05  # that one embed step may hold a device
TRUSTED_SECONDS = 30.0  # see `Prices.trusted`
_WINDOW = 12  # steps that are remembered of those whose units have one power of two
_POWERS = 12  # powers of two that are remembered
# Steps after which the line is drawn again if they took so long together, and in any case: drawing takes a
# tenth of a millisecond, which the quickest steps do not take themselves. Each of the first ones counts.
_REFIT, _REFIT_SECONDS, _REFIT_MOST = 8, 0.02, 64
_BOUND = 8.0  # a step counts as at most so many times what was expected, and at least so small a part of it
_APART = 1.2  # units of two steps must differ by so much for the difference to tell the rate
_LEAST_SECONDS = 1e-6  # that a step counts for; clocks have no finer sense
_MOST_FREED = 64  # weights that are remembered as freed: a step of theirs may end after that


class StepPrice:
    """The line through what one step took, by its units. Not for several threads at a time."""

    def __init__(self) -> None:
        self._steps: OrderedDict[int, deque[tuple[int, float]]] = OrderedDict()  # by units' power of two
        self._fresh = 0  # steps since the line was drawn
        self._fresh_s = 0.0  # that they took together
        self._seen = 0
        self.largest = 0  # units of a step
        self.constant = 0.0
        self.rate = 0.0

    @property
    def known(self) -> bool:
        """Whether anything was seen."""
        return self._seen > 0

    def observe(self, units: int, seconds: float) -> None:
        """Takes in one step."""
        seconds = max(seconds, _LEAST_SECONDS)
        if self._seen >= _REFIT:
            expected = max(self.seconds(units), _LEAST_SECONDS)
            seconds = min(max(seconds, expected / _BOUND), expected * _BOUND)
        power = units.bit_length()
        self._steps.setdefault(power, deque(maxlen=_WINDOW)).append((units, seconds))
        self._steps.move_to_end(power)
        if len(self._steps) > _POWERS:
            self._steps.popitem(last=False)
        self.largest = max(self.largest, units)
        self._seen += 1
        self._fresh += 1
        self._fresh_s += seconds
        enough = self._fresh_s >= _REFIT_SECONDS and self._fresh >= _REFIT
        if self._seen <= _REFIT or enough or self._fresh >= _REFIT_MOST:
            self._draw()

    def seconds(self, units: int) -> float:
        """What a step of so many units is expected to take; 0 before the first one."""
        return self.constant + self.rate * units

    def units(self, seconds: float) -> float:
        """How many units a step of so many seconds may have: infinite if they seem to cost nothing."""
        return max(0.0, seconds - self.constant) / self.rate if self.rate > 0 else math.inf

    def in_steps(self, units: int, most: int) -> float:
        """What units are expected to take in steps of so many of them at the most."""
        return math.ceil(units / most) * self.constant + self.rate * units

    def chunk(self, least: int = 1) -> int:
        """Units of a step that takes `CHUNK_SECONDS`, at least 1; four times the largest that was seen, or
        `least`, at the most.
        """
        # half of it at least, should the constant be the most of it: a step of nothing gets nowhere
        units = max(self.units(CHUNK_SECONDS), self.units(self.constant + CHUNK_SECONDS / 2))
        return max(1, int(min(units, max(least, 4 * self.largest))))

    def _draw(self) -> None:
        """Theil and Sen's line: the median slope of all pairs, and the median of what it leaves.

        Where that is below 0, large steps take more than their share, as attention and caches make them: then
        the line through 0 is nearer to all of them.
        """
        self._fresh, self._fresh_s = 0, 0.0
        steps = [step for kept in self._steps.values() for step in kept]
        units, seconds = np.array(steps, np.float64).T
        larger, smaller = np.triu_indices(len(steps), 1)
        swap = units[larger] < units[smaller]
        larger, smaller = np.where(swap, smaller, larger), np.where(swap, larger, smaller)
        apart = units[larger] > _APART * units[smaller]
        rate, constant = float(np.median(seconds / np.maximum(units, 1))), 0.0
        if apart.any():
            larger, smaller = larger[apart], smaller[apart]
            slopes = (seconds[larger] - seconds[smaller]) / (units[larger] - units[smaller])
            slope = max(0.0, float(np.median(slopes)))
            # the small ones tell of the constant, in the large ones it drowns
            small = units <= np.median(units)
            left = float(np.median((seconds - slope * units)[small]))
            if left > 0:
                rate, constant = slope, left
        self.rate, self.constant = rate, constant


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a request wants of a device.

    Attributes:
        pixels: of the picture at network resolution, padded; 0 if its prediction is there.
        tokens: of class names that no cache knows.
        classified: output pixels times classes.
    """

    pixels: int = 0
    tokens: int = 0
    classified: int = 0


class Prices:
    """Prices of all versions on all devices. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._prices: dict[tuple[str, str, str], StepPrice] = {}  # by weights, device and step
        self._freed: OrderedDict[str, None] = OrderedDict()
        self._observed = -math.inf

    def observe(self, info: ModelInfo, step: str, units: int, seconds: float) -> None:
        """Takes in how long a step of one version on one device took, unless its weights are freed."""
        if units <= 0:
            return
        with self._lock:
            if info.digest in self._freed:
                return
            key = (info.digest, info.device, step)
            self._prices.setdefault(key, StepPrice()).observe(units, seconds)
            self._observed = time.monotonic()

    def warmed(self, info: ModelInfo, measured: Sequence[Measurement]) -> None:
        """Begins with what a warm-up took; weights that were freed are there again."""
        with self._lock:
            self._freed.pop(info.digest, None)
        for step, units, seconds in measured:
            self.observe(info, step, units, seconds)

    def seconds(self, infos: Sequence[ModelInfo], work: Work) -> float:
        """Device seconds that work is expected to take, by the median of the version's devices.

        Steps that were never seen count nothing: who knows no price refuses nobody. Text is embedded in as
        many steps as `chunk` makes of it, each with its constant.
        """
        total = 0.0
        parts = ((PREDICT, work.pixels), (EMBED, work.tokens), (CLASSIFY, work.classified))
        with self._lock:
            for step, units in parts:
                known = [price for info in infos if (price := self._price(info, step)).known]
                if units > 0 and known:
                    total += median(
                        price.in_steps(units, price.chunk() if step == EMBED else units) for price in known
                    )
        return total

    def step_seconds(self, info: ModelInfo, step: str, units: int) -> float:
        """What one step of so many units is expected to take on one device; 0 if none was seen."""
        with self._lock:
            return self._price(info, step).seconds(units)

    def chunk(self, info: ModelInfo, most: int) -> int:
        """Text tokens that one embed step may have on a device, at least 1.

        Args:
            info: of the version and device.
            most: as long as no such step was seen; after that, four times the largest one that was.
        """
        with self._lock:
            price = self._price(info, EMBED)
            return price.chunk(most) if price.known else most

    @property
    def trusted(self) -> bool:
        """Whether prices may refuse a request: a wrong one that refuses all would never be put right."""
        return time.monotonic() - self._observed <= TRUSTED_SECONDS

    def forget(self, digest: str) -> None:
        """Drops the prices of weights that are freed, and takes in none until they are warmed up again."""
        with self._lock:
            self._freed[digest] = None
            if len(self._freed) > _MOST_FREED:
                self._freed.popitem(last=False)
            for key in [key for key in self._prices if key[0] == digest]:
                del self._prices[key]

    def _price(self, info: ModelInfo, step: str) -> StepPrice:
        """What is known of a step; an empty price, which is not kept, of one that was never seen."""
        return self._prices.get((info.digest, info.device, step)) or StepPrice()
