"""Memory that loaded kernels do not need: intermediate code, and the pages of the compiler itself."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tsdb.kernels.compile import Kernel


def give_back(kernels: Iterable[Kernel[Any, Any]]) -> int:
    """Free what is left over from loading kernels: some 40 MiB of memory and 50 MiB of resident code for all.

    Returns the bytes of the compiler's code whose pages were let go.
    """
    for kernel in kernels:
        if kernel.ready:
            _drop_bitcode(kernel.compile())
    return _drop_compiler_pages()


def _drop_bitcode(dispatcher: Any) -> None:
    """Free the code that numba keeps for linking a function into another one, never done with a kernel."""
    for compiled in dispatcher.overloads.values():
        module = getattr(compiled.library, "_shared_module", None)
        if module is not None:
            compiled.library._shared_module = None
            module.close()


def _drop_compiler_pages() -> int:
    """Unmap the resident pages of LLVM's machine code; they come back when something is compiled."""
    dropped = 0
    with contextlib.suppress(OSError):
        libc = ctypes.CDLL(None, use_errno=True)
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            span, permissions, *rest = line.split(maxsplit=5)
            # Code is never written to, unlike data that was relocated: dropping that would lose it.
            if permissions != "r-xp" or "libllvmlite" not in rest[-1]:
                continue
            start, end = (int(text, 16) for text in span.split("-"))
            if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED) == 0:
                dropped += end - start
    return dropped
