"""Loading kernels from numba's cache on disk without waking the compiler.

numba's own way first imports the implementations of everything that compiled code may ever call (0.2 s) and
parses, for each function, the intermediate code that others could link to (half of its loading time). Kernels
come from the cache compiled and are linked into nothing, so neither is needed: the machine code, its
environment, the runtime's addresses and the names under which to find the function are enough. A kernel that
is not in the cache is compiled by numba as ever.

This leans on numba's inner parts, which change between versions: pyproject.toml names those that are known,
and where one of the parts is not as expected numba's own way is taken.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import llvmlite.binding as llvm
from numba.core.caching import FunctionCache
from numba.core.compiler import CompileResult
from numba.core.runtime import _nrt_python  # type: ignore[attr-defined]

_Result: Any = CompileResult
"""A named tuple whose fields numba makes at run time."""


class KernelCache(FunctionCache):
    """The cache of one kernel; written as numba's, read without the parts that only a compiler uses."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function for a signature or None; numba calls this under its lock."""
        try:
            return self._load_compiled(sig, target_context)
        except (AttributeError, TypeError, ValueError):
            numbas: Any = super()
            return numbas.load_overload(sig, target_context)

    def _load_compiled(self, sig: Any, target_context: Any) -> Any:
        """Raises ValueError, AttributeError or TypeError for what is not as numba 0.62 to 0.68 have it."""
        own: Any = self
        codegen = target_context.codegen()
        stored = own._cache_file.load(own._index_key(sig, codegen))
        if stored is None:
            return None
        library_data, descriptor, environment, signature, objectmode, lifted, annotation, again, others = (
            stored
        )
        name, kind, code = library_data
        if kind != "object" or again or objectmode:
            raise ValueError("not a plain compiled function")
        _register_runtime()
        library = codegen.create_library(name)
        library.enable_object_caching()
        library._set_compiled_object(code[0])
        library._finalize_final_module()
        codegen._engine._defined_symbols |= {
            *(descriptor.llvm_func_name, descriptor.llvm_cpython_wrapper_name),
            *(descriptor.llvm_cfunc_wrapper_name, target_context.get_env_name(descriptor)),
            *(each.env_name for each in others),
        }
        entry_point = target_context.get_executable(library, descriptor, environment)
        for each in others:
            codegen.set_env(each.env_name, each)
        return _Result(
            typing_context=target_context.typing_context,
            target_context=target_context,
            entry_point=entry_point,
            typing_error=None,
            type_annotation=annotation,
            signature=signature,
            objectmode=objectmode,
            lifted=lifted,
            fndesc=descriptor,
            library=library,
            call_helper=None,
            environment=environment,
            metadata=None,
            reload_init=again,
            referenced_envs=others,
        )


@cache
def _register_runtime() -> None:
    """Addresses of the functions that count references to arrays, as `numba.core.runtime.nrt` registers them
    before it compiles."""
    for name, address in _nrt_python.c_helpers.items():
        llvm.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)
