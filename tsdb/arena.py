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


def reserve(dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
    """A zeroed array of `count` elements over untouched anonymous memory.

    Raises MemoryError where the system refuses that much address space (strict overcommit, a ulimit); the
    caller then tries with less.
    """
    size = max(count * np.dtype(dtype).itemsize, 1)
    try:
        mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"cannot reserve {size} bytes of address space") from error
    return np.frombuffer(mapped, dtype=dtype)
