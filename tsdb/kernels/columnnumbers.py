"""Columns of timestamps numbered through a whole selection, not only through rows that are read together.

Enters: of each row the kind of its timestamps in blocks, and its times in the head. Leaves: the number of
each row's column, the same for all rows of that selection with these times.
"""

from __future__ import annotations

from typing import Any

from tsdb.kernels.compile import kernel
from tsdb.kernels.sharedrows import CANDIDATES_MAX

_I64 = "Array(int64, 1, 'C', readonly=True)"

COUNT, FRESH = 0, 1


@kernel(
    f"int64({_I64}, {_I64}, {_I64}, {_I64}, int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], "
    "int64[::1], int64[::1])",
    group="read",
)
def number_columns(
    kinds: Any,
    head_lo: Any,
    head_hi: Any,
    head_t: Any,
    newest: Any,
    older: Any,
    kept_offsets: Any,
    kept_t: Any,
    found: Any,
    owners: Any,
    column: Any,
) -> Any:
    """Number of each row's column in `column`, and in `owners` the rows of columns that had none before.

    Column c has the kind in whose chain it is (`newest` of each kind, then `older` of each column, -1 at the
    end) and the times kept_t[kept_offsets[c]:kept_offsets[c+1]] in the head; row r has kinds[r] and
    head_t[head_lo[r]:head_hi[r]]. `found` has how many columns there are (changed), and how many are new.
    Returns 0, or 1 where there is no room for another, or a kind has too many, and nothing is changed then.
    """
    begun = count = found[COUNT]
    fresh, full = 0, False
    for row in range(len(kinds)):
        kind, length = kinds[row], head_hi[row] - head_lo[row]
        mine = head_t[head_lo[row] : head_hi[row]]
        at, number, seen = newest[kind], -1, 0
        while at >= 0 and number < 0:
            first = kept_offsets[at]
            if kept_offsets[at + 1] - first == length:
                differing = 0
                other = kept_t[first : first + length]
                for k in range(length):
                    differing |= mine[k] ^ other[k]
                if differing == 0:
                    number = at
            at = older[at]
            seen += 1
        if number < 0:
            first = kept_offsets[count]
            full = seen == CANDIDATES_MAX or count == len(older) or first + length > len(kept_t)
            if full:
                break
            number = count
            for k in range(length):
                kept_t[first + k] = mine[k]
            kept_offsets[count + 1] = first + length
            older[count] = newest[kind]
            newest[kind] = count
            owners[fresh] = row
            fresh += 1
            count += 1
        column[row] = number
    if full:
        # Of the newest first, so that chains are as they were.
        for i in range(fresh):
            last = count - 1 - i
            newest[kinds[owners[fresh - 1 - i]]] = older[last]
        count, fresh = begun, 0
    found[COUNT], found[FRESH] = count, fresh
    return 1 if full else 0
