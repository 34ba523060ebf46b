"""A directory that another program uses is refused before anything in it changes."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import pytest

from tests.tsdb.stores import OPTIONS, T0, Store
from tsdb.database import open_database
from tsdb.errors import StorageError
from tsdb.fs import FileSystem

PROMETHEUS = "is one of Prometheus; .*vedette tsdb import prometheus"
ULID = "01HF7YAT00000000000000000A"


def prometheus_segment(payload: bytes = b"\x01a record of series") -> bytes:
    """A page of Prometheus's log with one whole record."""
    fragment = b"\x01" + len(payload).to_bytes(2, "big") + google_crc32c.value(payload).to_bytes(4, "big")
    return (fragment + payload).ljust(32 * 1024, b"\0")


FOREIGN = {
    "log of prometheus": ({"wal/00000001": prometheus_segment(), "chunks_head/000001": b""}, PROMETHEUS),
    "checkpoint of prometheus": ({"wal/checkpoint.00000007/00000000": b""}, PROMETHEUS),
    "head chunks of prometheus": ({"chunks_head/000001": b"\x01\x30\xbc\x91\x01\0\0\0"}, PROMETHEUS),
    "late log of prometheus": ({"wal/00000000": b"", "wbl/00000000": b""}, PROMETHEUS),
    "blocks of prometheus": ({f"{ULID}/chunks/000001": b"", f"{ULID}/meta.json": b"{}"}, PROMETHEUS),
    "victoria metrics": (
        {"data/small/x": b"", "indexdb/y": b"", "flock.lock": b"", "metadata/z": b""},
        "neither empty nor a store of Vedette: it has data, flock.lock, indexdb, ...",
    ),
    "somebody's files": ({"thesis.odt": b"text"}, "neither empty nor a store of Vedette: it has thesis.odt$"),
}


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_directory_is_refused_and_left_as_it_is(tmp_path: Path, case: str) -> None:
    files, text = FOREIGN[case]
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(StorageError, match=text):
        open_database(tmp_path, OPTIONS)
    assert contents(tmp_path) == files


def test_a_fresh_volume_is_no_foreign_directory(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".snapshot").mkdir()
    open_database(tmp_path, OPTIONS).close()


@pytest.mark.parametrize("left", ["wal", "head.snapshot", "events"])
def test_what_is_left_of_a_store_is_a_store(tmp_path: Path, left: str) -> None:
    """Also beside files of others, and with a log of which nothing can be read."""
    store = Store(tmp_path)
    store.fill(1, T0, 3)
    (tmp_path / "events").mkdir()
    store.db.close()
    (tmp_path / "notes.txt").write_text("mine")
    for path in tmp_path.rglob("*"):
        if path.is_file() and left not in str(path) and path.name != "notes.txt":
            FileSystem().remove(path)
        elif path.is_file() and left == "wal" == path.parent.name:
            path.write_bytes(b"damaged" * 10)
    open_database(tmp_path, OPTIONS).close()
