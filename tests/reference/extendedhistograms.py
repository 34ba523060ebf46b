"""Slow twins of anchored and smoothed windows over native histograms: one window, one series."""

from __future__ import annotations

from collections.abc import Sequence

from tests.reference.histograms import GAUGE, FloatHistogram, add, detect_reset

Sample = tuple[int, FloatHistogram]


def between(p: Sample, q: Sample, at_ms: int, restarted: bool) -> FloatHistogram:
    """The histogram between two samples; where the counter restarted between them, on the way from zero."""
    share = float(at_ms - p[0]) / float(q[0] - p[0])
    out = q[1].copy()
    if restarted:
        return out.scale(share)
    add(out, p[1], -1)
    out.scale(share)
    add(out, p[1])
    return out


def extended_rate(
    samples: Sequence[Sample],
    end_ms: int,
    range_ms: int,
    lookback_ms: int,
    smoothed: bool,
    counter: bool,
    rate: bool,
) -> FloatHistogram | None:
    """rate, increase, delta of an extended range."""
    start_ms = end_ms - range_ms
    upto = end_ms + lookback_ms if smoothed else end_ms
    seen = [s for s in samples if start_ms - lookback_ms < s[0] <= upto]
    if not seen:
        return None
    i = max((n for n, s in enumerate(seen) if s[0] <= start_ms), default=0)
    j = len(seen) - 1
    if smoothed:
        j = next((n for n, s in enumerate(seen) if s[0] >= end_ms), j)
    first, last = seen[i], seen[j]
    if last[0] <= start_ms or (smoothed and first[0] > end_ms):
        return None
    part = seen[i : j + 1]
    if len({h.is_custom for _, h in part}) > 1:
        return None

    def was_reset(n: int) -> bool:
        return counter and detect_reset(seen[n][1], seen[n - 1][1])

    total, left = last[1].copy(), first[1]
    cuts_left = smoothed and first[0] < start_ms
    if smoothed and j > 0 and last[0] > end_ms:
        total = between(seen[j - 1], last, end_ms, was_reset(j))
    if cuts_left:
        left = between(first, seen[i + 1], start_ms, was_reset(i + 1))
    add(total, left, -1)
    for n in range(i + (2 if cuts_left else 1), j + 1):
        if was_reset(n):
            add(total, seen[n - 1][1])
    if rate:
        total.scale(range_ms / 1000.0, True)
    total.hint = GAUGE
    return total.compact()


def smoothed_value(samples: Sequence[Sample], at_ms: int, lookback_ms: int) -> FloatHistogram | None:
    """A smoothed instant selector; gauges do not restart."""
    before = [s for s in samples if at_ms - lookback_ms < s[0] <= at_ms]
    after = [s for s in samples if at_ms < s[0] <= at_ms + lookback_ms]
    if not before:
        return None
    if before[-1][0] == at_ms or not after:
        return before[-1][1].copy().compact()
    p, q = before[-1], after[0]
    if p[1].is_custom != q[1].is_custom:
        return None
    return between(p, q, at_ms, q[1].hint != GAUGE and detect_reset(q[1], p[1])).compact()
