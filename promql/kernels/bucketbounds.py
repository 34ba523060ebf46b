"""Bounds of native histogram buckets.

Exponential schemas -4..8: bucket i of the positive side is (bound(i-1), bound(i)], bound(0) = 1, and 2^schema
buckets make a doubling. The mantissas are a table, not a power: Prometheus's table was built level by level
(each odd entry is its left neighbour times 2^(2^-level), with the root of two rounded down), and bounds must
agree to the last bit because they are compared with the zero threshold (prometheus-surface.md section 4).
Custom buckets (schema -53): i is (b[i-1], b[i]], before the first -Inf, after the last +Inf.
"""

# numba types these scalars by itself; numpy's stubs make them Any.
# mypy: disable-error-code="no-any-return, arg-type, index, operator"

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tsdb.kernels.compile import device, inline

CUSTOM_SCHEMA = -53
SCHEMA_MAX = 8
FLOAT_MAX = 1.7976931348623157e308
_ROOT_OF_TWO = 1.414213562373095


def _fractions() -> npt.NDArray[np.float64]:
    """The mantissas in [0.5, 1) of schema 8; those of schema s are every 2^(8-s)th."""
    row = [0.5]
    for level in range(1, SCHEMA_MAX + 1):
        factor = _ROOT_OF_TWO if level == 1 else 2.0 ** (2.0**-level)
        row = [value for left in row for value in (left, left * factor)]
    return np.array(row)


FRACTIONS = _fractions()


@device
def exponential_bound(index: int, schema: int) -> float:
    """Upper bound of positive bucket `index`; the last finite bucket ends at the largest float."""
    if schema < 0:
        exponent = index << -schema
        if exponent == 1024:
            return FLOAT_MAX
        return math.ldexp(1.0, exponent)
    part = FRACTIONS[(index & ((1 << schema) - 1)) << (SCHEMA_MAX - schema)]
    exponent = (index >> schema) + 1
    if part == 0.5 and exponent == 1025:
        return FLOAT_MAX
    return math.ldexp(part, exponent)


@inline
def custom_bound(index: int, custom: npt.NDArray[np.float64], lo: int, hi: int) -> float:
    """Upper bound of custom bucket `index`, the bounds being custom[lo:hi]."""
    if index < 0:
        return -math.inf
    if index >= hi - lo:
        return math.inf
    return custom[lo + index]


@inline
def reduced_index(index: int, steps: int) -> int:
    """Index of the bucket that holds bucket `index` after lowering the schema by `steps`."""
    return ((index - 1) >> steps) + 1
