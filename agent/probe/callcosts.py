"""What the kernel program counts of calls without reporting them: number, errors, bytes, durations.

Counted by process and class of calls in a hash map, which is emptied in one `bpf` call. The layouts mirror
`struct cost_key` and `struct cost` of records.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import Any

import numpy as np
import numpy.typing as npt

from security.fields import syscalls

CLASSES = ("read", "write", "send", "receive", "transfer", "open", "connect", "accept", "execute")
"""Index is the `class` of a row. The first five move bytes; transfer is from one descriptor to another."""
NO_BYTES = 0x80
DURATION_BUCKETS = 28
FIRST_BOUND_SECONDS = 2.0**-20
"""Durations in bucket n are below this times 2^n, those of the last one may be longer."""

_CALLS_OF: dict[str, tuple[str, ...]] = {
    "read": ("read", "pread64", "readv", "preadv", "preadv2"),
    "write": ("write", "pwrite64", "writev", "pwritev", "pwritev2"),
    "send": ("sendto", "sendmsg", "sendmmsg"),
    "receive": ("recvfrom", "recvmsg", "recvmmsg"),
    "transfer": ("sendfile", "splice", "tee", "vmsplice", "copy_file_range"),
    "open": ("open", "openat", "openat2", "creat"),
    "connect": ("connect",),
    "accept": ("accept", "accept4"),
    "execute": ("execve", "execveat"),
}
_COUNT_MESSAGES = frozenset(("sendmmsg", "recvmmsg"))

CALLS: dict[str, int] = {
    call: number + 1 | (NO_BYTES if call in _COUNT_MESSAGES else 0)
    for number, name in enumerate(CLASSES)
    for call in _CALLS_OF[name]
}
"""Calls that can be measured, and what `struct action` has for them."""

_AMOUNTS: list[Any] = [
    *((name, "<u8") for name in ("calls", "errors", "bytes", "timed", "duration_ns")),
    ("buckets", "<u4", (DURATION_BUCKETS,)),
]
COST_AMOUNTS = np.dtype(_AMOUNTS)
LEFT_OVER_ENTRIES = 16
COST = np.dtype([("start_ns", "<u8"), ("pid", "<u4"), ("class", "<u4"), *_AMOUNTS])
"""A process and class. `timed` calls have a duration; pid 0 stands for what had no place in the map."""
_KEY_BYTES = 16
BATCH_ENTRIES = 4096
_LOOKUP_AND_DELETE_BATCH = 25


class _BatchAttribute(ctypes.Structure):
    """`union bpf_attr` of the batch commands."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("in_batch", "out_batch", "keys", "values")),
        *((name, ctypes.c_uint32) for name in ("count", "map_fd")),
        *((name, ctypes.c_uint64) for name in ("elem_flags", "flags")),
    )


class CostMap:
    """One of the two maps. One thread uses it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._number = syscalls.numbers(platform.machine())["bpf"]
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._keys = np.empty((BATCH_ENTRIES, _KEY_BYTES), np.uint8)
        self._values = np.empty((BATCH_ENTRIES, COST.itemsize - _KEY_BYTES), np.uint8)

    def take(self) -> npt.NDArray[Any]:
        """All entries as `COST`, which are then no more in the map. Raises OSError."""
        parts: list[npt.NDArray[np.uint8]] = []
        cursor = np.zeros(2, np.uint64)
        first = True
        while True:
            attribute = _BatchAttribute(
                0 if first else cursor[:1].ctypes.data,
                cursor[1:].ctypes.data,
                self._keys.ctypes.data,
                self._values.ctypes.data,
                BATCH_ENTRIES,
                self._descriptor,
            )
            status = self._call(
                self._number, _LOOKUP_AND_DELETE_BATCH, ctypes.byref(attribute), ctypes.sizeof(attribute)
            )
            code = ctypes.get_errno() if status else 0
            if code not in (0, errno.ENOENT):
                raise OSError(code, f"measured calls cannot be read: {os.strerror(code)}")
            count = attribute.count
            parts.append(np.concatenate([self._keys[:count], self._values[:count]], axis=1))
            if code == errno.ENOENT:
                return np.concatenate(parts).reshape(-1).view(COST)
            cursor[0], first = cursor[1], False
