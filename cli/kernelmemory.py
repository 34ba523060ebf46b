"""Memory that loaded kernels do not need: intermediate code, and the pages of the compiler itself."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tsdb.allocator import release_free_memory
from tsdb.kernels.compile import Kernel


def give_back(kernels: Iterable[Kernel[Any, Any]]) -> int:
    """Free what is left over from loading kernels: some 40 MiB of memory and 50 MiB of resident code for all.

    Returns the bytes of the compiler's code whose pages were let go.
    """
    for kernel in kernels:
        drop_bitcode(kernel)
    pages = _drop_compiler_pages()
    release_free_memory()
    return pages


def drop_bitcode(kernel: Kernel[Any, Any]) -> None:
    """Free the code that numba keeps for linking a function into another one, never done with a kernel.

    Right after each kernel is loaded: half a MiB that the next one takes again. Left for the end, the free
    pieces lie between what stays.
    """
    if not kernel.ready:
        return
    dispatcher: Any = kernel.compile()
    for compiled in getattr(dispatcher, "overloads", {}).values():  # those of the image are no dispatchers
        module = getattr(compiled.library, "_shared_module", None)
        if module is not None:
            compiled.library._shared_module = None
            module.close()


def _drop_compiler_pages() -> int:
    """Unmap the resident pages of LLVM's code and tables; they come back when something is compiled.

    Only where no page of a mapping has been written to: relocated data would be lost.
    """
    dropped = 0
    with contextlib.suppress(OSError):
        libc = ctypes.CDLL(None, use_errno=True)
        start, end, eligible = 0, 0, False
        for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
            first, *rest = line.split(maxsplit=5)
            if first == "Anonymous:":
                length = end - start
                if (
                    eligible
                    and rest[0] == "0"
                    and not libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_DONTNEED)
                ):
                    dropped += length
            elif not first.endswith(":"):
                start, end = (int(text, 16) for text in first.split("-"))
                eligible = rest[0] in ("r-xp", "r--p") and "libllvmlite" in rest[-1]
    return dropped
