"""Anchored and smoothed selectors of the slow PromQL interpreter: one cell at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from promql.ast import Expr, MatrixSelector
from tests.reference import extended, extendedhistograms
from tests.reference.histograms import FloatHistogram
from tests.reference.interpreterfunctions import over_window
from tests.reference.promqlvalues import Cell, EvaluationError, Sample

ALLOWED = {
    "anchored": ("changes", "delta", "increase", "rate", "resets"),
    "smoothed": ("delta", "increase", "rate"),
}


def modifier_of(source: Expr, function: str) -> str:
    """ "anchored", "smoothed" or nothing; an error where the function cannot have it."""
    if not isinstance(source, MatrixSelector):
        return ""
    for modifier, functions in ALLOWED.items():
        if getattr(source.selector, modifier):
            if function not in functions:
                raise EvaluationError(f"{modifier} modifier cannot be used with {function}")
            return modifier
    return ""


def _of_one_kind(
    samples: Sequence[Sample],
) -> tuple[list[tuple[int, float]], list[tuple[int, FloatHistogram]]]:
    """The samples as floats and as histograms."""
    floats = [(s.t_ms, s.value) for s in samples if isinstance(s.value, float)]
    return floats, [(s.t_ms, s.value) for s in samples if isinstance(s.value, FloatHistogram)]


def over_extended(
    name: str, samples: Sequence[Sample], lo_ms: int, hi_ms: int, lookback_ms: int, modifier: str
) -> Cell:
    """A function of the extended window (lo, hi] of a series without stale markers."""
    smoothed = modifier == "smoothed"
    upto = hi_ms + lookback_ms if smoothed else hi_ms
    seen = [s for s in samples if lo_ms - lookback_ms < s.t_ms <= upto]
    if name in ("changes", "resets"):
        before = [s for s in seen if s.t_ms <= lo_ms]
        inside = [s for s in seen if s.t_ms > lo_ms]
        window = [*before[-1:], *inside]
        return over_window(name, window, lo_ms, hi_ms, hi_ms, []) if inside else None
    floats, histograms = _of_one_kind(seen)
    if floats and histograms:
        return None
    what = (hi_ms, hi_ms - lo_ms, lookback_ms, smoothed, name != "delta", name == "rate")
    if histograms:
        return extendedhistograms.extended_rate(histograms, *what)
    return extended.extended_rate(floats, *what)


def smoothed_cell(samples: Sequence[Sample], at_ms: int, lookback_ms: int) -> Cell:
    """A smoothed instant selector at one time."""
    seen = [s for s in samples if at_ms - lookback_ms < s.t_ms <= at_ms + lookback_ms]
    floats, histograms = _of_one_kind(seen)
    if floats and histograms:
        return None
    if histograms:
        return extendedhistograms.smoothed_value(histograms, at_ms, lookback_ms)
    return cast(Cell, extended.smoothed_value(floats, at_ms, lookback_ms))
