"""Arrays that grow without moving: address space reserved once, pages given by the kernel when first touched.

A reserved array never changes its address, so kernels that run without the GIL may read it while the writer
appends to it, and doubling never copies or needs twice the memory.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

_MAP_NORESERVE = 0x4000
_RESERVE_FLOOR_ELEMENTS = 1 << 16


def reserve(dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
    """A zeroed array of at most `count` elements over untouched anonymous memory.

    Where the system refuses that much address space (strict overcommit, a ulimit), fewer elements are given,
    down to 65,536; the caller takes `len` of the result as its limit. Raises MemoryError below that.
    """
    item = np.dtype(dtype).itemsize
    wanted = count
    while True:
        try:
            mapped = mmap.mmap(
                -1, wanted * item, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
            )
        except (OSError, MemoryError) as error:
            if wanted <= _RESERVE_FLOOR_ELEMENTS:
                raise MemoryError(f"cannot reserve {wanted * item} bytes of address space") from error
            wanted = max(wanted // 2, _RESERVE_FLOOR_ELEMENTS)
            continue
        return np.frombuffer(mapped, dtype=dtype)


def clear(array: npt.NDArray[Any], lo: int, hi: int) -> None:
    """Zero elements lo to hi; whole pages inside go back to the system."""
    mapped: Any = array.base
    while isinstance(mapped, np.ndarray | memoryview):
        mapped = mapped.base if isinstance(mapped, np.ndarray) else mapped.obj
    first = -(-lo * array.itemsize // mmap.PAGESIZE) * mmap.PAGESIZE
    last = hi * array.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
    if not isinstance(mapped, mmap.mmap) or last <= first:
        array[lo:hi] = 0
        return
    array[lo : first // array.itemsize] = 0
    array[last // array.itemsize : hi] = 0
    mapped.madvise(mmap.MADV_DONTNEED, first, last - first)
