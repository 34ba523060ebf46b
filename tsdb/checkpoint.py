"""Checkpoints: what later segments of the WAL rely on, so that earlier ones can be deleted.

A checkpoint `checkpoint.<segment>` holds every living series, the metadata, the exemplars, and the time up to
which samples are in blocks, as of the start of that segment. It has the format of a segment.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tsdb.fs import FileSystem
from tsdb.wal import COMPRESSED, file_header, record_bytes
from tsdb.walrecords import PayloadCodec

PREFIX = "checkpoint."
_TEMPORARY = ".tmp"


def checkpoint_numbers(fs: FileSystem, directory: Path) -> list[int]:
    """Ascending segment numbers of the finished checkpoints."""
    names = (name.removeprefix(PREFIX) for name in fs.list(directory) if name.startswith(PREFIX))
    return sorted(int(name) for name in names if name.isdigit())


def checkpoint_path(directory: Path, number: int) -> Path:
    """File of a checkpoint."""
    return directory / f"{PREFIX}{number:08d}"


def write_checkpoint(
    fs: FileSystem, directory: Path, number: int, records: Iterable[tuple[int, list[bytes]]]
) -> None:
    """Write (type, payload parts) records; the file appears whole or not at all. Raises DiskFullError,
    OSError."""
    codec = PayloadCodec()
    path = checkpoint_path(directory, number)
    temporary = path.with_name(path.name + _TEMPORARY)
    fs.remove(temporary)
    file = fs.append_file(temporary)
    try:
        file.write([file_header(number)])
        for sequence, (kind, parts) in enumerate(records, 1):
            payload, compressed = codec.pack(parts)
            file.write(record_bytes(kind, COMPRESSED if compressed else 0, sequence, payload))
        file.sync()
    finally:
        file.close()
    fs.rename(temporary, path)


def remove_leftovers(fs: FileSystem, directory: Path) -> None:
    """Delete checkpoints that were not finished."""
    for name in fs.list(directory):
        if name.startswith(PREFIX) and name.endswith(_TEMPORARY):
            fs.remove(directory / name)
