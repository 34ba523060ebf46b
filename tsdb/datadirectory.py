"""Whether a directory may become a store: what another program keeps there is neither read nor changed."""

from __future__ import annotations

from pathlib import Path

from tsdb.checkpoint import PREFIX
from tsdb.chunks import DIRECTORY as CHUNKS
from tsdb.errors import StorageError
from tsdb.fs import FileSystem
from tsdb.headsnapshot import FILE_NAME as HEAD_SNAPSHOT
from tsdb.prometheusblock.wal import begins_like_a_segment
from tsdb.ulid import is_ulid
from tsdb.wal import MAGIC

WAL_DIRECTORY = "wal"

_PROMETHEUS_CHUNKS_MAGIC = b"\x01\x30\xbc\x91"
_OURS = frozenset({WAL_DIRECTORY, CHUNKS, "events", "quarantine", "snapshots", "remote_write"})
_OF_ANYBODY = frozenset({"lock", "queries.active", "lost+found"})
"""What says nothing about whose the directory is: Prometheus has the first two as well."""
_SHOWN = 3


def refuse_foreign(fs: FileSystem, root: Path) -> None:
    """Raise StorageError for a directory with Prometheus's data, or with anything but a store.

    Must come before the first change: both have `wal/00000001` and `chunks_head`, so a start would take
    Prometheus's log for a damaged one of ours and set it aside, and clear its chunks.
    """
    names = [name for name in fs.list(root) if not name.startswith(".") and name not in _OF_ANYBODY]
    if _has_own_log(fs, root):
        return
    if _is_of_prometheus(fs, root, names):
        raise StorageError(
            f"data directory {root} is one of Prometheus; leave it as it is and bring its samples into a new "
            f"one: vedette tsdb import prometheus {root} --storage.tsdb.path=NEW"
        )
    if names and not any(name in _OURS or is_ulid(name.partition(".")[0]) for name in names):
        shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        raise StorageError(f"data directory {root} is neither empty nor a store of Vedette: it has {shown}")


def _files(fs: FileSystem, directory: Path) -> list[Path]:
    return [directory / name for name in fs.list(directory) if not fs.is_directory(directory / name)]


def _has_own_log(fs: FileSystem, root: Path) -> bool:
    return fs.exists(root / HEAD_SNAPSHOT) or any(
        fs.map_file(path)[: len(MAGIC)].tobytes() == MAGIC for path in _files(fs, root / WAL_DIRECTORY)
    )


def _is_of_prometheus(fs: FileSystem, root: Path, names: list[str]) -> bool:
    """By its blocks, the segments or checkpoints of its log, or its head's chunks."""
    wal = root / WAL_DIRECTORY
    magic = len(_PROMETHEUS_CHUNKS_MAGIC)
    return (
        "wbl" in names
        or any(is_ulid(name) and fs.is_directory(root / name / "chunks") for name in names)
        or any(name.startswith(PREFIX) and fs.is_directory(wal / name) for name in fs.list(wal))
        or any(begins_like_a_segment(fs.map_file(path)) for path in _files(fs, wal))
        or any(
            fs.map_file(path)[:magic].tobytes() == _PROMETHEUS_CHUNKS_MAGIC
            for path in _files(fs, root / CHUNKS)
        )
    )
