"""The one way a loop becomes machine code: `kernel` for entry points, `device` for what kernels call.

A kernel is compiled for its written signatures only, without the GIL, with numpy's error model (division
by zero gives an infinity instead of an exception), and cached on disk. Nothing is compiled at import, and
numba is not imported either: the first call, or `warm`, takes the kernel from the image of all kernels
(tsdb/machinecode/loading.py), else from numba's cache, else compiles it (0.5 to 2.5 s).

numba's own cache notices a change of the kernel's file only. A kernel's digest is also of the kernel modules
that its file imports, so an edited `device` function is never served stale.
"""

from __future__ import annotations

import importlib
import opcode
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

from tsdb.machinecode.loading import find
from tsdb.machinecode.sources import source_digest

P = ParamSpec("P")
R = TypeVar("R")

_COMPILER = "tsdb.machinecode.compiler"
"""Imports numba, and is therefore imported as late as can be."""

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


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """What numba is asked for with a function."""
    return {**_OPTIONS, "_nrt": _allocates(function)}


class Device:
    """Stands for a function used inside kernels until something is compiled."""

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        self.py_func = function
        self.__name__ = function.__name__
        self.__doc__ = function.__doc__
        self._options = options
        self._jitted: Any = None

    def jitted(self) -> Any:
        """numba's dispatcher."""
        if self._jitted is None:
            compiler = importlib.import_module(_COMPILER)
            self._jitted = compiler.jit(self.py_func, **self._options, **options_of(self.py_func))
        return self._jitted

    def __call__(self, *args: Any) -> Any:
        importlib.import_module(_COMPILER).replace_placeholders()
        return self.jitted()(*args)


class Instruction:
    """Stands for an intrinsic, made by a module that imports numba."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def jitted(self) -> Any:
        """numba's intrinsic."""
        return getattr(importlib.import_module(self._module), self._name)


class Kernel(Generic[P, R]):
    """A function that is loaded or compiled at its first call. Many threads may call it; one compiles."""

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

    @property
    def digest(self) -> str:
        """Of all that the machine code is made from."""
        return source_digest(self.function.__code__.co_filename)

    def compile(self) -> Callable[P, R]:
        """Load from the image or numba's cache, or compile; return what is called."""
        with self._lock:
            if self._compiled is None:
                self._compiled = find(self.name, self.digest)
            if self._compiled is None:
                self._compiled = importlib.import_module(_COMPILER).compile_kernel(self)
            return cast("Callable[P, R]", self._compiled)

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
    return cast("Callable[P, R]", Device(function))


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """A `device` that is always inlined by LLVM: for bodies of a few instructions in a hot loop."""
    return cast("Callable[P, R]", Device(function, forceinline=True))


def instruction(module: str, name: str) -> Any:
    """An intrinsic of a module that is imported only when something is compiled."""
    return Instruction(module, name)


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


def save_image() -> bool:
    """Write all registered kernels as the image that the next process loads, unless it has them already.

    Whether the image has them now.
    """
    if all(find(each.name, each.digest) is not None for each in registered()):
        return True
    return importlib.import_module(_COMPILER).save_image() is not None


def warm(
    group: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    stopping: Callable[[], bool] | None = None,
) -> float:
    """Load or compile the registered kernels of a group (all if None).

    `progress(done, total, name)` is called before each kernel; after `stopping()` the rest is left. Returns
    the seconds it took.
    """
    started = time.monotonic()
    kernels = registered(group)
    for done, item in enumerate(kernels):
        if stopping is not None and stopping():
            break
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
