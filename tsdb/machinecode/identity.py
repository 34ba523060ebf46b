"""What machine code depends on beside its sources, found out without asking the compiler."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import sys
from functools import cache
from pathlib import Path

EXTENSIONS = ("_dynfunc", "_helperlib", "core/runtime/_nrt_python")
"""numba's extension modules that kernels call into; they also tell its versions apart."""

_CPU_LINES = ("model name", "flags")


@cache
def extension_paths() -> dict[str, Path]:
    """Files of EXTENSIONS by name; finds numba without importing it. Raises ImportError."""
    spec = importlib.util.find_spec("numba")
    if spec is None or spec.origin is None:
        raise ImportError("numba is not installed")
    folder = Path(spec.origin).parent
    found = {}
    for name in EXTENSIONS:
        files = [folder / f"{name}{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
        there = [file for file in files if file.is_file()]
        if not there:
            raise ImportError(f"numba has no {name}")
        found[name] = there[0]
    return found


@cache
def identity() -> dict[str, str]:
    """Python, numba and the processor. Raises ImportError, OSError."""
    digest = hashlib.blake2b(digest_size=16)
    for path in extension_paths().values():
        digest.update(path.read_bytes())
    return {
        "python": sys.implementation.cache_tag,
        "machine": platform.machine(),
        "numba": digest.hexdigest(),
        "processor": _processor(),
    }


def _processor() -> str:
    """Digest of the model and the instructions it has; empty where the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    first = text.partition("\n\n")[0].splitlines()
    said = "\n".join(line for line in first if line.startswith(_CPU_LINES))
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
