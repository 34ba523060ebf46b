"""A disk that fails, from a seed: wraps the store's file layer and can lose what was not synced.

Every call that changes something is counted. At the chosen call the disk does one of: crash (this and all
later calls raise Crashed), short write then crash, EIO, ENOSPC. `power_cut` then rewrites the directory as a
machine that lost power might leave it: of each file only a prefix of what came after the last sync stays, the
last sector torn.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tsdb.errors import DiskFullError
from tsdb.fs import AppendFile, Buffer, FileSystem

SECTOR_BYTES = 512


class Crashed(BaseException):
    """The process is dead as far as the store can tell. Not an Exception: nobody may swallow it."""


class FaultyDisk(FileSystem):
    """`at` is the number of the call (from 1) that fails, 0 for none; `kind` is crash, short, eio or full."""

    def __init__(self, at: int = 0, kind: str = "crash", seed: int = 0) -> None:
        self.calls = 0
        self.at, self.kind = at, kind
        self.dead = False
        self.full = False
        self.source = random.Random(seed)
        self.synced: dict[Path, int] = {}

    def hit(self, file: AppendFile | None = None, buffers: Sequence[Buffer] = ()) -> None:
        """Count a call; fail if it is the one."""
        if self.dead:
            raise Crashed
        self.calls += 1
        if self.full and buffers:
            raise DiskFullError("no space left on device (injected)")
        if self.calls != self.at:
            return
        if self.kind == "eio":
            raise OSError(errno.EIO, "Input/output error (injected)")
        if self.kind == "full":
            self.full = True
            raise DiskFullError("no space left on device (injected)")
        if self.kind == "short" and file is not None:
            whole = b"".join(bytes(memoryview(part)) for part in buffers)  # type: ignore[arg-type]
            file.write([whole[: self.source.randrange(len(whole) + 1)]])
        self.dead = True
        raise Crashed

    # The calls that change something.

    def append_file(self, path: Path, *, create: bool = True, direct: bool = False) -> AppendFile:
        self.hit()
        file = super().append_file(path, create=create, direct=direct)
        self.synced.setdefault(path, 0 if create else file.size)
        return _FaultyFile(file, self)  # type: ignore[return-value]

    def rename(self, source: Path, target: Path) -> None:
        self.hit()
        super().rename(source, target)
        for path in [p for p in self.synced if p == source or source in p.parents]:
            self.synced[target / path.relative_to(source)] = self.synced.pop(path)

    def remove(self, path: Path) -> None:
        self.hit()
        super().remove(path)
        self.synced.pop(path, None)

    def remove_tree(self, path: Path) -> None:
        self.hit()
        super().remove_tree(path)

    def make_directory(self, path: Path) -> None:
        self.hit()
        super().make_directory(path)

    def link(self, source: Path, target: Path) -> None:
        self.hit()
        super().link(source, target)
        if source in self.synced:
            self.synced[target] = self.synced[source]

    def sync_directory(self, path: Path) -> None:
        self.hit()
        super().sync_directory(path)

    # What a power cut leaves.

    def power_cut(self) -> None:
        """Cut each file somewhere behind its last sync, with garbage in the last sector now and then."""
        for path, synced in self.synced.items():
            if not path.is_file():
                continue
            size = path.stat().st_size
            if size <= synced:
                continue
            kept = self.source.randint(synced, size)
            with path.open("r+b") as file:
                file.truncate(kept)
                if kept > synced and self.source.random() < 0.5:
                    torn = min(kept - synced, SECTOR_BYTES)
                    file.seek(kept - torn)
                    file.write(self.source.randbytes(torn))


class _FaultyFile:
    def __init__(self, inner: AppendFile, disk: FaultyDisk) -> None:
        self._inner, self._disk = inner, disk

    def __getattr__(self, key: str) -> Any:
        return getattr(self._inner, key)

    def write(self, buffers: Sequence[Buffer]) -> int:
        self._disk.hit(self._inner, buffers)
        return self._inner.write(buffers)

    def sync(self) -> None:
        self._disk.hit()
        self._inner.sync()
        self._disk.synced[self._inner.path] = self._inner.size

    def truncate(self, size: int) -> None:
        self._disk.hit()
        self._inner.truncate(size)
        path = self._inner.path
        self._disk.synced[path] = min(self._disk.synced.get(path, 0), size)
