"""Structured logs on stderr: one JSON object a line, or plain text for a terminal."""

import json
import logging
import sys
from typing import Literal

_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one JSON object; what was given as ``extra`` becomes keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Format as JSON without line breaks."""
        line: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{record.msecs:03.0f}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in record.__dict__.items() if key not in _PLAIN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """A record for people; what was given as ``extra`` follows as key=value."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Append the extras to the line."""
        extras = " ".join(f"{key}={value}" for key, value in record.__dict__.items() if key not in _PLAIN)
        return f"{super().formatMessage(record)} {extras}".rstrip()


def configure(level: str, style: Literal["json", "text"]) -> None:
    """Send every record of `level` and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
