"""Rows of blocks and head whose timestamps are kept once for all rows that have the same.

Enters: the runs of all blocks with their timestamp vectors, in order of output rows, and the decoded part of
the head. Leaves: what is to be decoded and where it goes, which rows share a column of timestamps, and those
columns. Times are milliseconds.
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


@kernel(f"void({_I64}, {_I64}, uint64[::1])", group="read")
def mix_vectors(rows: Any, vectors: Any, keys: Any) -> None:
    """Mix number `vectors[k]` of each run into the key of its row: rows of unlike keys differ."""
    for k in range(len(rows)):
        key = (keys[rows[k]] ^ U64(vectors[k] + 1)) * _PRIME
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


@kernel(f"int64({_I64}, {_I64}, {_I64}, {_I64}, {_I64}, int64[::1], int64[::1])", group="read")
def place_runs(begins: Any, ends: Any, vectors: Any, lo: Any, hi: Any, places: Any, counts: Any) -> Any:
    """Of each row's runs begins[r]:ends[r] the `places` in the row, and the row's samples in `counts`.

    Of vector v the samples lo[v]:hi[v] count. Returns all of them.
    """
    total = 0
    for row in range(len(begins)):
        at = 0
        for k in range(begins[row], ends[row]):
            places[k] = at
            at += hi[vectors[k]] - lo[vectors[k]]
        counts[row] = at
        total += at
    return total


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
    head_rows[i] - first_row, none twice. Returns 0, or 1 where the head has a time not after `last_ms`.
    """
    for row in range(len(counts)):
        head_lo[row] = head_hi[row] = 0
    for i in range(len(head_rows)):
        row, lo, hi = head_rows[i] - first_row, head_offsets[i], head_offsets[i + 1]
        if lo < hi and head_t[lo] <= last_ms:
            return 1
        head_lo[row], head_hi[row] = lo, hi
    offsets[0] = 0
    for row in range(len(counts)):
        places[row] = offsets[row] + counts[row]
        offsets[row + 1] = places[row] + head_hi[row] - head_lo[row]
    return 0


@kernel(
    f"void({_I64}, Array(int64, 2, 'C', readonly=True), {_I64}, int64, int64, {_I64}, {_I64}, {_I64}, "
    f"{_I64}, {_I64}, {_I64}, {_I64}, {_I64}, int64[:,::1], int64[:,::1], int64[:,::1], int64[::1])",
    group="read",
)
def list_runs(
    order: Any,
    page_rows: Any,
    rows: Any,
    first_row: Any,
    last_row: Any,
    stream: Any,
    vectors: Any,
    length: Any,
    vector_offsets: Any,
    lo: Any,
    hi: Any,
    places: Any,
    offsets: Any,
    pages: Any,
    runs: Any,
    parts: Any,
    listed: Any,
) -> None:
    """What is to be decoded for rows first_row to last_row (exclusive), by page and stream, and where to.

    `order` are all runs so; run k belongs to row rows[k] (negative: to none), and `page_rows` i64[4, P] has
    the first and the last row of each page, and begin and end of its runs in `order`. Row r begins at
    offsets[r - first_row] of the output and run k places[k] behind. Page i has number pages[0, i] and the
    runs from pages[1, i] on: streams runs[0], decoded to runs[1], of runs[2] samples. Runs of which lo:hi of
    the vector is not all go behind the output, and `parts` says what of them is to be copied: [0] to [1], to
    [2]. `listed` gets the number of pages, runs and parts, and the end of all.
    """
    page_count, run_count, part_count, end = 0, 0, 0, offsets[last_row - first_row]
    for p in range(page_rows.shape[1]):
        if page_rows[0, p] >= last_row or page_rows[1, p] < first_row:
            continue
        before = run_count
        for k in range(page_rows[2, p], page_rows[3, p]):
            run = order[k]
            row = rows[run]
            if row < first_row or row >= last_row:
                continue
            vector = vectors[run]
            count = hi[vector] - lo[vector]
            if count == 0:
                continue
            start = offsets[row - first_row] + places[run]
            runs[0, run_count], runs[2, run_count] = stream[run], length[run]
            if count == length[run]:
                runs[1, run_count] = start
            else:
                runs[1, run_count] = end
                parts[0, part_count] = end + lo[vector] - vector_offsets[vector]
                parts[1, part_count] = parts[0, part_count] + count
                parts[2, part_count] = start
                part_count += 1
                end += length[run]
            run_count += 1
        if run_count > before:
            pages[0, page_count], pages[1, page_count] = p, before
            page_count += 1
    listed[0], listed[1], listed[2], listed[3] = page_count, run_count, part_count, end


@kernel(
    f"void({_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, "
    "Array(uint64, 1, 'C', readonly=True), uint64[::1])",
    group="read",
)
def copy_decoded(
    begins: Any,
    ends: Any,
    vectors: Any,
    vector_offsets: Any,
    lo: Any,
    hi: Any,
    places: Any,
    starts: Any,
    offsets: Any,
    bits: Any,
    out: Any,
) -> None:
    """Of each row's runs begins[r]:ends[r] the samples lo:hi of their vectors, from the values of all runs:
    run k begins at bits[starts[k]] and goes to out[offsets[r] + places[k]:]."""
    for row in range(len(begins)):
        for k in range(begins[row], ends[row]):
            vector = vectors[k]
            first = starts[k] + lo[vector] - vector_offsets[vector]
            part = bits[first : first + hi[vector] - lo[vector]]
            target = out[offsets[row] + places[k] :]
            for i in range(len(part)):
                target[i] = part[i]


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


@kernel(
    f"void({_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, {_I64}, int64[::1])", group="read"
)
def fill_columns(
    begins: Any,
    ends: Any,
    vectors: Any,
    places: Any,
    lo: Any,
    hi: Any,
    t_ms: Any,
    rows: Any,
    starts: Any,
    out: Any,
) -> None:
    """The blocks' part of columns: of rows[d] the parts t_ms[lo[v]:hi[v]] of its runs' vectors v, to
    out[starts[d] + places[k]:] for run k."""
    for d in range(len(rows)):
        for k in range(begins[rows[d]], ends[rows[d]]):
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
