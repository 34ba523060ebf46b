"""Giving free memory back to the kernel.

glibc keeps what was freed in an arena a thread, and after the first large arrays it no longer maps large ones
apart. Every thread of the pools so ends up holding the largest cut, merge or query it ever made.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

from tsdb import scratch


@lru_cache(maxsize=1)
def _malloc_trim() -> Any:
    """glibc's function; None with another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def release_free_memory() -> None:
    """Return scratch memory and the free pages of all arenas; some milliseconds, without the interpreter's
    lock."""
    scratch.forget()
    trim = _malloc_trim()
    if trim is not None:
        trim(ctypes.c_size_t(0))
