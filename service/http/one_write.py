"""A response's head and its body in one write: one call of the kernel and one packet in place of two.

uvicorn writes the head before it knows of the body, and uvloop sends at once what it is given.
"""

from asyncio import AbstractEventLoop, Transport

MOST_JOINED = 1 << 16  # bytes; of a larger piece a copy takes longer than a call


class OneWrite:
    """A connection, as its responses write to it. For the event loop's thread.

    What is written waits for what follows in the same turn of the loop, and goes out with it.

    Args:
        transport: of the connection.
        loop: the running one.
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop):
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Sends it, with what was held before it; or holds it, if there is nothing."""
        held = self._held
        if not held:
            self._held = data
            self._loop.call_soon(self.flush)
        elif len(data) <= MOST_JOINED:
            self._held = b""
            self._transport.write(b"".join((held, data)))
        else:
            self.flush()
            self._transport.write(data)

    def flush(self) -> None:
        """Sends what is held, unless the connection has ended."""
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        """Closes the connection behind all that was written."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection is closing, or closed."""
        return self._transport.is_closing()
