"""Kernels of binary operators on cells f64[R, K].

One operation is one kernel instantiation over aligned rows; the matching has already turned joins into row
numbers. ABSENT is tested as bits before any arithmetic, which would let its payload leak. `pow`, `fmod` and
`atan2` go through the C library, as Go's agree with them to the last bit for finite arguments but for rare
ulps of pow.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from promql.kernels.cell import ABSENT_U64
from tsdb.kernels.compile import inline, kernel

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

ADD, SUB, MUL, DIV, MOD, POW, ATAN2 = range(7)
EQ, NE, GT, LT, GE, LE = range(6)

CODES = {"+": ADD, "-": SUB, "*": MUL, "/": DIV, "%": MOD, "^": POW, "atan2": ATAN2}
COMPARISONS = {"==": EQ, "!=": NE, ">": GT, "<": LT, ">=": GE, "<=": LE}


@inline
def _arithmetic(op: int, x: float, y: float) -> float:
    if op == ADD:
        return x + y
    if op == SUB:
        return x - y
    if op == MUL:
        return x * y
    if op == DIV:
        return x / y
    if op == MOD:
        return float(np.fmod(x, y))
    if op == POW:
        return float(x**y)
    return math.atan2(x, y)


@inline
def _holds(op: int, x: float, y: float) -> bool:
    if op == EQ:
        return x == y
    if op == NE:
        return x != y
    if op == GT:
        return x > y
    if op == LT:
        return x < y
    if op == GE:
        return x >= y
    return x <= y


@kernel("void(int64, float64[:,::1], float64[::1], int64)", group="read")
def arithmetic_scalar(op: int, values: F64, scalar: F64, swapped: int) -> None:
    """In place: values op scalar[k], or scalar[k] op values."""
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        for k in range(values.shape[1]):
            if bits[row, k] != ABSENT_U64:
                if swapped != 0:
                    values[row, k] = _arithmetic(op, scalar[k], values[row, k])
                else:
                    values[row, k] = _arithmetic(op, values[row, k], scalar[k])


@kernel("void(int64, float64[:,::1], float64[::1], int64, int64)", group="read")
def compare_scalar(op: int, values: F64, scalar: F64, swapped: int, return_bool: int) -> None:
    """In place: keep values for which the comparison holds, or 1 and 0 with return_bool."""
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        for k in range(values.shape[1]):
            if bits[row, k] == ABSENT_U64:
                continue
            x, y = values[row, k], scalar[k]
            holds = _holds(op, y, x) if swapped != 0 else _holds(op, x, y)
            if return_bool != 0:
                values[row, k] = 1.0 if holds else 0.0
            elif not holds:
                bits[row, k] = ABSENT_U64


@kernel("void(int64, float64[:,::1], float64[:,::1], int64[::1], int64[::1], float64[:,::1])", group="read")
def arithmetic_rows(op: int, lhs: F64, rhs: F64, left: I64, right: I64, out: F64) -> None:
    """out[p] = lhs[left[p]] op rhs[right[p]] where both are present."""
    lhs_bits, rhs_bits, out_bits = lhs.view(np.uint64), rhs.view(np.uint64), out.view(np.uint64)
    for p in range(len(left)):
        i, j = left[p], right[p]
        for k in range(out.shape[1]):
            if lhs_bits[i, k] != ABSENT_U64 and rhs_bits[j, k] != ABSENT_U64:
                out[p, k] = _arithmetic(op, lhs[i, k], rhs[j, k])
            else:
                out_bits[p, k] = ABSENT_U64


@kernel(
    "void(int64, float64[:,::1], float64[:,::1], int64[::1], int64[::1], int64, float64[:,::1])",
    group="read",
)
def compare_rows(op: int, lhs: F64, rhs: F64, left: I64, right: I64, return_bool: int, out: F64) -> None:
    """out[p] = lhs[left[p]] where it compares with rhs[right[p]], or 1 and 0 with return_bool."""
    lhs_bits, rhs_bits, out_bits = lhs.view(np.uint64), rhs.view(np.uint64), out.view(np.uint64)
    for p in range(len(left)):
        i, j = left[p], right[p]
        for k in range(out.shape[1]):
            out_bits[p, k] = ABSENT_U64
            if lhs_bits[i, k] != ABSENT_U64 and rhs_bits[j, k] != ABSENT_U64:
                holds = _holds(op, lhs[i, k], rhs[j, k])
                if return_bool != 0:
                    out[p, k] = 1.0 if holds else 0.0
                elif holds:
                    out[p, k] = lhs[i, k]


@kernel("void(int64, float64[::1], float64[::1], float64[::1])", group="read")
def arithmetic_scalars(op: int, x: F64, y: F64, out: F64) -> None:
    """out[k] = x[k] op y[k]."""
    for k in range(len(out)):
        out[k] = _arithmetic(op, x[k], y[k])


@kernel("void(int64, float64[::1], float64[::1], float64[::1])", group="read")
def compare_scalars(op: int, x: F64, y: F64, out: F64) -> None:
    """out[k] = 1 where x[k] compares with y[k], else 0."""
    for k in range(len(out)):
        out[k] = 1.0 if _holds(op, x[k], y[k]) else 0.0


@kernel("void(float64[:,::1])", group="read")
def negate(values: F64) -> None:
    """In place: the sign of every present cell flipped."""
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        for k in range(values.shape[1]):
            if bits[row, k] != ABSENT_U64:
                values[row, k] = -values[row, k]


@kernel("void(float64[:,::1], int32[:,::1], int64[::1], int32[:,::1])", group="read")
def count_by_signature(values: F64, index: I32, signature: I64, count: I32) -> None:
    """Add to count[signature[row], k] wherever the row has a float or a histogram."""
    bits = values.view(np.uint64)
    for row in range(values.shape[0]):
        s = signature[row]
        for k in range(values.shape[1]):
            if bits[row, k] != ABSENT_U64 or (index.shape[0] > 0 and index[row, k] >= 0):
                count[s, k] += 1


@kernel(
    "int64(float64[:,::1], int32[:,::1], int64[::1], float64[:,::1], int32[:,::1], int64[::1],"
    " int64[::1], int64, int32[:,::1], int64[::1])",
    group="read",
)
def find_repeated(
    lhs: F64,
    lhs_index: I32,
    left: I64,
    rhs: F64,
    rhs_index: I32,
    right: I64,
    target: I64,
    targets: int,
    last: I32,
    found: I64,
) -> int:
    """Whether two pairs with the same `target` both have samples at one step. `last` i32[targets, K] starts
    at -1. Returns 1 with found = (pair, earlier pair), or 0."""
    lhs_bits, rhs_bits = lhs.view(np.uint64), rhs.view(np.uint64)
    for p in range(len(left)):
        i, j, g = left[p], right[p], target[p]
        for k in range(last.shape[1]):
            here = lhs_bits[i, k] != ABSENT_U64 or (lhs_index.shape[0] > 0 and lhs_index[i, k] >= 0)
            there = rhs_bits[j, k] != ABSENT_U64 or (rhs_index.shape[0] > 0 and rhs_index[j, k] >= 0)
            if here and there:
                if last[g, k] >= 0:
                    found[0] = p
                    found[1] = last[g, k]
                    return 1
                last[g, k] = p
    return 0


@kernel(
    "int64(float64[:,::1], int32[:,::1], int64[::1], float64[:,::1], int32[:,::1], int64[::1])",
    group="read",
)
def merge_rows(values: F64, index: I32, target: I64, out: F64, out_index: I32, found: I64) -> int:
    """Copy rows onto out[target[row]]; `out` starts ABSENT and `out_index` -1. Two samples at one step:
    returns 1 with found = (row, step); else 0."""
    bits, out_bits = values.view(np.uint64), out.view(np.uint64)
    carries = index.shape[0] > 0
    for row in range(values.shape[0]):
        g = target[row]
        for k in range(values.shape[1]):
            is_float = bits[row, k] != ABSENT_U64
            is_histogram = carries and index[row, k] >= 0
            if not (is_float or is_histogram):
                continue
            if out_bits[g, k] != ABSENT_U64 or (carries and out_index[g, k] >= 0):
                found[0] = row
                found[1] = k
                return 1
            if is_float:
                out_bits[g, k] = bits[row, k]
            else:
                out_index[g, k] = index[row, k]
    return 0
