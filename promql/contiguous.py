"""Arrays as kernels take them: of one type, contiguous, writable (a signature names no others)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def contiguous(array: npt.NDArray[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
    """The array itself where it is so, else a copy.

    Looks before it asks `numpy.require`, which takes 2 to 3 us to find out that nothing is to be done, for
    each of the dozen arrays of a small query."""
    flags = array.flags
    if array.dtype == kind and flags.c_contiguous and flags.writeable:
        return array
    return np.require(array, dtype=kind, requirements=["C", "W"])
