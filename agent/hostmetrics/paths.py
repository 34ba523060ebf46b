"""Where the kernel's files are: the host's own, or a host's trees mounted into a container, or a test's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache

FILE_BYTES_LIMIT = 16 << 20
"""Largest kernel file that is read."""
ROOT_OF_FIRST = "/proc/1/root"


class NoDataError(Exception):
    """The kernel or the machine has nothing for a collector; that is no fault."""


@lru_cache(maxsize=1)
def root_of_host() -> str:
    """Where the host's files are seen, empty where they are the agent's own.

    An agent in a container that shares the host's process numbers sees them through process 1. One that does
    not share them lives beside process 1, and one that may not look there has only its own files.
    """
    try:
        if os.stat("/proc/1/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino:
            return ""
        os.stat(f"{ROOT_OF_FIRST}/etc")
    except OSError:
        return ""
    return ROOT_OF_FIRST


@dataclass(frozen=True, slots=True)
class HostPaths:
    """Roots without a trailing slash; `rootfs` empty for the agent's own root."""

    proc: str = "/proc"
    sys: str = "/sys"
    rootfs: str = field(default_factory=root_of_host)
    udev: str = "/run/udev/data"

    def read_proc(self, path: str) -> str:
        """Text of a file below /proc. Raises NoDataError where it is absent, OSError otherwise."""
        return read_text(f"{self.proc}/{path}")

    def read_sys(self, path: str) -> str:
        """Text of a file below /sys. Raises NoDataError where it is absent, OSError otherwise."""
        return read_text(f"{self.sys}/{path}")

    def list_sys(self, path: str) -> list[str]:
        """Sorted names in a directory below /sys; empty where it is absent."""
        return list_names(f"{self.sys}/{path}")


def read_text(path: str) -> str:
    """A whole kernel file; bytes that are no UTF-8 become surrogates.

    Raises NoDataError where it is absent, OSError for any other failure, ValueError above the limit.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoDataError(f"{path} does not exist") from error
    try:
        parts = []
        size = 0
        while part := os.read(descriptor, 1 << 16):
            parts.append(part)
            size += len(part)
            if size > FILE_BYTES_LIMIT:
                raise ValueError(f"{path} has more than {FILE_BYTES_LIMIT} bytes")
    finally:
        os.close(descriptor)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def read_optional(path: str) -> str | None:
    """Stripped text of an attribute file, None where it cannot be read (many fail on purpose)."""
    try:
        return read_text(path).strip()
    except (NoDataError, OSError, ValueError):
        return None


def read_number(path: str) -> float | None:
    """Number in an attribute file, decimal or with 0x; None where there is none."""
    text = read_optional(path)
    if text is None:
        return None
    try:
        return float(int(text, 16)) if text.startswith("0x") else float(text)
    except (ValueError, OverflowError):
        return None


def list_names(path: str) -> list[str]:
    """Sorted names in a directory; empty where it is absent or not readable."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
