"""Rows of blocks and head whose timestamps are kept once for all rows that have the same.

Enters: for each block the timestamp vectors of its runs, in order of output rows, and the decoded part of the
head. Leaves: which rows share a column of timestamps, and those columns. Times are milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.compile import kernel

U64 = np.uint64
_PRIME = U64(0x9E3779B97F4A7C15)

_I64 = "Array(int64, 1, 'C', readonly=True)"

CANDIDATES_MAX = 8
"""Columns that a row's timestamps are compared with before it gets one of its own."""


@kernel(f"void({_I64}, {_I64}, int64, uint64[::1])", group="read")
def mix_vectors(rows: Any, vectors: Any, base: Any, keys: Any) -> None:
    """Mix number `base + vectors[k]` of each run into the key of its row: rows of unlike keys differ."""
    for k in range(len(rows)):
        key = (keys[rows[k]] ^ U64(base + vectors[k] + 1)) * _PRIME
        keys[rows[k]] = key ^ (key >> U64(29))


@kernel(f"int64({_I64}, {_I64}, {_I64})", group="read")
def same_vectors(offsets: Any, vectors: Any, twin: Any) -> Any:
    """Whether each row's runs offsets[r]:offsets[r+1] have the vectors of row twin[r]'s: 1 or 0."""
    for row in range(len(twin)):
        mine, other = offsets[row], offsets[twin[row]]
        if offsets[row + 1] - mine != offsets[twin[row] + 1] - other:
            return 0
        for k in range(offsets[row + 1] - mine):
            if vectors[mine + k] != vectors[other + k]:
                return 0
    return 1


@kernel(
    f"int64({_I64}, {_I64}, int64, {_I64}, {_I64}, int64, int64[::1], int64[::1], int64[::1], int64[::1])",
    group="read",
)
def place_rows(
    counts: Any,
    head_rows: Any,
    first_row: Any,
    head_offsets: Any,
    head_t: Any,
    last_ms: Any,
    head_lo: Any,
    head_hi: Any,
    places: Any,
    offsets: Any,
) -> Any:
    """Lay out rows: `offsets` of the rows, and of each the head's part head_lo:head_hi with its place.

    Blocks have `counts[r]` samples of row r, and the head head_t[head_offsets[i]:head_offsets[i+1]] of row
    head_rows[i] - first_row, ascending. Returns 0, or 1 where the head has a time not after `last_ms`.
    """
    i = 0
    offsets[0] = 0
    for row in range(len(counts)):
        head_lo[row] = head_hi[row] = 0
        if i < len(head_rows) and head_rows[i] - first_row == row:
            head_lo[row], head_hi[row] = head_offsets[i], head_offsets[i + 1]
            i += 1
        if head_lo[row] < head_hi[row] and head_t[head_lo[row]] <= last_ms:
            return 1
        places[row] = offsets[row] + counts[row]
        offsets[row + 1] = places[row] + head_hi[row] - head_lo[row]
    return 0


@kernel(
    f"int64({_I64}, {_I64}, {_I64}, {_I64}, int64[::1], int64[::1], int64[::1], int64[::1])", group="read"
)
def share_columns(
    kinds: Any, head_lo: Any, head_hi: Any, head_t: Any, newest: Any, older: Any, owners: Any, column: Any
) -> Any:
    """Column of each row in `column`, and the row each column is taken from in `owners`; returns the columns.

    Rows share one where they have the same `kinds` (timestamps in blocks) and the same in the head,
    head_t[head_lo[r]:head_hi[r]]. `newest` i64 of all kinds is all -1 before; `older` chains the columns of a
    kind.
    """
    count = 0
    for row in range(len(kinds)):
        kind, length = kinds[row], head_hi[row] - head_lo[row]
        at, found = newest[kind], -1
        for _ in range(CANDIDATES_MAX):
            if at < 0:
                break
            first = head_lo[owners[at]]
            if head_hi[owners[at]] - first == length:
                differing = 0
                mine, other = head_t[head_lo[row] : head_hi[row]], head_t[first : first + length]
                for k in range(length):
                    differing |= mine[k] ^ other[k]
                if differing == 0:
                    found = at
                    break
            at = older[at]
        if found < 0:
            found = count
            owners[count] = row
            older[count] = newest[kind]
            newest[kind] = count
            count += 1
        column[row] = found
    return count


@kernel(f"void({_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, int64[::1])", group="read")
def fill_columns(
    offsets: Any, vectors: Any, places: Any, lo: Any, hi: Any, t_ms: Any, rows: Any, starts: Any, out: Any
) -> None:
    """A block's part of columns: of rows[d] the parts t_ms[lo[v]:hi[v]] of its runs' vectors v, to
    out[starts[d] + places[k]:] for run k."""
    for d in range(len(rows)):
        for k in range(offsets[rows[d]], offsets[rows[d] + 1]):
            part = t_ms[lo[vectors[k]] : hi[vectors[k]]]
            target = out[starts[d] + places[k] :]
            for i in range(len(part)):
                target[i] = part[i]


@kernel(f"void({_I64}, {_I64}, {_I64}, {_I64}, int64[::1])", group="read")
def spread_columns(offsets: Any, column: Any, column_offsets: Any, t_ms: Any, out: Any) -> None:
    """Timestamps of every row: row r has those of its column, from out[offsets[r]] on."""
    for row in range(len(column)):
        part = t_ms[column_offsets[column[row]] : column_offsets[column[row] + 1]]
        target = out[offsets[row] : offsets[row + 1]]
        for i in range(len(part)):
            target[i] = part[i]
