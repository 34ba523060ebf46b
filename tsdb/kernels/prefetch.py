"""Asking for a cache line before it is needed: trips to memory that do not wait for each other.

Samples of a batch are of different series, so that each one's row, and the open chunk where that says, are
lines of their own. Out of range is allowed: the processor ignores what it cannot read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt

from tsdb.kernels.bits import Word
from tsdb.kernels.compile import instruction

prefetch = cast(
    Callable[[npt.NDArray[np.generic], Word], None],
    instruction("tsdb.machinecode.instructions", "prefetch"),
)
"""Ask for the cache line of a byte position of an array, to be read and written."""
