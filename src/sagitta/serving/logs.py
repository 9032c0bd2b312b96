"""Logs as lines of JSON on standard error: one object a line, its words the same for every event."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("sagitta.serving")


class _Lines(logging.Formatter):
    """Writes a record as JSON; a failure of ours with its traceback, which no client is told."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def begin_logs() -> None:
    """Write what this server, and the libraries below it, say as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    LOGGER.setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # of each malformed form, which we tell ourselves


def tell(event: str, level: int = logging.INFO, *, error: BaseException | None = None, **told: Any) -> None:
    """Log an event with what belongs to it."""
    LOGGER.log(level, event, extra={"told": told}, exc_info=error)
