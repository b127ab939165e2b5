"""Log lines for the journal, or for a person at a terminal."""

import logging
import os
import sys
from typing import Literal

__all__ = ["Level", "setup"]

Level = Literal["debug", "info", "warning", "error"]

_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_NOISY = ("asyncua", "aiohttp.server", "aiohttp.access")
"""Libraries that log what they also raise; dxad says it once, in its own words."""


class _JournalFormatter(logging.Formatter):
    """`<3>message`: the journal reads the priority and has the time (see `man sd-daemon`)."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", "\n ")
        return f"<{_PRIORITY.get(record.levelno, 6)}>{text}"


def setup(level: Level = "info") -> None:
    """Send all log lines of the process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    if "JOURNAL_STREAM" in os.environ:
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
