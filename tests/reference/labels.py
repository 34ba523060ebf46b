"""Slow, obvious twins of tsdb/kernels/labels.py over lists of `Labels`."""

from __future__ import annotations

from collections.abc import Sequence

from tsdb.labels import Labels


def filter_labels(rows: Sequence[Labels], names: Sequence[str], keep: bool) -> list[Labels]:
    """Each row restricted to the names, or reduced by them."""
    return [Labels(tuple(p for p in row if (p[0] in names) == keep)) for row in rows]


def group_labels(rows: Sequence[Labels], names: Sequence[str], keep: bool) -> tuple[list[int], list[Labels]]:
    """Group of each row and the label sets of the groups, in order of first appearance."""
    groups: dict[Labels, int] = {}
    ids = [groups.setdefault(row, len(groups)) for row in filter_labels(rows, names, keep)]
    return ids, list(groups)


def sort_labels(rows: Sequence[Labels]) -> list[int]:
    """Row numbers in label order, stable."""
    return sorted(range(len(rows)), key=lambda i: rows[i].pairs)
