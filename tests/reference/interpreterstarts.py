"""rate, increase, irate and resets that know start timestamps, for the slow interpreter.

A sample that started after the one before it is a reset even where nothing fell. A first sample that started
inside of the window stands beside a zero at its start: its own value counts, and nothing is extrapolated to
the left (prometheus-surface.md 2.8).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from tests.reference import extended
from tests.reference.histograms import GAUGE, FloatHistogram, IncompatibleBuckets, add, detect_reset
from tests.reference.promqlvalues import Cell, Sample

KNOW_STARTS = ("rate", "increase", "irate", "resets")


def _is_reset(before: Sample, after: Sample) -> bool:
    """Between two samples of one kind."""
    a, b = before.value, after.value
    if extended.starts_anew((before.t_ms, 0.0, before.start_ms), (after.t_ms, 0.0, after.start_ms)):
        return True
    if isinstance(a, FloatHistogram) and isinstance(b, FloatHistogram):
        return detect_reset(b, a)
    return isinstance(a, float) and isinstance(b, float) and b < a


def over_started(name: str, window: Sequence[Sample], lo_ms: int, hi_ms: int) -> Cell:
    """One of KNOW_STARTS at one step: `window` holds the samples of (lo, hi], at least one."""
    if name == "resets":
        pairs = itertools.pairwise(window)
        return float(sum(type(a.value) is not type(b.value) or _is_reset(a, b) for a, b in pairs))
    if name == "irate":
        window = window[-2:]
    floats = [(s.t_ms, s.value, s.start_ms) for s in window if isinstance(s.value, float)]
    if len(floats) == len(window):
        if name == "irate":
            return extended.instant_rate_from_starts(floats)
        return extended.rate_from_starts(floats, hi_ms, hi_ms - lo_ms, name == "rate")
    if floats:
        return None
    return _instant_rate(window) if name == "irate" else _rate(name, window, lo_ms, hi_ms)


def _instant_rate(window: Sequence[Sample]) -> Cell:
    if len(window) < 2:
        return None
    before, after = window
    try:
        result = _sum([(after, 1)] if _is_reset(before, after) else [(after, 1), (before, -1)])
    except IncompatibleBuckets:
        return None
    return result.compact().scale((after.t_ms - before.t_ms) / 1000, True)


def _rate(name: str, window: Sequence[Sample], lo_ms: int, hi_ms: int) -> Cell:
    first, last = window[0], window[-1]
    known = first.start_ms != 0 and lo_ms < first.start_ms < first.t_ms
    if len(window) < 2 and not known:
        return None
    terms = [(last, 1)]
    if len(window) > 1:
        # The first sample counts as an empty one where the second starts anew.
        nulled = _is_reset(first, window[1])
        terms += [] if nulled else [(first, -1)]
        terms += [
            (a, 1) for a, b in itertools.pairwise(window) if _is_reset(a, b) and not (a is first and nulled)
        ]
    else:
        nulled = False
    involved = window[1:] if nulled else window
    values = [s.value for s in involved if isinstance(s.value, FloatHistogram)]
    if len({h.is_custom for h in values}) > 1:
        return None
    try:
        increase = _sum(terms, min(h.schema for h in values))
        average = (last.t_ms - first.t_ms) / 1000 / max(len(window) - 1, 1)
        to_end = (hi_ms - last.t_ms) / 1000
        if to_end >= average * 1.1:
            to_end = average / 2
        if known:
            if len(window) > 1:
                assert isinstance(first.value, FloatHistogram)
                add(increase, first.value)
            sampled, to_start = (last.t_ms - first.start_ms) / 1000, 0.0
        else:
            sampled, to_start = (last.t_ms - first.t_ms) / 1000, (first.t_ms - lo_ms) / 1000
            if to_start >= average * 1.1:
                to_start = average / 2
            assert isinstance(first.value, FloatHistogram)
            if increase.count > 0:
                to_start = min(to_start, sampled * (first.value.count / increase.count))
    except IncompatibleBuckets:
        return None
    increase.hint = GAUGE
    factor = (sampled + to_start + to_end) / sampled
    return increase.compact().scale(factor / ((hi_ms - lo_ms) / 1000) if name == "rate" else factor)


def _sum(terms: Sequence[tuple[Sample, int]], schema: int | None = None) -> FloatHistogram:
    """The first term less or plus the others; raises IncompatibleBuckets."""
    total, *others = terms
    assert isinstance(total[0].value, FloatHistogram)
    out = total[0].value.copy()
    if schema is not None and not out.is_custom:
        out.reduce(schema)
    for sample, sign in others:
        assert isinstance(sample.value, FloatHistogram)
        add(out, sample.value, sign)
    out.hint = GAUGE
    return out
