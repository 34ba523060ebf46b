"""Every file call of the store, in one object that tests can wrap to inject faults.

The store never touches `os`, `open` or `mmap` elsewhere. Paths are `pathlib.Path`. A full disk is raised as
DiskFullError, everything else as OSError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from tsdb.errors import DiskFullError, LockedError, StorageError

U8Array = npt.NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview | npt.NDArray[Any]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_BUFFERS_PER_WRITE = 512
"""Below IOV_MAX (1024) of Linux."""


SECTOR_BYTES = 512
"""What a direct write is a multiple of."""
_DIRECT_BUFFER_BYTES = 256 << 10


class AppendFile:
    """A file that is only written at its end. One thread.

    A direct one is written around the page cache as long as every write is whole sectors and the disk takes
    them: no more is sent to the disk than that, where the cache sends a page of 4 KiB for each byte in it.
    """

    def __init__(self, path: Path, descriptor: int, size: int, direct: bool = False) -> None:
        self.path = path
        self.size = size
        """Bytes written, as far as they succeeded whole."""
        self._descriptor = descriptor
        self._direct = direct
        self._aligned = mmap.mmap(-1, _DIRECT_BUFFER_BYTES) if direct else None

    def write(self, buffers: Sequence[Buffer]) -> int:
        """Write all buffers; returns their total size. After an error the file may end in a part of them: cut
        it with `truncate`. Raises DiskFullError, OSError."""
        views = [memoryview(cast(Any, part)).cast("B") for part in buffers if len(part)]
        total = sum(len(view) for view in views)
        try:
            if self._direct:
                views = self._write_direct(views, total)
            while views:
                written = os.writev(self._descriptor, views[:_BUFFERS_PER_WRITE])
                while views and written >= len(views[0]):
                    written -= len(views.pop(0))
                if written:
                    views[0] = views[0][written:]
        except OSError as error:
            raise _named(error, self.path) from error
        self.size += total
        return total

    def _write_direct(self, views: list[memoryview], total: int) -> list[memoryview]:
        """Write whole sectors from a buffer that begins at a page; what is left to be written as usual."""
        if total % SECTOR_BYTES or self.size % SECTOR_BYTES:
            self._leave_direct()
            return views
        assert self._aligned is not None
        buffer = self._aligned if total <= len(self._aligned) else mmap.mmap(-1, total)
        at = 0
        for view in views:
            buffer[at : at + len(view)] = view
            at += len(view)
        rest = memoryview(buffer)[:total]
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # Larger sectors, or a file system without direct writes.
                self._leave_direct()
                break
            rest = rest[written:]
            if written % SECTOR_BYTES:
                self._leave_direct()
                break
        return [rest] if rest else []

    def _leave_direct(self) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self._direct = False

    def sync(self) -> None:
        """Wait until the data is on disk. Raises OSError; the data must then be taken as lost."""
        os.fdatasync(self._descriptor)

    def truncate(self, size: int) -> None:
        """Cut the file to a size."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def close(self) -> None:
        """Close without syncing. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ReadFile:
    """A file of which parts are copied. Through a mapping they would stay resident, though the kernel has
    them anyway. Any thread may read; closed with the last reference."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, at: int, length: int) -> bytes:
        """`length` bytes from `at` on, fewer at the file's end. Raises OSError."""
        return os.pread(self._descriptor, length, at)

    def __del__(self) -> None:
        os.close(self._descriptor)


class DirectoryLock:
    """An exclusive lock on a file, released with `close` or the end of the process."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def close(self) -> None:
        """Release."""
        self._file.close()


class FileSystem:
    """The real one."""

    def append_file(self, path: Path, *, create: bool = True, direct: bool = False) -> AppendFile:
        """Open a file for appending; `create` refuses one that exists, else it must exist. `direct` asks for
        writes around the page cache, where there are such."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            raise _named(error, path) from error
        return AppendFile(path, descriptor, os.fstat(descriptor).st_size, direct and _set_direct(descriptor))

    def write_file(self, path: Path, buffers: Sequence[Buffer]) -> int:
        """Write a new file (replacing an old one) and sync it; returns its size."""
        if path.exists():
            self.remove(path)
        file = self.append_file(path)
        try:
            size = file.write(buffers)
            file.sync()
        finally:
            file.close()
        return size

    def read_file(self, path: Path) -> bytes:
        """The whole file."""
        return path.read_bytes()

    def map_file(self, path: Path) -> U8Array:
        """The file as a read-only array over a mapping; pages are read when touched."""
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return np.empty(0, dtype=np.uint8)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, dtype=np.uint8)

    def read_parts(self, path: Path) -> ReadFile:
        """The file, to be read in parts."""
        return ReadFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def list(self, directory: Path) -> list[str]:
        """Sorted names in a directory; empty where it does not exist."""
        try:
            return sorted(os.listdir(directory))
        except FileNotFoundError:
            return []

    def exists(self, path: Path) -> bool:
        """Whether there is something at the path."""
        return path.exists()

    def is_directory(self, path: Path) -> bool:
        """Whether there is a directory at the path."""
        return path.is_dir()

    def make_directory(self, path: Path) -> None:
        """Create a directory and its parents where missing."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _named(error, path) from error

    def rename(self, source: Path, target: Path) -> None:
        """Rename, replacing a file at the target; sync the target's directory."""
        os.rename(source, target)
        self.sync_directory(target.parent)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and what is in it, if it is there."""
        if path.exists():
            shutil.rmtree(path)

    def link(self, source: Path, target: Path) -> None:
        """Make a hard link, or a copy, synced, where links do not work. Raises DiskFullError, OSError."""
        try:
            os.link(source, target)
            return
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise _named(error, target) from error
        try:
            shutil.copy2(source, target)
            with target.open("rb") as copy:
                os.fsync(copy.fileno())
        except OSError as error:
            raise _named(error, target) from error

    def sync_directory(self, path: Path) -> None:
        """Make created, renamed and removed names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def size(self, path: Path) -> int:
        """Bytes of a file, or of all files below a directory."""
        if path.is_dir():
            return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
        return path.stat().st_size if path.exists() else 0

    def free_bytes(self, path: Path) -> int:
        """Bytes left on the disk of a path."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize

    def disk_bytes(self, path: Path) -> int:
        """Size of the disk of a path."""
        status = os.statvfs(path)
        return status.f_blocks * status.f_frsize

    def lock(self, path: Path) -> DirectoryLock:
        """Take the lock file of a directory. Raises LockedError, or StorageError where it is not writable."""
        try:
            file = path.open("a+")
        except OSError as error:
            raise StorageError(f"data directory {path.parent} is not writable: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read(32).strip() or "unknown"
            file.close()
            raise LockedError(
                f"data directory {path.parent} is in use by another process (pid {holder})"
            ) from error
        # The lock holds without the number, for which a full disk has no room.
        with contextlib.suppress(OSError):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        return DirectoryLock(file)


def _set_direct(descriptor: int) -> bool:
    """Turn direct writes on; whether the file system has them."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        return False
    return True


def _named(error: OSError, path: Path) -> Exception:
    if error.errno in _FULL:
        return DiskFullError(f"no space left on device while writing {path}")
    return OSError(error.errno, error.strerror, str(path))
