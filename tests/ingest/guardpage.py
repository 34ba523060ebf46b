"""Bytes that end where an unreadable page begins: a read past the end kills the process."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import numpy.typing as npt

_PROT_NONE = 0
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class GuardedBuffer:
    """Room for `capacity` bytes in front of a page that may not be touched."""

    def __init__(self, capacity: int) -> None:
        pages = -(-capacity // mmap.PAGESIZE)
        self._map = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
        self._end = pages * mmap.PAGESIZE
        self._all = np.frombuffer(self._map, dtype=np.uint8)
        guard = self._all.ctypes.data + self._end
        if _LIBC.mprotect(guard, mmap.PAGESIZE, _PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")

    def hold(self, data: bytes) -> npt.NDArray[np.uint8]:
        """An array of the bytes whose last byte is the last readable one."""
        if len(data) > self._end:
            raise ValueError(f"{len(data)} bytes do not fit in {self._end}")
        start = self._end - len(data)
        self._map[start : self._end] = data
        return self._all[start : self._end]
