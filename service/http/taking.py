"""How a client takes its answer off our hands, and how a connection ends whose client does not."""

import contextlib
import fcntl
import socket
import struct
import termios
from asyncio import Transport

_INT = struct.Struct("i")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what was not taken is thrown away, by the kernel, too


class AnswerTaking:
    """How a client takes its answer off our hands."""

    def __init__(self) -> None:
        self._since: float | None = None  # when there was first something left to take
        self._window = 0.0  # when the present stretch of time began
        self._left = 0  # bytes, at that moment
        self._took = False  # whether more than that was taken since

    def took(self) -> None:
        """Notes that nearly all that was left is taken, after which more may have been written."""
        self._took = True

    def too_slow(self, now: float, left: int, timeout_s: float, stall_s: float, rate: float) -> bool:
        """Whether all of it takes too long, or too little was taken lately."""
        if not left:
            self._since = None
            return False
        if self._since is None:
            self._since = now
            self._begin(now, left)
            return False
        if now - self._since > timeout_s:
            return True
        if now - self._window <= stall_s:
            return False
        if not self._took and self._left - left < rate * (now - self._window):
            return True
        self._begin(now, left)
        return False

    def _begin(self, now: float, left: int) -> None:
        self._window, self._left, self._took = now, left, False


def reset(transport: Transport) -> None:
    """Ends a connection so that neither the process nor the kernel keeps what was not taken."""
    link = transport.get_extra_info("socket")
    if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def unsent(transport: Transport) -> int:
    """Bytes that the peer has not taken, as far as any of them wait in the process; else 0."""
    waiting = transport.get_write_buffer_size()
    if not waiting:
        return 0
    # The kernel asks for more only when a good part of its megabytes has gone, which a slow client needs
    # minutes for; what it still has itself says whether the client takes anything.
    with contextlib.suppress(OSError):
        held = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(_INT.size))
        waiting += _INT.unpack(held)[0]
    return waiting
