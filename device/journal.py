"""Logs as journald reads them: where standard error is the journal, each line begins with its level (sd-daemon(3)).

The journal knows the time, so that a line has none, and ``journalctl -u headwater -p warning`` shows what matters.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


class JournalFormatter(logging.Formatter):
    """A record as lines of the journal; those of a traceback have the record's level too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format with the level before each line."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def is_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether a descriptor is the journal's: systemd says in JOURNAL_STREAM which file it connected to it."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    found = os.fstat(descriptor)
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def configure(level: str) -> None:
    """Send every record of ``level`` and above to standard error: for the journal where it is that, else for people."""
    handler = logging.StreamHandler()
    journal = is_journal(sys.__stderr__.fileno(), os.environ) if sys.__stderr__ is not None else False
    people = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(JournalFormatter("%(message)s") if journal else people)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
