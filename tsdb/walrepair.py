"""Setting damaged files aside: what cannot be read stays for a human, what can be stays in place."""

from __future__ import annotations

from pathlib import Path

from tsdb.fs import FileSystem
from tsdb.wal import U8Array

QUARANTINE = "quarantine"


def quarantine_path(fs: FileSystem, root: Path, name: str) -> Path:
    """A free name in the quarantine of a store, whose directory is made."""
    directory = root / QUARANTINE
    fs.make_directory(directory)
    taken = set(fs.list(directory))
    attempt, chosen = 1, name
    while chosen in taken:
        attempt += 1
        chosen = f"{name}.{attempt}"
    return directory / chosen


def cut_segment(
    fs: FileSystem, path: Path, data: U8Array, good_bytes: int, aside: Path, *, last: bool
) -> None:
    """Copy the damage (of a segment that is not the last: all of it) to `aside`, keep the good part."""
    fs.write_file(aside, [data[good_bytes:] if last else data])
    if good_bytes == 0:
        fs.remove(path)
        return
    file = fs.append_file(path, create=False)
    file.truncate(good_bytes)
    file.sync()
    file.close()
