"""A formatter of log records that is imported with the first record."""

from __future__ import annotations

import importlib
import logging


class LateFormatter(logging.Formatter):
    """Stands for the one of `cli.logform`, whose library takes longer to import than everything before the
    log of a store is read. A handler calls it under its lock."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._log_format = log_format
        self._formatter: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        if self._formatter is None:
            self._formatter = importlib.import_module("cli.logform").line_formatter(self._log_format)
        return self._formatter.format(record)
