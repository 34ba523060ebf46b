"""A program that makes system calls at the speed of C: `python -m benchmarks.syscallload CALL COUNT RATE`.

For each line on standard input it makes the calls, and prints their number and seconds. numba compiles it,
so that no C compiler is needed.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

CHUNK_SECONDS = 0.002
_LIBC = ctypes.CDLL(None)
_GETPPID: Any = _LIBC.getppid
_GETPPID.argtypes = []
_GETPPID.restype = ctypes.c_int
_OPEN: Any = _LIBC.open
_OPEN.argtypes = [ctypes.c_size_t, ctypes.c_int]
_OPEN.restype = ctypes.c_int
_CLOSE: Any = _LIBC.close
_CLOSE.argtypes = [ctypes.c_int]
_CLOSE.restype = ctypes.c_int
_READ: Any = _LIBC.read
_READ.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_size_t]
_READ.restype = ctypes.c_ssize_t
_ZERO_PATH = np.frombuffer(b"/dev/zero\0", np.uint8).copy()
_ZERO = int(_ZERO_PATH.ctypes.data)


@njit  # type: ignore[untyped-decorator]
def _getppid(count: int, path: int) -> int:
    total = 0
    for _ in range(count):
        total += _GETPPID()
    return total


@njit  # type: ignore[untyped-decorator]
def _open(count: int, path: int) -> int:
    failed = 0
    for _ in range(count):
        descriptor = _OPEN(path, 0)
        failed += descriptor < 0
        _CLOSE(descriptor)
    return failed


@njit  # type: ignore[untyped-decorator]
def _read(count: int, path: int) -> int:
    descriptor = _OPEN(_ZERO, 0)
    failed = 0
    for _ in range(count):
        failed += _READ(descriptor, path, 1) != 1
    _CLOSE(descriptor)
    return failed


LOOPS: dict[str, Callable[[int, int], int]] = {"getppid": _getppid, "open": _open, "read": _read}


def run(call: str, count: int, rate: float = 0.0) -> tuple[int, float]:
    """Make `count` calls, `rate` a second or as fast as it goes; calls made and seconds."""
    path = np.frombuffer(b"/dev/null\0", np.uint8).copy()
    loop, address = LOOPS[call], int(path.ctypes.data)
    loop(1, address)
    began = time.perf_counter()
    if not rate:
        loop(count, address)
        return count, time.perf_counter() - began
    done = 0
    while done < count:
        due = min(int((time.perf_counter() - began) * rate), count)
        loop(due - done, address)
        done = due
        time.sleep(CHUNK_SECONDS)
    return done, time.perf_counter() - began


def main() -> None:
    """Compile, say so, then run once for each line."""
    call, count, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    run(call, 1)
    print("ready", flush=True)
    for _ in sys.stdin:
        made, seconds = run(call, count, rate)
        print(made, seconds, flush=True)


if __name__ == "__main__":
    main()
