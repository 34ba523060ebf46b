"""Keys of a terminal one by one, without waiting for a line."""

from __future__ import annotations

import os
import select
import termios
import tty
from types import TracebackType
from typing import Any

ESCAPE_SECONDS = 0.05
"""How long the rest of an escape sequence may take."""
SEQUENCE_BYTES_LIMIT = 8
_SEQUENCES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1b[H": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1b[4~": "end",
    "\x1b[5~": "pageup",
    "\x1b[6~": "pagedown",
    "\x1bOF": "end",
    "\x1bOH": "home",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1b": "escape",
    "\t": "tab",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
}


class Keyboard:
    """A terminal in cbreak mode while the context lasts."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before: list[Any] = []

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self._descriptor)
        tty.setcbreak(self._descriptor)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)

    def key(self, timeout_seconds: float) -> str | None:
        """The next key by name or character, None when none comes in time; `q` when the terminal is gone."""
        if not select.select([self._descriptor], [], [], max(timeout_seconds, 0))[0]:
            return None
        data = os.read(self._descriptor, 1)
        if not data:
            return "q"
        if data == b"\x1b" and select.select([self._descriptor], [], [], ESCAPE_SECONDS)[0]:
            data += os.read(self._descriptor, 2)
            while data[1:2] == b"[" and data[-1:].isdigit() and len(data) < SEQUENCE_BYTES_LIMIT:
                data += os.read(self._descriptor, 1) or b"~"
        text = data.decode("utf-8", "replace")
        return _SEQUENCES.get(text, text if len(text) == 1 else "")
