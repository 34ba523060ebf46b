"""A section of checked pieces, of which a reader takes one at a time, and the directory that finds them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.errors import CorruptionError
from tsdb.sectionfile import SectionFile, SectionWriter, crc32c

_DIRECTORY_DTYPES = (np.uint64, np.uint32, np.uint32)
"""Offset in the section, length and checksum of each piece."""


def write_pieces(writer: SectionWriter, section: int, directory: int, pieces: Iterable[bytes]) -> None:
    """Write the pieces to one section and where they are to another. Raises StorageError, OSError."""
    offsets, lengths, checksums = [], [], []
    writer.begin(section)
    for piece in pieces:
        offsets.append(writer.append(piece))
        lengths.append(len(piece))
        checksums.append(crc32c(piece))
    writer.end()
    columns: list[npt.NDArray[np.integer]] = [
        np.array(column, dtype)
        for column, dtype in zip((offsets, lengths, checksums), _DIRECTORY_DTYPES, strict=True)
    ]
    writer.add(directory, pack_columns(columns))


class Pieces:
    """The reader of what `write_pieces` wrote. Any thread."""

    def __init__(self, file: SectionFile, section: int, directory: int, what: str) -> None:
        """`what` names a piece in errors. Raises CorruptionError."""
        self._file, self._section = file, section
        self._what = f"{file.path}: {what}"
        self._directory = unpack_columns(file.section(directory), _DIRECTORY_DTYPES, f"{self._what}s")

    def read(self, number: int) -> tuple[npt.NDArray[Any], str]:
        """The bytes of a piece and its name for further errors. Raises CorruptionError."""
        offsets, lengths, checksums = self._directory
        where = f"{self._what} {number}"
        if number >= len(offsets):
            raise CorruptionError(f"{where} is missing")
        start = int(offsets[number])
        stored = self._file.raw(self._section)[start : start + int(lengths[number])]
        if crc32c(stored.tobytes()) != int(checksums[number]):
            raise CorruptionError(f"{where} does not match its checksum")
        return stored, where
