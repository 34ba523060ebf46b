"""numba: imported only where a kernel is not in the image, to load it from numba's cache or to compile it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core.caching import InTreeCacheLocator, UserWideCacheLocator
from numba.core.sigutils import normalize_signature

from tsdb.kernels.compile import Device, Instruction, Kernel, options_of, registered
from tsdb.machinecode.arguments import ArrayParameter, Parameter
from tsdb.machinecode.elf import read_object
from tsdb.machinecode.guard import write_guard
from tsdb.machinecode.identity import identity
from tsdb.machinecode.image import Compiled, Image, ImageError, link, write_image
from tsdb.machinecode.loading import image_paths
from tsdb.machinecode.numbacache import KernelCache
from tsdb.machinecode.sources import source_digest


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
            source_digest(self._py_file),
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


def compile_kernel(kernel: Kernel[Any, Any]) -> Any:
    """numba's dispatcher, compiled for the kernel's signatures and no others."""
    replace_placeholders()
    dispatcher = numba.njit(**options_of(kernel.function))(kernel.function)
    dispatcher._cache = KernelCache(kernel.function)  # type: ignore[no-untyped-call]
    for signature in kernel.signatures:
        dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


def replace_placeholders() -> None:
    """numba takes what a function's module has by a name, so jitted functions go where placeholders are."""
    for name, module in list(sys.modules.items()):
        if ".kernels." in name:
            for key, value in list(vars(module).items()):
                if isinstance(value, Device | Instruction):
                    setattr(module, key, value.jitted())


def save_image() -> Path | None:
    """Write all registered kernels as one image, through numba's cache; where it was written.

    None where an image cannot be made or kept: kernels are then loaded by numba.
    """
    try:
        image = make_image()
    except (ValueError, ImportError, OSError):
        return None
    for path in image_paths():
        try:
            write_image(image, path)
        except OSError:
            continue
        return path
    return None


def make_image() -> Image:
    """All registered kernels. Raises ValueError for what the linker does not know, ImportError, OSError."""
    return link([each for kernel in registered() for each in _stored(kernel)], identity())


def _stored(kernel: Kernel[Any, Any]) -> list[Compiled]:
    """What numba's cache has of a kernel. Raises ImageError where something is missing or unknown."""
    own: Any = KernelCache(kernel.function)  # type: ignore[no-untyped-call]
    found = []
    for text in kernel.signatures:
        arguments, _ = normalize_signature(text)  # type: ignore[no-untyped-call]
        target: Any = numba.core.registry.cpu_target.target_context
        key = own._index_key(text, target.codegen())
        stored = own._cache_file.load(key)
        if stored is None:
            compile_kernel(kernel)
            stored = own._cache_file.load(key)
        if stored is None:
            raise ImageError(f"{kernel.name} is not in the cache")
        (_, kind, code), descriptor, _, _, _, _, _, _, environments = stored
        if kind != "object" or not all(isinstance(c, np.dtype) for each in environments for c in each.consts):
            raise ImageError(f"{kernel.name} is no plain compiled function")
        parameters = tuple(_parameter(each) for each in arguments)
        found.append(
            Compiled(
                kernel.name,
                kernel.digest,
                parameters,
                descriptor.llvm_cpython_wrapper_name,
                {each.env_name: tuple(constant.name for constant in each.consts) for each in environments},
                read_object(code[0]),
                read_object(_assemble(write_guard(parameters))),
            )
        )
    return found


def _assemble(text: str) -> bytes:
    """The object file of LLVM's assembly."""
    module = llvm.parse_assembly(text)
    module.verify()
    return cast(bytes, _machine().emit_object(module))


@cache
def _machine() -> Any:
    """As numba has it: code that may lie anywhere, so all addresses are of 64 bits."""
    target: Any = llvm.Target.from_default_triple()
    return target.create_target_machine(opt=3, jit=True, codemodel="jitdefault")


def _parameter(kind: Any) -> Parameter:
    """Raises ImageError for a type that kernels have not had so far."""
    if isinstance(kind, types.Array):
        if kind.layout != "C" or not kind.aligned:
            raise ImageError(f"parameter of type {kind}")
        dtype = "bool" if kind.dtype == types.boolean else str(kind.dtype)
        return ArrayParameter(dtype, kind.ndim, kind.mutable)
    if isinstance(kind, types.BaseTuple):
        members: Any = kind
        return tuple(_parameter(each) for each in members)
    if isinstance(kind, types.Number | types.Boolean):
        return None
    raise ImageError(f"parameter of type {kind}")


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """A function for use inside kernels."""
    return numba.njit(**options)(function)
