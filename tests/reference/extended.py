"""Slow twins of the anchored, smoothed and start-timestamp windows: one window, one series."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

Sample = tuple[int, float]
Started = tuple[int, float, int]


def line(p: Sample, q: Sample, at_ms: int, counter: bool) -> float:
    """The value between two samples; a counter that was reset between them restarts from zero."""
    y = 0.0 if counter and q[1] < p[1] else p[1]
    return y + (q[1] - y) * float(at_ms - p[0]) / float(q[0] - p[0])


def extended_rate(
    samples: Sequence[Sample],
    end_ms: int,
    range_ms: int,
    lookback_ms: int,
    smoothed: bool,
    counter: bool,
    rate: bool,
) -> float | None:
    """rate, increase, delta of an extended range."""
    start_ms = end_ms - range_ms
    upto = end_ms + lookback_ms if smoothed else end_ms
    seen = [s for s in samples if start_ms - lookback_ms < s[0] <= upto]
    if not seen:
        return None
    at_or_before = [s for s in seen if s[0] <= start_ms]
    first = at_or_before[-1] if at_or_before else seen[0]
    last = seen[-1]
    if smoothed:
        last = next((s for s in seen if s[0] >= end_ms), seen[-1])
    if last[0] <= start_ms or (smoothed and first[0] > end_ms):
        return None
    i, j = seen.index(first), seen.index(last)
    left, right = first[1], last[1]
    if smoothed and first[0] < start_ms:
        left = line(first, seen[i + 1], start_ms, counter)
    if smoothed and j > 0 and last[0] > end_ms:
        right = line(seen[j - 1], last, end_ms, counter)
    result = right - left
    if counter:
        inner = [s[1] for s in seen[i : j + 1] if start_ms < s[0] < end_ms]
        chain = [left, *inner, right]
        correction = 0.0
        for before, after in itertools.pairwise(chain):
            if after < before:
                correction += before
        result += correction
    return result / (range_ms / 1000.0) if rate else result


def transitions(
    samples: Sequence[Sample], end_ms: int, range_ms: int, lookback_ms: int, resets_only: bool
) -> float | None:
    """changes or resets of an anchored range."""
    start_ms = end_ms - range_ms
    seen = [s for s in samples if start_ms - lookback_ms < s[0] <= end_ms]
    if not seen or seen[-1][0] <= start_ms:
        return None
    before = [s for s in seen if s[0] <= start_ms]
    values = [v for t, v in seen if t > start_ms]
    if before:
        values.insert(0, before[-1][1])
    pairs = list(itertools.pairwise(values))
    if resets_only:
        return float(sum(b < a for a, b in pairs))
    return float(sum(b != a and not (math.isnan(a) and math.isnan(b)) for a, b in pairs))


def smoothed_value(samples: Sequence[Sample], at_ms: int, lookback_ms: int) -> float | None:
    """A smoothed instant selector."""
    before = [s for s in samples if at_ms - lookback_ms < s[0] <= at_ms]
    after = [s for s in samples if at_ms < s[0] <= at_ms + lookback_ms]
    if not before:
        return None
    if before[-1][0] == at_ms or not after:
        return before[-1][1]
    return line(before[-1], after[0], at_ms, False)


def starts_anew(before: Started, after: Started) -> bool:
    """Whether a start timestamp tells of a reset between two samples."""
    start = after[2]
    if start == 0 or start >= after[0]:
        return False
    return start > before[0] or (start == before[0] and before[2] != 0 and before[2] < before[0])


def rate_from_starts(window: Sequence[Started], end_ms: int, range_ms: int, rate: bool) -> float | None:
    """rate and increase that know start timestamps."""
    if not window:
        return None
    start_ms = end_ms - range_ms
    known = start_ms < window[0][2] < window[0][0] and window[0][2] != 0
    if len(window) < 2 and not known:
        return None
    result = window[-1][1] - window[0][1]
    for before, after in itertools.pairwise(window):
        if after[1] < before[1] or starts_anew(before, after):
            result += before[1]
    to_end = (end_ms - window[-1][0]) / 1000.0
    sampled = (window[-1][0] - window[0][0]) / 1000.0
    average = sampled / (len(window) - 1) if len(window) > 1 else 0.0
    to_start = (window[0][0] - start_ms) / 1000.0
    if known:
        result += window[0][1]
        sampled = (window[-1][0] - window[0][2]) / 1000.0
        to_start = 0.0
    else:
        if to_start >= average * 1.1:
            to_start = average / 2
        if result > 0 and window[0][1] >= 0:
            to_start = min(to_start, sampled * (window[0][1] / result))
    if to_end >= average * 1.1:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    return result * (factor / (range_ms / 1000.0) if rate else factor)


def instant_rate_from_starts(window: Sequence[Started]) -> float | None:
    """irate that knows start timestamps: after one the last value is the whole increase."""
    if len(window) < 2 or window[-1][0] == window[-2][0]:
        return None
    before, after = window[-2:]
    anew = after[1] < before[1] or starts_anew(before, after)
    return (after[1] if anew else after[1] - before[1]) / ((after[0] - before[0]) / 1000.0)


def resets_from_starts(window: Sequence[Started]) -> float | None:
    """resets that knows start timestamps."""
    if not window:
        return None
    return float(sum(b[1] < a[1] or starts_anew(a, b) for a, b in itertools.pairwise(window)))
