"""The distinct values of an array, where `np.unique` is more than a small query can wait for."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

_Integer = TypeVar("_Integer", bound=np.integer)


def distinct(values: npt.NDArray[_Integer]) -> npt.NDArray[_Integer]:
    """Every value once, in order. `values` is one-dimensional and left as it is.

    In a process that has not asked for them yet, `np.unique` imports numpy's masked arrays, for some 20 ms:
    that was most of what the first query after a start took longer than the second.
    """
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
