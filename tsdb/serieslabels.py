"""Label sets of many series as columns of symbol ids, so that grouping and joining never touch strings.

Layout (CSR): series i owns the pairs `offsets[i] .. offsets[i+1]` of `name_ids` and `value_ids`. Pairs of a
row are in the order of the label names' text. Value ids are never 0 (an empty value is an absent label).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.labels import Labels
from tsdb.symbols import SymbolTable

I64Array = npt.NDArray[np.int64]
U32Array = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class SeriesLabels:
    """Immutable. `offsets` i64[S+1], `name_ids` u32[P], `value_ids` u32[P]."""

    offsets: I64Array
    name_ids: U32Array
    value_ids: U32Array
    symbols: SymbolTable

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def from_labels(cls, rows: Sequence[Labels], symbols: SymbolTable) -> SeriesLabels:
        """Columns of label sets; the slow way in, for tests and small sets."""
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=offsets[1:])
        names = symbols.intern_many(name for row in rows for name, _ in row)
        values = symbols.intern_many(value for row in rows for _, value in row)
        return cls(offsets, names, values, symbols)

    def row(self, index: int) -> Labels:
        """Label set of one series."""
        lo, hi = int(self.offsets[index]), int(self.offsets[index + 1])
        names = self.symbols.texts(self.name_ids[lo:hi].tolist())
        values = self.symbols.texts(self.value_ids[lo:hi].tolist())
        return Labels(tuple(zip(names, values, strict=True)))

    def rows(self) -> list[Labels]:
        """Label sets of all series; for results, not for inner loops."""
        names = self.symbols.texts(self.name_ids.tolist())
        values = self.symbols.texts(self.value_ids.tolist())
        pairs = list(zip(names, values, strict=True))
        bounds = self.offsets.tolist()
        return [Labels(tuple(pairs[lo:hi])) for lo, hi in itertools.pairwise(bounds)]

    def column(self, name: str) -> U32Array:
        """Value ids of one label, u32[S]; 0 where a series has no such label."""
        out = np.zeros(len(self), dtype=np.uint32)
        symbol = self.symbols.find(name)
        if symbol is not None:
            hits = np.flatnonzero(self.name_ids == symbol)
            out[np.searchsorted(self.offsets, hits, side="right") - 1] = self.value_ids[hits]
        return out

    def take(self, rows: npt.NDArray[np.integer]) -> SeriesLabels:
        """The given rows in the given order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        picked = np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return SeriesLabels(offsets, self.name_ids[picked], self.value_ids[picked], self.symbols)

    def filter_names(self, names: Sequence[str], keep: bool) -> SeriesLabels:
        """Only the given label names (`keep`) or all but them, in every row."""
        known = [s for s in (self.symbols.find(name) for name in names) if s is not None]
        mask = np.isin(self.name_ids, np.array(known, dtype=np.uint32), invert=not keep)
        running = np.zeros(len(mask) + 1, dtype=np.int64)
        np.cumsum(mask, out=running[1:])
        return SeriesLabels(running[self.offsets], self.name_ids[mask], self.value_ids[mask], self.symbols)
