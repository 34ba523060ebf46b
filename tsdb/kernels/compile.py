"""The one way a loop becomes machine code: `kernel` for entry points, `device` for what kernels call.

A kernel is compiled for its written signatures only, without the GIL, with numpy's error model (division
by zero gives an infinity instead of an exception), and cached on disk. Nothing is compiled at import: the
first call, or `warm`, loads the kernel from the cache (3 to 7 ms) or compiles it (0.5 to 2.5 s).

numba's own cache notices a change of the kernel's file only. `KernelCacheLocator` also looks at the kernel
modules that the file imports, so an edited `device` function is never served stale from the cache.
"""

from __future__ import annotations

import hashlib
import importlib
import opcode
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numba
from numba.core.caching import InTreeCacheLocator, UserWideCacheLocator

from tsdb.kernels.kernelcache import KernelCache

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
_ALLOCATING = frozenset(
    {
        *("empty", "zeros", "ones", "full", "array", "arange", "linspace", "copy", "astype", "repeat"),
        *("empty_like", "zeros_like", "ones_like", "full_like", "concatenate", "append", "sort", "argsort"),
        *("unique", "cumsum", "diff", "where", "nonzero", "flatnonzero", "searchsorted", "reshape"),
        *("list", "dict", "set", "List", "Dict"),
    }
)
"""Names in a function's body that make it need numba's memory runtime."""
_SLICE_STORES = tuple(
    bytes(opcode.opmap[name] for name in names)
    for names in (("STORE_SLICE",), ("BUILD_SLICE", "STORE_SUBSCR"))
    if all(name in opcode.opmap for name in names)
)
"""Operation codes that `a[i:j] = b` ends in, by version of Python."""
_KERNEL_IMPORT = re.compile(
    r"^\s*(?:from|import)\s+(\w+\.kernels(?:\.\w+)?)(?:\s+import\s+([\w, ()]+))?", re.MULTILINE
)


def _assigns_slice(function: Callable[..., Any]) -> bool:
    """Whether there is an `a[i:j] = b`, for which numba may need a temporary copy."""
    operations = function.__code__.co_code[::2]
    return any(sequence in operations for sequence in _SLICE_STORES)


def _allocates(function: Callable[..., Any]) -> bool:
    """Whether a function, or a jitted one that it calls, may create an array.

    Without allocations the memory runtime is left out: it counts a reference, atomically, for every array
    at every call of a `device` function, even of an inlined one. The remote-write decode took 532 ns a
    sample with it and 69 ns without (2026-11-23, 2 cores).
    """
    names = function.__code__.co_names
    if not _ALLOCATING.isdisjoint(names) or _assigns_slice(function):
        return True
    callees = (getattr(function.__globals__.get(name), "py_func", None) for name in names)
    return any(_allocates(callee) for callee in callees if callee is not None)


def _options(function: Callable[..., Any]) -> dict[str, Any]:
    return {**_OPTIONS, "_nrt": _allocates(function)}


@cache
def _source_digest(path: str) -> str:
    """Digest of a kernel module's text and of every kernel module it imports, however deep."""
    root = Path(path).resolve().parent.parent.parent
    digest = hashlib.blake2b(digest_size=16)
    pending, seen = [Path(path).resolve()], set[Path]()
    while pending:
        file = pending.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        text = file.read_text(encoding="utf-8")
        for match in _KERNEL_IMPORT.finditer(text):
            module, names = match.group(1), match.group(2)
            base = root.joinpath(*module.split("."))
            pending.append(base.with_suffix(".py"))
            if names and base.is_dir():
                pending.extend(base / f"{name.strip(' ()')}.py" for name in names.split(","))
    for file in sorted(seen):
        digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def _make_writable(folder: str) -> None:
    """Raises OSError."""
    os.makedirs(folder, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


class _DependencyStamp:
    """Mixes the digest of imported kernel modules into numba's cache stamp."""

    _py_file: str

    def ensure_cache_path(self) -> None:
        """Try once, not for every function, that the folder can be written to."""
        _make_writable(super().get_cache_path())  # type: ignore[misc]

    def get_source_stamp(self) -> tuple[str, str]:
        """Names the module inside its package only, so a copied or moved installation keeps its cache."""
        module = Path(self._py_file)
        return (
            f"{module.parent.parent.name}/{module.parent.name}/{module.name}",
            _source_digest(self._py_file),
        )


class InTreeKernelCacheLocator(_DependencyStamp, InTreeCacheLocator):
    """Cache beside the source, where that is writable."""


class UserWideKernelCacheLocator(_DependencyStamp, UserWideCacheLocator):
    """Cache in the user's cache folder, for installations that are not writable."""


_NUMBA_CONFIG: Any = numba.config
if not _NUMBA_CONFIG.CACHE_LOCATOR_CLASSES:
    _NUMBA_CONFIG.CACHE_LOCATOR_CLASSES = ",".join(
        f"{__name__}.{name}" for name in ("InTreeKernelCacheLocator", "UserWideKernelCacheLocator")
    )


class Kernel(Generic[P, R]):
    """A function that is compiled at its first call. Many threads may call it; one compiles."""

    def __init__(self, function: Callable[P, R], signatures: Sequence[str], group: str) -> None:
        self.function = function
        self.signatures = tuple(signatures)
        self.group = group
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__wrapped__ = function
        self._lock = threading.Lock()
        self._compiled: Callable[P, R] | None = None

    @property
    def ready(self) -> bool:
        """Whether the machine code is loaded."""
        return self._compiled is not None

    def compile(self) -> Callable[P, R]:
        """Load from the cache or compile; return the dispatcher."""
        with self._lock:
            if self._compiled is None:
                dispatcher = numba.njit(**_options(self.function))(self.function)
                dispatcher._cache = KernelCache(self.function)  # type: ignore[no-untyped-call]
                for signature in self.signatures:
                    dispatcher.compile(signature)
                dispatcher.disable_compile()
                self._compiled = cast("Callable[P, R]", dispatcher)
            return self._compiled

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        compiled = self._compiled
        if compiled is None:
            compiled = self.compile()
        return compiled(*args, **kwargs)


_REGISTRY: dict[str, Kernel[Any, Any]] = {}


def kernel(*signatures: str, group: str) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Register a kernel with explicit numba signatures, e.g. ``"int64(uint8[::1], float64[::1])"``.

    `group` names the path that needs it: ``write``, ``read``, ``watch`` or ``import``; the server says
    ready when the write group is loaded and loads the others in the background.
    """
    if not signatures:
        raise TypeError("a kernel needs at least one explicit signature")

    def register(function: Callable[P, R]) -> Kernel[P, R]:
        made = Kernel(function, signatures, group)
        if made.name in _REGISTRY and os.environ.get("VEDETTE_KERNEL_RELOAD") is None:
            raise ValueError(f"kernel {made.name} is registered twice")
        _REGISTRY[made.name] = made
        return made

    return register


def device(function: Callable[P, R]) -> Callable[P, R]:
    """A jitted function for use inside kernels only; compiled as part of its callers."""
    return cast("Callable[P, R]", numba.njit(**_options(function))(function))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """A `device` that is always inlined by LLVM: for bodies of a few instructions in a hot loop."""
    return cast("Callable[P, R]", numba.njit(forceinline=True, **_options(function))(function))


def registered(group: str | None = None) -> list[Kernel[Any, Any]]:
    """All kernels of a group (or all) whose modules have been imported, in order of name."""
    return [k for _, k in sorted(_REGISTRY.items()) if group is None or k.group == group]


def import_kernel_modules(packages: Iterable[str]) -> None:
    """Import every module of each package's `kernels` folder, so that its kernels are registered."""
    for package in packages:
        folder = importlib.import_module(f"{package}.kernels")
        for path in sorted(Path(cast(str, folder.__file__)).parent.glob("*.py")):
            if path.stem != "__init__":
                importlib.import_module(f"{package}.kernels.{path.stem}")


def warm(
    group: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> float:
    """Load or compile the registered kernels of a group (all if None).

    `progress(done, total, name)` is called before each kernel. Returns the seconds it took.
    """
    started = time.monotonic()
    kernels = registered(group)
    for done, item in enumerate(kernels):
        if progress is not None:
            progress(done, len(kernels), item.name)
        item.compile()
    return time.monotonic() - started


def report_progress_after(seconds: float, label: str) -> Callable[[int, int, str], None]:
    """A `progress` for `warm` that writes to stderr once the work has taken longer than `seconds`."""
    started = time.monotonic()

    def report(done: int, total: int, name: str) -> None:
        if time.monotonic() - started > seconds:
            print(f"{label}: {done}/{total} {name}", file=sys.stderr, flush=True)

    return report
