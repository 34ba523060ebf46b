"""Arrays of a few MiB that are used again by their thread, so that queries do not wait for fresh pages.

The kernel clears each page at its first use: 0.4 to 0.8 us for 512 samples, as long as decoding them takes,
and two threads wait for each other while it does.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

KEPT_BYTES_MAX = 1 << 24
"""Of a thread's buffers together; those made first go first."""

SMALL_BYTES = 1 << 16
"""Below this the allocator keeps pages by itself."""

LARGE_BYTES = 1 << 23
"""Above this an array is not worth keeping: it is for one query only."""

U8Array = npt.NDArray[np.uint8]

_kept: dict[int, list[U8Array]] = {}
"""Buffers of each thread, by its number. A thread that ended leaves them to the next of that number."""


def _references(buffers: list[U8Array]) -> list[int]:
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
    if size < SMALL_BYTES or size > LARGE_BYTES:
        return np.empty(count, dtype=dtype)
    buffers = _kept.setdefault(threading.get_ident(), [])
    for buffer, references in zip(buffers, _references(buffers), strict=True):
        if size <= buffer.nbytes <= 4 * size and references == _IDLE_REFERENCES:
            return buffer[:size].view(dtype)
    made = np.empty(1 << (size - 1).bit_length(), dtype=np.uint8)
    buffers.append(made)
    total = sum(buffer.nbytes for buffer in buffers)
    while total > KEPT_BYTES_MAX:
        total -= buffers.pop(0).nbytes
    return made[:size].view(dtype)


def forget() -> None:
    """Keep nothing; what is in use stays so."""
    _kept.clear()
