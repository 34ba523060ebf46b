"""Kernels that are in numba's cache and not in the image are loaded without the compiler, and work."""

from __future__ import annotations

import subprocess
import sys

_LOAD = """
import sys
from tsdb.machinecode import loading
loading._state["loaded"] = None
import numpy as np
from tsdb.kernels.recordgroups import group_records
columns = [np.zeros(2, dtype=np.int64) for _ in range(3)]
refs, ends = np.array([1, 2, 2], dtype=np.uint32), np.array([1, 3])
count = group_records(refs, ends, 0, 1, np.zeros(4, dtype=np.uint32), *columns)
try:
    group_records(refs, ends, 0, 1, np.zeros(4, dtype=np.int8), *columns)
except TypeError:
    print(count, columns[2].tolist(), "numba.np.linalg" in sys.modules)
"""

_STRANGE = """
from tsdb.machinecode import numbacache
def strange(signature, target):
    raise ValueError("too many values to unpack")
numbacache.KernelCache._load_compiled = staticmethod(strange)
"""


def test_where_numba_is_not_as_expected_its_own_way_is_taken():
    code = _STRANGE + _LOAD
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "[0,", "1]", "True"]


def test_a_second_process_loads_without_the_compiler_and_still_checks_types():
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", _LOAD], capture_output=True, text=True, check=True)
    # The first one may have had to compile.
    assert done.stdout.split() == ["2", "[0,", "1]", "False"]
