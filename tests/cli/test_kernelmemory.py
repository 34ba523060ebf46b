"""What is given back after kernels were loaded is not needed by them, nor by the compiler."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from cli.kernelmemory import give_back
from tests.mappings import resident_bytes
from tsdb.kernels.compile import registered
from tsdb.kernels.symbols import __name__ as module
from tsdb.machinecode.compiler import compile_kernel


def test_kernels_and_the_compiler_work_after_giving_back(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [kernel for kernel in registered() if kernel.name.startswith(module)][:2]
    for kernel in some:
        monkeypatch.setattr(kernel, "_compiled", compile_kernel(kernel))
    assert give_back(some) > 10 << 20
    assert resident_bytes("libllvmlite") < 10 << 20
    dispatchers: list[Any] = [kernel.compile() for kernel in some]
    libraries = [result.library for each in dispatchers for result in each.overloads.values()]
    assert libraries
    assert all(library._shared_module is None for library in libraries)
    assert give_back(some) > 0
    double = numba.njit("float64(float64)")(lambda value: value * 2.0)
    assert double(np.float64(4.0)) == 8.0
