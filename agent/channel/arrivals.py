"""How far each agent's events were stored, durably: what makes a repeated request harmless.

One file an agent, `<agent>` in the folder: one line of JSON with version, epoch, sequence and a checksum.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import google_crc32c
import orjson

from tsdb.errors import UnknownVersionError
from tsdb.fs import FileSystem

VERSION = 1

_log = logging.getLogger("vedette.agents")


class Arrivals:
    """Positions of agents. Any thread."""

    def __init__(self, folder: Path, fs: FileSystem | None = None) -> None:
        """Read what there is. Raises UnknownVersionError, OSError."""
        self._folder = folder
        self._fs = fs or FileSystem()
        self._guard = threading.Lock()
        self._known: dict[str, tuple[str, int]] = {}
        for name in self._fs.list(folder):
            if name.startswith("."):
                continue
            found = _read(name, self._fs.read_file(folder / name))
            if found is None:
                # Its agent sends again what was not acknowledged: events may be stored twice, none is lost.
                _log.warning("position of an agent is damaged", extra={"file": str(folder / name)})
                continue
            self._known[name] = found

    def sequence(self, agent: str, epoch: str) -> int:
        """The last sequence of an epoch that was stored, 0 for none."""
        known_epoch, sequence = self._known.get(agent, ("", 0))
        return sequence if known_epoch == epoch else 0

    def store(self, agent: str, epoch: str, sequence: int) -> None:
        """Remember a sequence, durably. Raises DiskFullError, OSError."""
        with self._guard:
            self._fs.make_directory(self._folder)
            temporary = self._folder / f".{agent}"
            self._fs.write_file(temporary, [_line(agent, epoch, sequence)])
            self._fs.rename(temporary, self._folder / agent)
            self._known[agent] = (epoch, sequence)


def _line(agent: str, epoch: str, sequence: int) -> bytes:
    body = [VERSION, agent, epoch, sequence]
    return orjson.dumps([*body, google_crc32c.value(orjson.dumps(body))]) + b"\n"


def _read(agent: str, data: bytes) -> tuple[str, int] | None:
    try:
        version, name, epoch, sequence, _ = orjson.loads(data)
    except (ValueError, TypeError):
        return None
    if version != VERSION:
        raise UnknownVersionError(
            f"position of agent {agent} has format version {version}, known is {VERSION}"
        )
    if name != agent or _line(agent, epoch, sequence) != data:
        return None
    return epoch, sequence
