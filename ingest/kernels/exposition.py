"""Text exposition in one pass: bytes in, one row a sample out; metadata lines beside them.

Per sample: span and hash of the series text (name and labels as written), the value, and spans of a value
or timestamp that the exact fast path does not cover (more than 15 digits or a large exponent), so that the
wrapper reads those few with a correctly rounded parser. Nothing is unescaped here: a series text seen
before is recognised by its bytes. Every read is checked against the end of the body.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tsdb.kernels.compile import device, inline, kernel

TEXT = 0
OPENMETRICS = 1

HELP = 1
TYPE = 2
UNIT = 3

ERROR_LINE_START = -1
ERROR_LABELS = -2
ERROR_VALUE = -3
ERROR_AFTER_VALUE = -4
ERROR_METADATA_NAME = -5
ERROR_METADATA = -6
ERROR_NO_EOF = -7
ERROR_AFTER_EOF = -8
ERROR_EXEMPLAR = -9
ERROR_CAPACITY = -10

SLOW_VALUE = 1
"""Bit of `slow`: the value is to be read from its span."""
SLOW_TIME = 2
"""Bit of `slow`: the timestamp is to be read from its span."""
HAS_TIME = 4
"""Bit of `slow`: the sample has its own timestamp."""

STATE_POSITION = 0
STATE_METADATA = 1
STATE_METADATA_HASH = 2
STATE_SLOW = 3
STATE_COUNT = 4

_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_S8, _S16, _S24, _S29 = np.uint64(8), np.uint64(16), np.uint64(24), np.uint64(29)
_S32, _S40, _S48, _S56 = np.uint64(32), np.uint64(40), np.uint64(48), np.uint64(56)
_NAN = np.nan
_INF = np.inf

_POWERS = np.array([10.0**e for e in range(23)])
_EXACT_MANTISSA = np.uint64(1 << 53)
_DIGITS_LIMIT = 19
_TIME_EXACT_LIMIT = 9e12
"""Seconds beyond this times 1000, and milliseconds beyond it, are read by the full parser."""


@inline
def _is_name_start(c: Any) -> Any:
    return (c >= 97 and c <= 122) or (c >= 65 and c <= 90) or c == 95 or c == 58


@inline
def _is_digit(c: Any) -> Any:
    return c >= 48 and c <= 57


@device
def parse_number(body: Any, start: Any, end: Any) -> Any:
    """A decimal number as (value, exact). Not exact: the caller reads the span with a full parser."""
    p = start
    negative = False
    if p < end and (body[p] == 45 or body[p] == 43):
        negative = body[p] == 45
        p += 1
    if end - p == 3:
        if body[p] == 73 and body[p + 1] == 110 and body[p + 2] == 102:
            return (-_INF if negative else _INF), True
        if p == start and body[p] == 78 and body[p + 1] == 97 and body[p + 2] == 78:
            return _NAN, True
    mantissa = np.uint64(0)
    digits = 0
    exponent = 0
    seen = False
    while p < end and _is_digit(body[p]):
        mantissa = mantissa * np.uint64(10) + np.uint64(body[p] - 48)
        digits += 1 if mantissa != 0 else 0
        seen = True
        p += 1
        if digits > _DIGITS_LIMIT - 1:
            return 0.0, False
    if p < end and body[p] == 46:
        p += 1
        while p < end and _is_digit(body[p]):
            mantissa = mantissa * np.uint64(10) + np.uint64(body[p] - 48)
            digits += 1 if mantissa != 0 else 0
            exponent -= 1
            seen = True
            p += 1
            if digits > _DIGITS_LIMIT - 1:
                return 0.0, False
    if not seen:
        return 0.0, False
    if p < end and (body[p] == 101 or body[p] == 69):
        p += 1
        down = False
        if p < end and (body[p] == 45 or body[p] == 43):
            down = body[p] == 45
            p += 1
        written = 0
        start_digits = p
        while p < end and _is_digit(body[p]) and written < 10000:
            written = written * 10 + (body[p] - 48)
            p += 1
        if p == start_digits:
            return 0.0, False
        exponent += -written if down else written
    if p != end:
        return 0.0, False
    if mantissa == 0:
        return (-0.0 if negative else 0.0), True
    if mantissa > _EXACT_MANTISSA or exponent > 22 or exponent < -22:
        return 0.0, False
    # Both operands are exact doubles, so the one operation rounds correctly.
    value = np.float64(mantissa)
    value = value / _POWERS[-exponent] if exponent < 0 else value * _POWERS[exponent]
    return (-value if negative else value), True


@device
def _hash(body: Any, start: Any, end: Any, seed: Any) -> Any:
    h = seed
    p = start
    while p + 8 <= end:
        # The compiler makes one load of this.
        word = (
            np.uint64(body[p])
            | np.uint64(body[p + 1]) << _S8
            | np.uint64(body[p + 2]) << _S16
            | np.uint64(body[p + 3]) << _S24
            | np.uint64(body[p + 4]) << _S32
            | np.uint64(body[p + 5]) << _S40
            | np.uint64(body[p + 6]) << _S48
            | np.uint64(body[p + 7]) << _S56
        )
        h = (h ^ word) * _MIX
        h ^= h >> _S32
        p += 8
    while p < end:
        h = (h ^ np.uint64(body[p])) * _PRIME
        p += 1
    h = (h ^ np.uint64(end - start) ^ (h >> _S32)) * _MIX
    return h ^ (h >> _S29)


@device
def _skip_blank(body: Any, p: Any, n: Any) -> Any:
    while p < n and (body[p] == 32 or body[p] == 9):
        p += 1
    return p


@device
def _line_end(body: Any, p: Any, n: Any) -> Any:
    while p < n and body[p] != 10:
        p += 1
    return p


@device
def _token_end(body: Any, p: Any, n: Any, mode: Any) -> Any:
    while p < n and body[p] != 32 and body[p] != 10 and (mode == OPENMETRICS or body[p] != 9):
        p += 1
    return p


@device
def _string_end(body: Any, p: Any, n: Any, mode: Any) -> Any:
    """Position after the closing quote of the string that opens at `p`; -1 where it never closes."""
    p += 1
    while p < n:
        c = body[p]
        if c == 92:
            p += 2
            continue
        if c == 34:
            return p + 1
        if c == 10 and mode == OPENMETRICS:
            return -1
        p += 1
    return -1


@device
def _braces_end(body: Any, p: Any, n: Any, mode: Any) -> Any:
    """Position after the closing brace of the labels that open at `p`; -1 where they never close."""
    p += 1
    while p < n:
        c = body[p]
        if c == 34:
            p = _string_end(body, p, n, mode)
            if p < 0:
                return -1
        elif c == 125:
            return p + 1
        elif c == 10:
            return -1
        else:
            p += 1
    return -1


@device
def _name_end(body: Any, p: Any, n: Any) -> Any:
    if p < n and _is_name_start(body[p]):
        p += 1
        while p < n and (_is_name_start(body[p]) or _is_digit(body[p])):
            p += 1
    return p


@device
def _keyword(body: Any, p: Any, n: Any, mode: Any) -> Any:
    """HELP, TYPE or UNIT at `p` with a blank behind, 0 for anything else."""
    if p + 5 > n or not (body[p + 4] == 32 or (mode == TEXT and body[p + 4] == 9)):
        return 0
    a, b, c, d = body[p], body[p + 1], body[p + 2], body[p + 3]
    if a == 72 and b == 69 and c == 76 and d == 80:
        return HELP
    if a == 84 and b == 89 and c == 80 and d == 69:
        return TYPE
    if mode == OPENMETRICS and a == 85 and b == 78 and c == 73 and d == 84:
        return UNIT
    return 0


@device
def _metadata(body: Any, p: Any, n: Any, mode: Any, row: Any) -> Any:
    """Name and text behind a keyword at `p`: fills `row`, returns the line's end or an error."""
    p = _skip_blank(body, p + 5, n) if mode == TEXT else p + 5
    end = p
    if p < n and body[p] == 34:
        end = _string_end(body, p, n, mode)
        if end < 0:
            return ERROR_METADATA_NAME
    else:
        end = _name_end(body, p, n)
    if end == p:
        return ERROR_METADATA_NAME
    row[0], row[1] = p, end
    line = _line_end(body, end, n)
    if end == line:
        if mode == OPENMETRICS:
            return ERROR_METADATA
    elif body[end] != 32 and not (mode == TEXT and body[end] == 9):
        return ERROR_METADATA
    row[2], row[3] = min(end + 1, line), line
    return line


@device
def _is_eof(body: Any, p: Any, n: Any) -> Any:
    return (
        p + 5 <= n
        and body[p] == 35
        and body[p + 1] == 32
        and body[p + 2] == 69
        and body[p + 3] == 79
        and (body[p + 4] == 70)
    )


@device
def _sample_tail(body: Any, p: Any, n: Any, mode: Any, i: Any, t_spans: Any, exemplars: Any) -> Any:
    """What follows a value at `p`: timestamp and exemplar spans; returns the line's end or an error."""
    t_spans[i, 0], t_spans[i, 1], exemplars[i, 0], exemplars[i, 1] = 0, 0, 0, 0
    if mode == TEXT:
        p = _skip_blank(body, p, n)
        end = _token_end(body, p, n, mode)
        t_spans[i, 0], t_spans[i, 1] = p, end
        p = _skip_blank(body, end, n)
        return p if p == n or body[p] == 10 else ERROR_AFTER_VALUE
    if p < n and body[p] == 32 and p + 1 < n and body[p + 1] != 35:
        end = _token_end(body, p + 1, n, mode)
        if end == p + 1:
            return ERROR_AFTER_VALUE
        t_spans[i, 0], t_spans[i, 1] = p + 1, end
        p = end
    if p + 3 < n and body[p] == 32 and body[p + 1] == 35 and body[p + 2] == 32 and body[p + 3] == 123:
        exemplars[i, 0] = p + 3
        p = _braces_end(body, p + 3, n, mode)
        if p < 0:
            return ERROR_EXEMPLAR
        p = _line_end(body, p, n)
        exemplars[i, 1] = p
    return p if p == n or body[p] == 10 else ERROR_AFTER_VALUE


@device
def _own_time(body: Any, start: Any, end: Any, mode: Any) -> Any:
    """Timestamp in ms and the bits HAS_TIME and SLOW_TIME for a span; none for an empty span."""
    if end <= start:
        return np.int64(0), 0
    t, exact = parse_number(body, start, end)
    if not exact or not (abs(t) < _TIME_EXACT_LIMIT):
        return np.int64(0), HAS_TIME | SLOW_TIME
    if mode == OPENMETRICS:
        return np.int64(t * 1000.0), HAS_TIME
    if t != np.floor(t) or t < 0:
        return np.int64(0), HAS_TIME | SLOW_TIME
    return np.int64(t), HAS_TIME


@kernel(
    "int64(uint8[::1], int64, uint64, int32[::1], int32[::1], uint64[::1], float64[::1], int32[:, ::1],"
    " int64[::1], int32[:, ::1], int32[:, ::1], uint8[::1], uint8[::1], int32[:, ::1], int64[::1])",
    group="write",
)
def scan(
    body: Any,
    mode: Any,
    seed: Any,
    starts: Any,
    ends: Any,
    hashes: Any,
    values: Any,
    value_spans: Any,
    t_ms: Any,
    t_spans: Any,
    exemplars: Any,
    slow: Any,
    metadata_kinds: Any,
    metadata_spans: Any,
    state: Any,
) -> Any:
    """Samples of a body; returns their count or an error with its position in `state`.

    Outputs hold one row a line at most: series span, hash, value, and the spans of value, timestamp and
    exemplar; `metadata_spans` i32[:, 4] are name and text. `state` i64[5]: error position, metadata count,
    metadata hash, rows with a bit in `slow`, samples (also before an error).
    """
    n = len(body)
    p = 0
    count = 0
    metadata_count = 0
    metadata_hash = seed
    slow_count = 0
    ended = False
    while p < n:
        state[STATE_POSITION] = p
        state[STATE_COUNT] = count
        state[STATE_METADATA] = metadata_count
        if mode == TEXT:
            p = _skip_blank(body, p, n)
            if p == n:
                break
            if body[p] == 10:
                p += 1
                continue
        elif _is_eof(body, p, n):
            p += 5
            if p < n and body[p] == 10:
                p += 1
            ended = True
            break
        if body[p] == 35:
            q = p + 1
            if mode == TEXT:
                q = _skip_blank(body, q, n)
            elif q < n and body[q] == 32:
                q += 1
            kind = _keyword(body, q, n, mode) if q > p + 1 else 0
            if kind == 0:
                if mode == OPENMETRICS:
                    return ERROR_LINE_START
                p = _line_end(body, p, n) + 1
                continue
            if metadata_count == len(metadata_kinds):
                return ERROR_CAPACITY
            end = _metadata(body, q, n, mode, metadata_spans[metadata_count])
            if end < 0:
                return end
            metadata_kinds[metadata_count] = kind
            metadata_hash = _hash(body, q, end, metadata_hash)
            metadata_count += 1
            p = end + 1
            continue
        end = _name_end(body, p, n)
        if end == p and body[p] != 123:
            return ERROR_LINE_START
        brace = _skip_blank(body, end, n) if mode == TEXT else end
        if brace < n and body[brace] == 123:
            end = _braces_end(body, brace, n, mode)
            if end < 0:
                return ERROR_LABELS
        if count == len(starts):
            return ERROR_CAPACITY
        starts[count], ends[count] = p, end
        hashes[count] = _hash(body, p, end, seed)
        if mode == TEXT:
            p = _skip_blank(body, end, n)
        elif end < n and body[end] == 32:
            p = end + 1
        else:
            return ERROR_VALUE
        end = _token_end(body, p, n, mode)
        if end == p:
            return ERROR_VALUE
        value, exact = parse_number(body, p, end)
        values[count] = value
        value_spans[count, 0], value_spans[count, 1] = p, end
        flags = 0 if exact else SLOW_VALUE
        p = _sample_tail(body, end, n, mode, count, t_spans, exemplars)
        if p < 0:
            return p
        t_ms[count], timed = _own_time(body, t_spans[count, 0], t_spans[count, 1], mode)
        flags |= timed
        slow[count] = flags
        if flags & (SLOW_VALUE | SLOW_TIME):
            slow_count += 1
        count += 1
        p += 1
    state[STATE_POSITION] = min(p, n)
    state[STATE_COUNT] = count
    state[STATE_METADATA] = metadata_count
    state[STATE_METADATA_HASH] = np.int64(metadata_hash)
    state[STATE_SLOW] = slow_count
    if mode == OPENMETRICS:
        if not ended:
            return ERROR_NO_EOF
        if p < n:
            return ERROR_AFTER_EOF
    return count
