"""What of a version is recorded at its warm-up, within bounds of time and memory."""

import time

from model.network.ebseg import EBSeg
from service.scheduling.device_memory import Room
from service.scheduling.out_of_memory import is_out_of_memory, release_memory

RECORD_SECONDS = 60.0  # of a version's load on a device
RECORD_SHARE = 0.25  # of the memory that is free before, at most


class Recordings:
    """Records for a version on a device, until one of the bounds is reached; what is left out runs eagerly.

    Args:
        ebseg: the model.
        room: of its device.
    """

    def __init__(self, ebseg: EBSeg, room: Room) -> None:
        self._ebseg = ebseg
        self._room = room
        self._seconds = 0.0
        self._least: int | None = None  # bytes that stay free
        self._over = False

    def record(self, shape: tuple[int, int], most: int) -> bool:
        """Batches of 1, 2, 4 and so on up to `most` pictures of a padded shape, of which all others are made.

        Where a bound is reached, the largest are left out first.

        Returns:
            Whether there are any.
        """
        count = 1
        while count <= most and self._goes_on():
            began = time.monotonic()
            try:
                self._over = not self._ebseg.record(shape, count)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                release_memory(error)
                self._over = True
            self._seconds += time.monotonic() - began
            count *= 2
        return bool(self._ebseg.graphs.counts(shape))

    def _goes_on(self) -> bool:
        free = self._room.free()
        if self._least is None and free is not None:
            self._least = int((1 - RECORD_SHARE) * free)
        short = free is not None and self._least is not None and free < self._least
        return not (self._over or short or self._seconds >= RECORD_SECONDS)
