"""Slow twin of merged selections: dictionaries by label set and time."""

from __future__ import annotations

from collections.abc import Sequence

from tests.tsdb.memoryselection import FloatSample, HistogramSample, Row
from tsdb.labels import Labels


def merge_rows(sources: Sequence[Sequence[Row]]) -> dict[Labels, Row]:
    """One row a label set, one sample a time, the first source's."""
    found: dict[Labels, dict[int, FloatSample | HistogramSample]] = {}
    for rows in sources:
        for row in rows:
            samples = found.setdefault(row.labels, {})
            for sample in [*row.floats, *row.histograms]:
                samples.setdefault(sample.t_ms, sample)
    out = {}
    for labels, samples in found.items():
        ordered = [samples[t] for t in sorted(samples)]
        out[labels] = Row(
            labels,
            [s for s in ordered if isinstance(s, FloatSample)],
            [s for s in ordered if isinstance(s, HistogramSample)],
        )
    return out
