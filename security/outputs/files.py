"""Events to standard output and to files."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from security.record import EventRecord

_BATCH = 256


class StdoutChannel:
    """Standard output, flushed after each delivery."""

    batch = _BATCH

    def send(self, lines: Sequence[tuple[EventRecord, str]]) -> None:
        """Write lines. Raises OSError for a closed pipe."""
        stream = sys.stdout.buffer
        stream.write("".join(f"{text}\n" for _, text in lines).encode("utf-8", "replace"))
        stream.flush()

    def reopen(self) -> None:
        """Nothing: the stream is not ours."""

    def close(self) -> None:
        """Nothing: the stream is not ours."""


class FileChannel:
    """A file that is appended to. It is opened again when its name was moved or removed (logrotate)."""

    batch = _BATCH

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def send(self, lines: Sequence[tuple[EventRecord, str]]) -> None:
        """Append lines. Raises OSError."""
        file = self._opened()
        try:
            file.write("".join(f"{text}\n" for _, text in lines))
            file.flush()
        except OSError:
            self.reopen()
            raise

    def _opened(self) -> IO[str]:
        if self._file is not None:
            try:
                named, ours = os.stat(self._path), os.fstat(self._file.fileno())
                if (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino):
                    return self._file
            except FileNotFoundError:
                pass
            self.reopen()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8", errors="replace")
        return self._file

    def reopen(self) -> None:
        """Close; the next line opens the name again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def close(self) -> None:
        """Close the file."""
        self.reopen()
