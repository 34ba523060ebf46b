"""Arrays of a few MiB that are used again by their thread, so that queries do not wait for fresh pages.

The kernel clears each page at its first use: 0.8 us for 512 samples, more than decoding them takes, and two
threads wait for each other while it does.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

KEPT = 6
"""Buffers a thread keeps; each at most `KEPT_BYTES_MAX`."""

SMALL_BYTES = 1 << 16
"""Below this the allocator keeps pages by itself."""

KEPT_BYTES_MAX = 1 << 23

_local = threading.local()


def _references(buffers: list[npt.NDArray[np.uint8]]) -> list[int]:
    """References to each buffer, the list's and those of asking included."""
    return [sys.getrefcount(buffer) for buffer in buffers]


_IDLE_REFERENCES = _references([np.empty(1, dtype=np.uint8)])[0]
"""Of a buffer that only its list knows; versions of Python count differently."""


def scratch(count: int, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """An array of `count` numbers with undefined content, as `numpy.empty` gives.

    Its memory is used again once neither it nor a view of it is referenced any more: nobody has to give
    anything back, and what is kept for long is simply no scratch any longer.
    """
    size = count * np.dtype(dtype).itemsize
    if size < SMALL_BYTES or size > KEPT_BYTES_MAX:
        return np.empty(count, dtype=dtype)
    buffers: list[npt.NDArray[np.uint8]] = _local.__dict__.setdefault("buffers", [])
    for buffer, references in zip(buffers, _references(buffers), strict=True):
        if buffer.nbytes >= size and references == _IDLE_REFERENCES:
            return buffer[:size].view(dtype)
    made = np.empty(1 << (size - 1).bit_length(), dtype=np.uint8)
    buffers.append(made)
    if len(buffers) > KEPT:
        del buffers[0]
    return made[:size].view(dtype)
