"""A store at the command line: listed, locked for writing, or opened beside its server.

Beside a server blocks are taken by link and the log by copy; nothing in the store itself changes.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsdb.blockmeta import META_FILE, BlockMeta
from tsdb.database import LOCK_FILE, Database, open_database
from tsdb.datadirectory import WAL_DIRECTORY, refuse_foreign
from tsdb.errors import StorageError
from tsdb.fs import FileSystem
from tsdb.headsnapshot import FILE_NAME as HEAD_SNAPSHOT
from tsdb.limits import StorageOptions
from tsdb.ulid import is_ulid

SANDBOX_PREFIX = "tmp_dbro_sandbox"
COPY_ATTEMPTS = 5
"""A running server may delete segments of its log while they are copied."""


def block_metas(store: Path) -> list[BlockMeta]:
    """Blocks of a store ascending by time, without those that a larger block replaces.

    Raises CorruptionError, UnknownVersionError, StorageError where there is no such directory.
    """
    if not store.is_dir():
        raise StorageError(f"{store}: no such directory")
    fs = FileSystem()
    found = []
    for name in fs.list(store):
        path = store / name / META_FILE
        if is_ulid(name) and fs.exists(path):
            found.append(BlockMeta.from_json(fs.read_file(path), str(path)))
    replaced = {parent.ulid for meta in found for parent in meta.parents}
    kept = [meta for meta in found if meta.ulid not in replaced]
    return sorted(kept, key=lambda meta: (meta.min_time, meta.max_time, meta.ulid))


@contextmanager
def locked_store(fs: FileSystem, store: Path) -> Iterator[None]:
    """The store, made where it is not there, held against servers. Raises LockedError, OSError, StorageError
    for a directory of another program."""
    fs.make_directory(store)
    refuse_foreign(fs, store)
    lock = fs.lock(store / LOCK_FILE)
    try:
        yield
    finally:
        lock.close()


@contextmanager
def opened_copy(store: Path, sandbox_root: Path | None = None) -> Iterator[Database]:
    """The store with its head, as of now; works while a server runs on it.

    Needs as much room as the write-ahead log takes, below `sandbox_root` (default: the store itself). Raises
    StorageError, also for a block that is damaged.
    """
    metas = block_metas(store)
    root = sandbox_root or (store if os.access(store, os.W_OK) else None)
    with tempfile.TemporaryDirectory(prefix=SANDBOX_PREFIX, dir=root) as sandbox:
        target = Path(sandbox)
        _copy_log(store, target)
        # Blocks after the log, so that what the head loses in between is in a block.
        for name in [meta.ulid for meta in block_metas(store)]:
            os.symlink((store / name).resolve(), target / name)
        options = StorageOptions(
            retention_ms=0, lock_file=False, background=False, snapshot_on_close=False, wal_sync="never"
        )
        # A copy of a living log ends in a torn record; that is no news.
        logging.getLogger("tsdb").setLevel(logging.CRITICAL)
        database = open_database(target, options)
        try:
            missing = {meta.ulid for meta in metas} - {stored.meta.ulid for stored in database.blocks()}
            damaged = sorted(name for name in missing if (store / name / META_FILE).exists())
            if damaged:
                raise StorageError(f"{store}: blocks cannot be read: {', '.join(damaged)}")
            yield database
        finally:
            database.close()


def _copy_log(store: Path, target: Path) -> None:
    for attempt in range(COPY_ATTEMPTS):
        shutil.rmtree(target / WAL_DIRECTORY, ignore_errors=True)
        (target / WAL_DIRECTORY).mkdir()
        (target / HEAD_SNAPSHOT).unlink(missing_ok=True)
        try:
            if (store / HEAD_SNAPSHOT).exists():
                shutil.copy2(store / HEAD_SNAPSHOT, target / HEAD_SNAPSHOT)
            if (store / WAL_DIRECTORY).is_dir():
                for entry in sorted((store / WAL_DIRECTORY).iterdir()):
                    shutil.copy2(entry, target / WAL_DIRECTORY / entry.name)
            return
        except FileNotFoundError:
            if attempt == COPY_ATTEMPTS - 1:
                raise
