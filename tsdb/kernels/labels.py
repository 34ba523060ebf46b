"""Loops over label sets held as CSR columns of symbol ids (see tsdb/serieslabels.py).

Enters: `offsets` i64[S+1], `name_ids` and `value_ids` u32[P]; leaves: ids, hashes, rows. Order is that of
ranks, or of the bytes of the symbols' texts. Measured 2026-11 on one core of a 2-core Xeon, 100,000 rows of
10 labels: row hashes 2.5 ns a pair, grouping 180 ns a row, sorting 1 us a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.bits import load64, swap64
from tsdb.kernels.compile import device, inline, kernel

U64 = np.uint64
_SEED = U64(0x51AFD7ED558CCD25)
_PRIME = U64(0x9E3779B97F4A7C15)
_S32 = U64(32)
_S29 = U64(29)

_IDS = "Array(uint32, 1, 'C', readonly=True)"
_OFF = "Array(int64, 1, 'C', readonly=True)"


@inline
def mix_pair(state: Any, name: Any, value: Any) -> Any:
    """Fold one (name id, value id) pair into a 64-bit state."""
    state = (state ^ ((U64(name) << _S32) | U64(value))) * _PRIME
    return state ^ (state >> _S29)


@inline
def is_wanted(name: Any, wanted: Any) -> Any:
    """Whether a name id is among `wanted` (sorted). Short lists are scanned, long ones bisected."""
    lo, hi = 0, len(wanted)
    while hi - lo > 8:
        mid = (lo + hi) >> 1
        if wanted[mid] <= name:
            lo = mid
        else:
            hi = mid
    found = False
    for k in range(lo, hi):
        found |= wanted[k] == name
    return found


@kernel(f"void({_OFF}, {_IDS}, {_IDS}, uint32, uint32[::1])", group="read")
def column_of(offsets: Any, name_ids: Any, value_ids: Any, name: Any, out: Any) -> None:
    """out[i] = value id of `name` in row i; untouched where the row has no such label."""
    for i in range(len(offsets) - 1):
        for p in range(offsets[i], offsets[i + 1]):
            if name_ids[p] == name:
                out[i] = value_ids[p]
                break


@kernel(f"int64({_OFF}, {_IDS}, {_IDS}, {_OFF}, int64[::1], uint32[::1], uint32[::1])", group="read")
def take_rows(
    offsets: Any, name_ids: Any, value_ids: Any, rows: Any, out_offsets: Any, out_names: Any, out_values: Any
) -> Any:
    """Copy the pairs of `rows` in that order; `out_offsets` is given. Returns the pairs written."""
    at = 0
    for k in range(len(rows)):
        lo, hi = offsets[rows[k]], offsets[rows[k] + 1]
        for p in range(lo, hi):
            out_names[at] = name_ids[p]
            out_values[at] = value_ids[p]
            at += 1
        out_offsets[k + 1] = at
    return at


@kernel(
    f"int64({_OFF}, {_IDS}, {_IDS}, {_IDS}, boolean, int64[::1], uint32[::1], uint32[::1])",
    group="read",
)
def filter_pairs(
    offsets: Any,
    name_ids: Any,
    value_ids: Any,
    wanted: Any,
    keep: Any,
    out_offsets: Any,
    out_names: Any,
    out_values: Any,
) -> Any:
    """Keep the pairs whose name is in `wanted` (or, without `keep`, is not). Returns the pairs written."""
    at = 0
    for i in range(len(offsets) - 1):
        for p in range(offsets[i], offsets[i + 1]):
            if is_wanted(name_ids[p], wanted) == keep:
                out_names[at] = name_ids[p]
                out_values[at] = value_ids[p]
                at += 1
        out_offsets[i + 1] = at
    return at


@inline
def hash_row(lo: Any, hi: Any, name_ids: Any, value_ids: Any, wanted: Any, keep: Any) -> Any:
    """Hash of the pairs lo..hi that pass the filter, in their order."""
    state = _SEED
    for p in range(lo, hi):
        if is_wanted(name_ids[p], wanted) == keep:
            state = mix_pair(state, name_ids[p], value_ids[p])
    return state ^ (state >> _S32)


@inline
def equal_filtered(
    a_lo: Any, a_hi: Any, b_lo: Any, b_hi: Any, name_ids: Any, value_ids: Any, wanted: Any, keep: Any
) -> Any:
    """Whether two rows hold the same pairs after the filter."""
    a, b = a_lo, b_lo
    while True:
        while a < a_hi and is_wanted(name_ids[a], wanted) != keep:
            a += 1
        while b < b_hi and is_wanted(name_ids[b], wanted) != keep:
            b += 1
        if a == a_hi or b == b_hi:
            return a == a_hi and b == b_hi
        if name_ids[a] != name_ids[b] or value_ids[a] != value_ids[b]:
            return False
        a += 1
        b += 1


@kernel(f"void({_OFF}, {_IDS}, {_IDS}, {_IDS}, boolean, uint64[::1])", group="read")
def row_hashes(offsets: Any, name_ids: Any, value_ids: Any, wanted: Any, keep: Any, out: Any) -> None:
    """out[i] = hash of row i restricted to (`keep`) or reduced by the sorted ids `wanted`."""
    for i in range(len(offsets) - 1):
        out[i] = hash_row(offsets[i], offsets[i + 1], name_ids, value_ids, wanted, keep)


@kernel(
    f"int64({_OFF}, {_IDS}, {_IDS}, {_IDS}, boolean, int64[::1], int64[::1], int64[::1])",
    group="read",
)
def group_rows(
    offsets: Any,
    name_ids: Any,
    value_ids: Any,
    wanted: Any,
    keep: Any,
    slots: Any,
    out_ids: Any,
    out_first: Any,
) -> Any:
    """Number equal filtered rows 0.. in order of first appearance; equality is verified, not assumed.

    `slots` i64[power of two >= 2S] filled with -1 is the hash table of group ids. out_ids i64[S] gets the
    group of each row, out_first i64[S] the first row of each group. Returns the number of groups.
    """
    mask = len(slots) - 1
    count = 0
    for i in range(len(offsets) - 1):
        lo, hi = offsets[i], offsets[i + 1]
        at = np.int64(hash_row(lo, hi, name_ids, value_ids, wanted, keep) & U64(mask))
        while True:
            group = slots[at]
            if group < 0:
                slots[at] = count
                out_first[count] = i
                out_ids[i] = count
                count += 1
                break
            first = out_first[group]
            if equal_filtered(lo, hi, offsets[first], offsets[first + 1], name_ids, value_ids, wanted, keep):
                out_ids[i] = group
                break
            at = (at + 1) & mask
    return count


@kernel(
    f"void({_IDS}, {_OFF}, {_IDS}, uint64[::1], {_IDS}, {_IDS}, uint32[::1], uint32[::1])",
    group="read",
)
def copy_pairs(
    slots: Any,
    offsets: Any,
    names_start: Any,
    values_start: Any,
    name_pool: Any,
    value_pool: Any,
    names: Any,
    values: Any,
) -> None:
    """Pairs offsets[i]..offsets[i+1] of `names` and `values` are those that begin at names_start[slots[i]] of
    one pool and at values_start[slots[i]] of the other."""
    for i in range(len(slots)):
        lo, count = offsets[i], offsets[i + 1] - offsets[i]
        name_at, value_at = np.int64(names_start[slots[i]]), np.int64(values_start[slots[i]])
        for k in range(count):
            names[lo + k] = name_pool[name_at + k]
            values[lo + k] = value_pool[value_at + k]


@inline
def symbol_before(a: Any, b: Any, arena: Any, bounds: Any) -> Any:
    """Whether symbol a sorts before symbol b, which differ: by their bytes, or, without bounds, as ranks."""
    if len(bounds) == 0:
        return a < b
    p, q = bounds[a], bounds[b]
    p_end, q_end = bounds[a + 1], bounds[b + 1]
    while p + 8 <= p_end and q + 8 <= q_end:
        x, y = load64(arena, p), load64(arena, q)
        if x != y:
            return swap64(x) < swap64(y)
        p += 8
        q += 8
    while p < p_end and q < q_end:
        if arena[p] != arena[q]:
            return arena[p] < arena[q]
        p += 1
        q += 1
    return p == p_end and q < q_end


@device
def row_before(a: Any, b: Any, offsets: Any, names: Any, values: Any, arena: Any, bounds: Any) -> Any:
    """Whether row a sorts strictly before row b: pair by pair, name then value, shorter prefix first."""
    p, q = offsets[a], offsets[b]
    p_end, q_end = offsets[a + 1], offsets[b + 1]
    while p < p_end and q < q_end:
        if names[p] != names[q]:
            return symbol_before(names[p], names[q], arena, bounds)
        if values[p] != values[q]:
            return symbol_before(values[p], values[q], arena, bounds)
        p += 1
        q += 1
    return p == p_end and q < q_end


@kernel(f"void({_OFF}, {_IDS}, {_IDS}, uint8[::1], {_OFF}, int64[::1], int64[::1])", group="read")
def sort_rows(offsets: Any, names: Any, values: Any, arena: Any, bounds: Any, order: Any, spare: Any) -> None:
    """Stable bottom-up merge sort of `order` (row numbers) by label text; `spare` is room of equal length.

    The text of symbol i is arena[bounds[i]:bounds[i+1]]; without bounds names and values are ranks."""
    count = len(order)
    for i in range(0, count, 8):
        for j in range(i + 1, min(i + 8, count)):
            row = order[j]
            k = j
            while k > i and row_before(row, order[k - 1], offsets, names, values, arena, bounds):
                order[k] = order[k - 1]
                k -= 1
            order[k] = row
    width = 8
    while width < count:
        for lo in range(0, count, 2 * width):
            mid, hi = min(lo + width, count), min(lo + 2 * width, count)
            if mid == hi or not row_before(order[mid], order[mid - 1], offsets, names, values, arena, bounds):
                for k in range(lo, hi):
                    spare[k] = order[k]
                continue
            a, b = lo, mid
            for k in range(lo, hi):
                if a < mid and (
                    b >= hi or not row_before(order[b], order[a], offsets, names, values, arena, bounds)
                ):
                    spare[k] = order[a]
                    a += 1
                else:
                    spare[k] = order[b]
                    b += 1
        for k in range(count):
            order[k] = spare[k]
        width *= 2


@kernel(f"void({_OFF}, {_IDS}, {_IDS}, {_OFF}, {_OFF}, {_IDS}, {_IDS}, {_OFF}, boolean[::1])", group="read")
def rows_equal(
    offsets: Any,
    name_ids: Any,
    value_ids: Any,
    rows: Any,
    other_offsets: Any,
    other_names: Any,
    other_values: Any,
    other_rows: Any,
    out: Any,
) -> None:
    """out[k] = whether row rows[k] of the first set equals row other_rows[k] of the second."""
    for k in range(len(rows)):
        p, q = offsets[rows[k]], other_offsets[other_rows[k]]
        count = offsets[rows[k] + 1] - p
        equal = count == other_offsets[other_rows[k] + 1] - q
        j = 0
        while equal and j < count:
            equal = name_ids[p + j] == other_names[q + j] and value_ids[p + j] == other_values[q + j]
            j += 1
        out[k] = equal
