"""Log lines to a file by a thread of their own: who logs never waits for who reads.

A reader that stands still, or a disk that is full, would stop the event loop at its next line.
"""

import logging
import os
import threading
import time

MOST_CHARACTERS_WAITING = 4 << 20  # of lines that are not written yet; further ones are lost, and counted
GATHER_S = 0.05  # after the first line, so that many are one write
LAST_WORDS_S = 1.0  # that the lines get at the process's end
_AGAIN_S = 1.0  # after a write that failed


class LogWriter(logging.Handler):
    """Writes lines in the order that they were logged, and says how many of them were lost.

    Args:
        file: descriptor of where they go. Python's own streams have locks, which a thread that writes for
            ever would keep at the process's end.
    """

    def __init__(self, file: int):
        super().__init__()
        self._file = file
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._characters = 0  # of lines that are not written yet
        self._lost = 0  # lines
        self._writing = False
        self._hurry = threading.Event()  # set: nothing is gathered any more
        self._closed = False
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Takes in a line; it is lost if too many wait."""
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        with self._changed:
            if self._characters + len(line) > MOST_CHARACTERS_WAITING:
                self._lost += 1
                return
            self._characters += len(line)
            self._lines.append(line)
            if len(self._lines) == 1:
                self._changed.notify_all()

    def flush(self) -> None:
        """Waits until all lines are written, but not for ever."""
        self._hurry.set()
        with self._changed:
            self._changed.wait_for(lambda: not (self._lines or self._writing), LAST_WORDS_S)
        if not self._closed:
            self._hurry.clear()

    def close(self) -> None:
        """Writes what is left, and ends the thread."""
        self._closed = True
        self.flush()
        with self._changed:
            self._changed.notify_all()
        super().close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return
            self._hurry.wait(GATHER_S)
            with self._changed:
                lines, self._lines, self._writing = self._lines, [], True
                lost, self._lost = self._lost, 0
            written = self._write([*lines, *([self._of_lost(lost)] if lost else [])])
            with self._changed:
                self._lost += 0 if written else lost + len(lines)
                self._characters -= sum(map(len, lines))
                self._writing = False
                self._changed.notify_all()
            if not written:
                time.sleep(_AGAIN_S)

    def _write(self, lines: list[str]) -> bool:
        left = memoryview("\n".join([*lines, ""]).encode(errors="backslashreplace"))
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:  # a disk is full, or nobody is there to read
            return False
        return True

    def _of_lost(self, count: int) -> str:
        text = "%d log lines were lost: standard error did not take them"
        return self.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (count,), None))
