"""Kernels from the image into the process: neither numba nor LLVM is imported.

The image is copied to fresh memory and its addresses are filled in; then its code can be run and no longer
written to. What the code calls is in Python, in the C library and in three extension modules of numba, which
are loaded by their files: importing numba itself takes 0.3 s and 65 MiB.

Whatever is not as expected (another processor or version, no image, a kernel edited since) is left to
`tsdb.machinecode.compiler`.
"""

from __future__ import annotations

import builtins
import ctypes
import importlib.machinery
import importlib.util
import logging
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from tsdb.machinecode.arguments import checked
from tsdb.machinecode.guard import addresses as guard_addresses
from tsdb.machinecode.guard import guarded, layout_is_known
from tsdb.machinecode.identity import extension_paths, identity
from tsdb.machinecode.image import Image, ImageError, read_image

U8Array = npt.NDArray[np.uint8]
U64Array = npt.NDArray[np.uint64]

log = logging.getLogger("tsdb.machinecode")

IMAGE_NAME = f"kernels.{sys.implementation.cache_tag}.image"
_PREFIXES = {"_dynfunc": "numba_", "_helperlib": "numba_", "core/runtime/_nrt_python": "NRT_"}
_lock = threading.Lock()
_state: dict[str, Any] = {}


def image_paths() -> Iterator[Path]:
    """Where the image may be: beside the sources, or in the user's cache folder."""
    yield Path(__file__).parent / "__pycache__" / IMAGE_NAME
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield Path(cache) / "vedette" / IMAGE_NAME


def find(name: str, digest: str) -> Callable[..., Any] | None:
    """The kernel of this name made from these sources, or None.

    It raises TypeError for arguments that are not as its signature says.
    """
    with _lock:
        if "loaded" not in _state:
            _state["loaded"] = _load_first()
        loaded: Loaded | None = _state["loaded"]
    return None if loaded is None else loaded.kernel(name, digest)


def _load_first() -> Loaded | None:
    for path in image_paths():
        try:
            image = read_image(path)
            made_for, here = dict(image.identity), identity()
            other = sorted(name for name in made_for | here if made_for.get(name) != here.get(name))
            if not other:
                return Loaded(image)
            log.info(
                "An image of kernels is passed over; `vedette warm` makes one for this machine",
                extra={"image": str(path), "reason": f"made for another {', '.join(other)}"},
            )
        except FileNotFoundError:
            continue
        except (OSError, ImportError, ImageError) as error:
            log.warning(
                "An image of kernels is passed over", extra={"image": str(path), "reason": str(error)}
            )
    return None


class Loaded:
    """An image in memory; its memory is never freed, as functions refer to it."""

    def __init__(self, image: Image) -> None:
        """Raises ImageError for a name that is not found, OSError where memory may not be executed."""
        if not layout_is_known():
            raise ImageError("arrays lie in memory in an unknown way")
        extensions = _import_extensions()
        addresses = _addresses(image.names, extensions)
        self._make_function = extensions["_dynfunc"].make_function
        environment: type[Any] = extensions["_dynfunc"].Environment
        self._environments = {each: environment({}) for each in {(), *image.environments.values()}}
        for constants, made in self._environments.items():
            made.consts.extend(np.dtype(name) for name in constants)
        self._memory = mmap.mmap(-1, max(len(image.data), 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        view: U8Array = np.frombuffer(self._memory, dtype=np.uint8)
        view[: len(image.data)] = np.frombuffer(image.data, dtype=np.uint8)
        base = np.uint64(self._base)
        _store(view, image.internal[:, 0], image.internal[:, 1] + base)
        _store(view, image.external[:, 0], addresses[image.external[:, 1]] + image.external[:, 2])
        words = np.array(list(image.environments), dtype=np.uint64)
        made_at = [id(self._environments[each]) for each in image.environments.values()]
        _store(view, words, np.array(made_at, dtype=np.uint64))
        self._entries = image.entries
        _protect(self._base, image.code_size)

    def kernel(self, name: str, digest: str) -> Callable[..., Any] | None:
        """The function, behind a test of its arguments."""
        variants = self._entries.get(name, ())
        if len(variants) != 1 or variants[0].digest != digest:
            return None
        entry, short = variants[0], name.rpartition(".")[2]
        raw = self._make_function(
            sys.modules[__name__], short, "", self._base + entry.offset, self._environments[()], (self,)
        )
        return guarded(self._base + entry.guard, short, checked(raw, name, entry.parameters))


def _store(view: U8Array, offsets: U64Array, words: U64Array) -> None:
    """Put 64-bit words at any byte offsets."""
    places = offsets.astype(np.int64)[:, None] + np.arange(8)
    view[places] = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8)


def _protect(base: int, size: int) -> None:
    """From writable to executable; never both."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC):
        number = ctypes.get_errno()
        raise OSError(number, f"code may not be made executable: {os.strerror(number)}")


def _import_extensions() -> dict[str, ModuleType]:
    """Under the names that numba will look for, should it be imported later."""
    found = {}
    for path_name, path in extension_paths().items():
        name = f"numba.{path_name.replace('/', '.')}"
        if name not in sys.modules:
            loader = importlib.machinery.ExtensionFileLoader(name, str(path))
            spec = importlib.util.spec_from_file_location(name, path, loader=loader)
            if spec is None:
                raise ImportError(f"{path} is no extension module")
            module = importlib.util.module_from_spec(spec)
            loader.exec_module(module)
            sys.modules[name] = module
        found[path_name] = sys.modules[name]
    return found


def _addresses(names: list[str], extensions: dict[str, ModuleType]) -> U64Array:
    """As numba fills LLVM's table of symbols (its core/base.py and core/runtime/nrt.py)."""
    known = {"_Py_NoneStruct": id(None), **guard_addresses(names)}
    for name, module in extensions.items():
        for helper, address in module.c_helpers.items():
            inner = helper.startswith("_") and name.endswith("_nrt_python")
            known[helper if inner else _PREFIXES[name] + helper] = address
    for thing in vars(builtins).values():
        if isinstance(thing, type) and issubclass(thing, BaseException):
            known[f"PyExc_{thing.__name__}"] = id(thing)
    libraries = (ctypes.pythonapi, ctypes.CDLL(None), ctypes.CDLL("libm.so.6"))
    return np.array([known.get(name) or _exported(name, libraries) for name in names], dtype=np.uint64)


def _exported(name: str, libraries: tuple[ctypes.CDLL, ...]) -> int:
    for library in libraries:
        function = getattr(library, name, None)
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise ImageError(f"nothing exports {name}")
