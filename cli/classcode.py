"""The generated methods of dataclasses, compiled once instead of at each start.

`dataclasses` writes the text of each method of each class and compiles it when the class is made: 1,400 texts
and a fifth of the time that a server's modules take. `vedette warm` writes what they become, by text, to a
file beside our byte code, and with the same trust; a text that is not in it is compiled as before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import marshal
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from tsdb.machinecode.wholefile import write_whole

PATH = Path(__file__).parent / "__pycache__" / f"classcode.{sys.implementation.cache_tag}.marshal"
_MAGIC = b"VEDETTE-CLASSES\2" + importlib.util.MAGIC_NUMBER


class CompiledTexts:
    """Runs the texts of dataclasses from compiled code, as far as there is some. Any thread."""

    def __init__(self, path: Path) -> None:
        """Nothing is read before the first class is made."""
        self._path = path
        self._stored: dict[str, bytes] | None = None
        self.used: dict[str, bytes] = {}
        """Whatever was run so far, as it is stored."""

    def install(self) -> None:
        """From now on run what `dataclasses` generates."""
        # Its functions find this before the built-in one.
        dataclasses.exec = self.run  # type: ignore[attr-defined]

    def run(self, text: str, names: dict[str, Any], results: dict[str, Any]) -> None:
        """As the built-in `exec`."""
        stored = self._stored
        if stored is None:
            stored = self._stored = _read(self._path)
        code: CodeType
        # Each by itself: most are made beside a replay, which the first one should not keep from beginning.
        packed = stored.get(text)
        if packed is None:
            code = compile(text, "<string>", "exec")
            packed = marshal.dumps(code)
        else:
            code = marshal.loads(packed)
        self.used[text] = packed
        exec(code, names, results)

    def save(self) -> None:
        """Write what was run, where the file has not all of it; a folder that may not be written to is left
        as it is."""
        if self._stored is not None and self.used.keys() <= self._stored.keys():
            return
        with contextlib.suppress(OSError):
            write_whole(self._path, _MAGIC + marshal.dumps(self.used))


def _read(path: Path) -> dict[str, bytes]:
    """What was stored, nothing where it is of another version or not whole."""
    try:
        content = path.read_bytes()
        if content.startswith(_MAGIC):
            codes: dict[str, bytes] = marshal.loads(content[len(_MAGIC) :])
            return codes
    except (OSError, EOFError, ValueError, TypeError):
        pass
    return {}


COMPILED = CompiledTexts(PATH)
"""Those of this process."""
