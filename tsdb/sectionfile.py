"""Files of named sections with a checksum each: the outer form of every file of a block.

docs/formats/block.md has the bytes. A reader checks header, tail and table when it opens the file, and a
section's checksum when the section is first used.
"""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt

from tsdb.errors import CorruptionError, UnknownVersionError
from tsdb.fs import AppendFile, Buffer, FileSystem

U8Array = npt.NDArray[np.uint8]

MAGIC = b"VEDB"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""In version 1 the slope of order 0 is always 0, which version 2 reads the same way."""

ALIGNMENT = 64
SECTIONS_LIMIT = 256

_HEADER = struct.Struct("<4sBB10x")
_ENTRY = struct.Struct("<IIQQ")
_TAIL = struct.Struct("<QII4sB3x")


def crc32c(data: Buffer) -> int:
    """CRC-32C (Castagnoli)."""
    return int(google_crc32c.value(bytes(data) if not isinstance(data, bytes) else data))


class SectionWriter:
    """Writes one file section by section. One thread."""

    def __init__(self, fs: FileSystem, path: Path, kind: int) -> None:
        self._file: AppendFile = fs.append_file(path)
        self._entries: list[tuple[int, int, int, int]] = []
        self._open: tuple[int, int, int] | None = None
        self._file.write([_HEADER.pack(MAGIC, FORMAT_VERSION, kind)])
        self._kind = kind

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.size

    def begin(self, section: int) -> None:
        """Start a section that is written in pieces."""
        self._file.write([bytes(-self._file.size % ALIGNMENT)])
        self._open = (section, self._file.size, 0)

    def append(self, data: bytes) -> int:
        """Add to the section begun; the offset of the piece within the section."""
        assert self._open is not None
        section, start, crc = self._open
        offset = self._file.size - start
        self._file.write([data])
        self._open = (section, start, google_crc32c.extend(crc, data))
        return offset

    def end(self) -> None:
        """Close the section begun."""
        assert self._open is not None
        section, start, crc = self._open
        self._entries.append((section, crc, start, self._file.size - start))
        self._open = None

    def add(self, section: int, data: Buffer) -> None:
        """A whole section."""
        self.begin(section)
        self.append(bytes(data))
        self.end()

    def finish(self) -> int:
        """Write the table of sections, sync and close; the size of the file."""
        self._file.write([bytes(-self._file.size % 8)])
        table = b"".join(_ENTRY.pack(*entry) for entry in self._entries)
        offset = self._file.size
        tail = _TAIL.pack(offset, len(self._entries), crc32c(table), MAGIC, FORMAT_VERSION)
        self._file.write([table, tail])
        self._file.sync()
        size = self._file.size
        self._file.close()
        return size

    def abandon(self) -> None:
        """Close without finishing."""
        self._file.close()


class _HasMap(Protocol):
    def map_file(self, path: Path) -> U8Array: ...


class SectionFile:
    """A file of sections, mapped. Any thread may read."""

    def __init__(self, fs: _HasMap, path: Path, kind: int) -> None:
        """Raises CorruptionError, or UnknownVersionError for a newer format."""
        self.path = path
        self._data = fs.map_file(path)
        self._checked: set[int] = set()
        self._lock = threading.Lock()
        data = self._data
        if len(data) < _HEADER.size + _TAIL.size:
            raise CorruptionError(f"{path}: {len(data)} bytes are too few for a header and a tail")
        magic, version, found_kind = _HEADER.unpack(data[: _HEADER.size].tobytes())
        if magic != MAGIC:
            raise CorruptionError(f"{path}: begins with {magic!r}, not {MAGIC!r}")
        if version not in READABLE_VERSIONS:
            raise UnknownVersionError(
                f"{path}: format version {version}, this program reads up to version {FORMAT_VERSION}"
            )
        if found_kind != kind:
            raise CorruptionError(f"{path}: kind {found_kind} where {kind} is expected")
        offset, count, crc, tail_magic, _ = _TAIL.unpack(data[-_TAIL.size :].tobytes())
        if tail_magic != MAGIC or count > SECTIONS_LIMIT:
            raise CorruptionError(f"{path}: no tail; the file is cut or damaged")
        table = data[offset : len(data) - _TAIL.size].tobytes()
        if len(table) != count * _ENTRY.size or crc32c(table) != crc:
            raise CorruptionError(f"{path}: table of sections does not match its checksum")
        self._entries = {entry[0]: entry[1:] for entry in _ENTRY.iter_unpack(table)}
        for section, (_, start, length) in self._entries.items():
            if start + length > offset:
                raise CorruptionError(f"{path}: section {section} reaches beyond the file")

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self._data)

    def raw(self, section: int) -> U8Array:
        """A section's bytes without testing its checksum, for sections whose parts have their own."""
        start = self.start(section)
        return self._data[start : start + self._entries[section][2]]

    def start(self, section: int) -> int:
        """Where in the file a section begins. Raises CorruptionError where it is missing."""
        found = self._entries.get(section)
        if found is None:
            raise CorruptionError(f"{self.path}: section {section} is missing")
        return int(found[1])

    def section(self, section: int) -> U8Array:
        """A section's bytes. Raises CorruptionError where the checksum does not match."""
        data = self.raw(section)
        if section not in self._checked:
            stored, computed = self._entries[section][0], crc32c(data.tobytes())
            if stored != computed:
                raise CorruptionError(
                    f"{self.path}: section {section} has checksum {computed:08x}, stored is {stored:08x}"
                )
            with self._lock:
                self._checked.add(section)
        return data

    def close(self) -> None:
        """Let go of the mapping; it ends when the last array over it does."""
        self._data = np.empty(0, dtype=np.uint8)
        self._entries = {}
