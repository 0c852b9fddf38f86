"""Log lines as JSON (or text), each with the ids of the request and the trace that it belongs to.

No line shows secrets of URLs, whoever wrote it: libraries, too, put whole addresses into messages and errors.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from model.urls import without_secrets
from service.observability.log_writer import LogWriter
from service.observability.trace_context import trace_var

request_id_var: ContextVar[str | None] = ContextVar("ebseg_request_id", default=None)

MOST_CHARACTERS = 8192  # of a message, and of a traceback's end; collectors split or drop longer lines
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_IDS = frozenset({"request_id", "trace_id", "span_id"})
_ENCODER = json.JSONEncoder()


class _Ids(logging.Filter):
    """Notes the ids when a line is logged; a handler may write it elsewhere."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id_var.get()
        trace = trace_var.get()
        if trace is not None:
            record.trace_id, record.span_id = trace.trace_id, trace.span_id
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, ids, and whatever `extra` holds."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage())[:MOST_CHARACTERS],
        }
        line.update(_extras(record))
        if record.exc_info:
            line["traceback"] = without_secrets(self.formatException(record.exc_info))[-MOST_CHARACTERS:]
        return _ENCODER.encode(line)


class TextFormatter(logging.Formatter):
    """Time, level, logger, message, the request's id, and what `extra` holds as name=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line and the traceback."""
        return without_secrets(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line, without a traceback."""
        request_id = getattr(record, "request_id", None)
        extras = (f" {name}={value}" for name, value in _extras(record).items() if name not in _IDS)
        return super().formatMessage(record) + f" [{request_id}]" * bool(request_id) + "".join(extras)


def configure(level: str, form: str, *, serving: bool = False) -> None:
    """Sends all logs, warnings included, to standard error.

    Args:
        level: least level, "debug" to "error".
        form: "json", "text", or "auto" for text on a terminal and JSON elsewhere.
        serving: whether others wait meanwhile, so that a thread writes.
    """
    handler = LogWriter(sys.stderr.fileno()) if serving else logging.StreamHandler(sys.stderr)
    text = sys.stderr.isatty() if form == "auto" else form == "text"
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    handler.addFilter(_Ids())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # no line of ours tells these, and to find them out takes as long as all else of a line
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.captureWarnings(True)
    # Pillow's debug lines come by the thousand, and a picture's own bytes are in them
    logging.getLogger("PIL").setLevel(logging.INFO)
    # uvicorn's steps of starting; our lines say what of it concerns people
    steps = logging.WARNING if level.upper() == "INFO" else logging.NOTSET
    logging.getLogger("uvicorn.error").setLevel(steps)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {
        name: _shown(value)
        for name, value in vars(record).items()
        if name not in _STANDARD and value is not None
    }


def _shown(value: Any) -> Any:
    """A value as a line may hold it: what is no JSON as text."""
    match value:
        case bool() | int() | float() | None:
            return value
        case dict():
            return {str(name): _shown(one) for name, one in value.items()}
        case list() | tuple():
            return [_shown(one) for one in value]
    return without_secrets(str(value))
