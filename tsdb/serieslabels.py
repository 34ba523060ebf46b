"""Label sets of many series as columns of symbol ids, so that grouping and joining never touch strings.

Layout (CSR): series i owns the pairs `offsets[i] .. offsets[i+1]` of `name_ids` and `value_ids`. Pairs of a
row are in the order of the label names' text. Value ids are never 0 (an empty value is an absent label).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tsdb.kernels import labels as kernels
from tsdb.labels import Labels
from tsdb.symbols import SymbolTable

T = TypeVar("T")

I64Array = npt.NDArray[np.int64]
U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

SORTED_BY_TEXT_MAX = 20_000
"""Rows that are sorted by the bytes of their texts."""

MEMO_ENTRIES_MAX = 8
"""Things remembered of kept label sets: two or three for each way of asking."""

_NO_REGIONS = (np.empty(0, dtype=np.uint8), np.empty(0, dtype=np.int64))


class _Pairs(NamedTuple):
    """Label sets without the symbols of the query that made them, which must not live as long."""

    offsets: I64Array
    name_ids: U32Array
    value_ids: U32Array
    memo: dict[Any, Any] | None


@dataclass(frozen=True, slots=True)
class SeriesLabels:
    """Immutable. `offsets` i64[S+1], `name_ids` u32[P], `value_ids` u32[P]."""

    offsets: I64Array
    name_ids: U32Array
    value_ids: U32Array
    symbols: SymbolTable
    memo: dict[Any, Any] | None = field(default=None, compare=False, repr=False)
    """What was worked out of these label sets, where they are kept for other queries. Their symbols are
    those of the store then, so that it holds for every query that has them under their own ids."""

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

    def remembered(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What was made under this key for the same label sets, or what is made now. Not to be changed by
        whom it is given to."""
        memo = self.memo
        if memo is None:
            return make()
        found: T | None = memo.get(key)
        if found is None:
            found = make()
            if len(memo) < MEMO_ENTRIES_MAX:
                memo[key] = found
        return found

    def kept(self) -> SeriesLabels:
        """The same, to be kept for other queries with what they work out."""
        return SeriesLabels(self.offsets, self.name_ids, self.value_ids, self.symbols, {})

    def _memo_of_more(self) -> dict[Any, Any] | None:
        return None if self.memo is None else {}

    def _of(self, kept: _Pairs) -> SeriesLabels:
        return SeriesLabels(kept.offsets, kept.name_ids, kept.value_ids, self.symbols, kept.memo)

    def column(self, name: str) -> U32Array:
        """Value ids of one label, u32[S]; 0 where a series has no such label."""
        return self.remembered(("column", name), lambda: self._column(name))

    def _column(self, name: str) -> U32Array:
        out = np.zeros(len(self), dtype=np.uint32)
        symbol = self.symbols.find(name)
        if symbol is not None:
            kernels.column_of(self.offsets, self.name_ids, self.value_ids, symbol, out)
        return out

    def take(self, rows: npt.NDArray[np.integer]) -> SeriesLabels:
        """The given rows in the given order."""
        picked = np.ascontiguousarray(rows, dtype=np.int64)
        if len(picked) and (int(picked.min()) < 0 or int(picked.max()) >= len(self)):
            raise IndexError(f"row out of range of {len(self)} series")
        total = int((self.offsets[picked + 1] - self.offsets[picked]).sum())
        offsets = np.zeros(len(picked) + 1, dtype=np.int64)
        names, values = np.empty(total, dtype=np.uint32), np.empty(total, dtype=np.uint32)
        kernels.take_rows(self.offsets, self.name_ids, self.value_ids, picked, offsets, names, values)
        return SeriesLabels(offsets, names, values, self.symbols)

    def filter_names(self, names: Sequence[str], keep: bool) -> SeriesLabels:
        """Only the given label names (`keep`) or all but them, in every row."""
        kept = self.remembered(("filtered", tuple(names), keep), lambda: self._filtered(names, keep))
        return self if len(kept.name_ids) == len(self.name_ids) else self._of(kept)

    def _filtered(self, names: Sequence[str], keep: bool) -> _Pairs:
        wanted = self._name_symbols(names)
        offsets = np.zeros(len(self) + 1, dtype=np.int64)
        out_names = np.empty(len(self.name_ids), dtype=np.uint32)
        out_values = np.empty(len(self.name_ids), dtype=np.uint32)
        total = kernels.filter_pairs(
            self.offsets, self.name_ids, self.value_ids, wanted, keep, offsets, out_names, out_values
        )
        return _Pairs(offsets, out_names[:total], out_values[:total], self._memo_of_more())

    def row_hashes(self, names: Sequence[str] = (), keep: bool = False) -> U64Array:
        """u64[S]: a hash of each row, of only the given names (`keep`) or of all but them.

        Hashes of ids: stable while the process lives, comparable between sets of one symbol table. Equal rows
        have equal hashes; the reverse must be verified (`rows_equal`).
        """
        out = np.empty(len(self), dtype=np.uint64)
        wanted = self._name_symbols(names)
        kernels.row_hashes(self.offsets, self.name_ids, self.value_ids, wanted, keep, out)
        return out

    def group_ids(self, names: Sequence[str] = (), without: bool = True) -> tuple[I64Array, SeriesLabels]:
        """Group of each row, i64[S], and the label sets of the groups, in order of first appearance.

        Rows are grouped by the given names, or (`without`) by all names but these; no name is dropped that
        is not listed, so `sum without` must list `__name__` too. The default finds equal label sets.
        """
        ids, first = self._group_rows(names, keep=not without)
        return ids, self.take(first).filter_names(names, keep=not without)

    def group_first_rows(self, names: Sequence[str] = (), without: bool = True) -> tuple[I64Array, I64Array]:
        """As `group_ids`, but with the first row of each group, i64[G], in place of its label set."""
        return self._group_rows(names, keep=not without)

    def _group_rows(self, names: Sequence[str], keep: bool) -> tuple[I64Array, I64Array]:
        return self.remembered(("groups", tuple(names), keep), lambda: self._grouped(names, keep))

    def _grouped(self, names: Sequence[str], keep: bool) -> tuple[I64Array, I64Array]:
        count = len(self)
        slots = np.full(1 << max(3, (2 * count - 1).bit_length() if count else 3), -1, dtype=np.int64)
        ids, first = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        wanted = self._name_symbols(names)
        groups = kernels.group_rows(
            self.offsets, self.name_ids, self.value_ids, wanted, keep, slots, ids, first
        )
        return ids, first[:groups].copy()

    def sort_order(self) -> I64Array:
        """i64[S]: rows in Prometheus's order of label sets (name, then value, shorter prefix first); stable.

        A few rows are compared by the bytes of their texts; many, or made-up texts, by ranks, so that each
        distinct text is read once.
        """
        order = np.arange(len(self), dtype=np.int64)
        if len(self) < 2:
            return order
        names, values = self.name_ids, self.value_ids
        regions = self.symbols.regions() if len(self) <= SORTED_BY_TEXT_MAX else None
        if regions is None or not self.symbols.are_stored(names, values):
            names, values = self._ranks()
            regions = _NO_REGIONS
        kernels.sort_rows(self.offsets, names, values, *regions, order, np.empty_like(order))
        return order

    def in_order(self) -> tuple[I64Array, SeriesLabels]:
        """`sort_order`, and the rows in it (the same object where they are)."""
        order, kept = self.remembered(("order",), self._ordered)
        return order, self if kept is None else self._of(kept)

    def _ordered(self) -> tuple[I64Array, _Pairs | None]:
        order = self.sort_order()
        if not (order[1:] < order[:-1]).any():
            return order, None
        taken = self.take(order)
        return order, _Pairs(taken.offsets, taken.name_ids, taken.value_ids, self._memo_of_more())

    def _ranks(self) -> tuple[U32Array, U32Array]:
        """Names and values as ranks of their texts."""
        distinct, places = np.unique(np.concatenate([self.name_ids, self.value_ids]), return_inverse=True)
        texts = self.symbols.texts(distinct.tolist())
        ranks = np.empty(len(distinct), dtype=np.uint32)
        ranks[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(distinct), dtype=np.uint32)
        ranked = ranks[places]
        pairs = len(self.name_ids)
        return ranked[:pairs], ranked[pairs:]

    def rows_equal(self, rows: I64Array, other: SeriesLabels, other_rows: I64Array) -> BoolArray:
        """bool[N]: whether row rows[k] here equals row other_rows[k] of another set of the same symbols."""
        out = np.empty(len(rows), dtype=np.bool_)
        kernels.rows_equal(
            self.offsets,
            self.name_ids,
            self.value_ids,
            np.ascontiguousarray(rows, dtype=np.int64),
            other.offsets,
            other.name_ids,
            other.value_ids,
            np.ascontiguousarray(other_rows, dtype=np.int64),
            out,
        )
        return out

    @classmethod
    def concat(cls, parts: Sequence[SeriesLabels], symbols: SymbolTable) -> SeriesLabels:
        """The rows of all parts, one part after the other. Ids of all parts must be valid in `symbols`."""
        if len(parts) == 1:
            return cls(parts[0].offsets, parts[0].name_ids, parts[0].value_ids, symbols)
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.zeros(1 + sum(map(len, lengths)), dtype=np.int64)
        if parts:
            np.cumsum(np.concatenate(lengths), out=offsets[1:])
        empty = np.empty(0, dtype=np.uint32)
        names = np.concatenate([part.name_ids for part in parts]) if parts else empty
        values = np.concatenate([part.value_ids for part in parts]) if parts else empty
        return cls(offsets, names, values, symbols)

    def _name_symbols(self, names: Sequence[str]) -> U32Array:
        """Sorted ids of the names that are known; unknown ones occur in no row."""
        known = {symbol for symbol in map(self.symbols.find, names) if symbol is not None}
        return np.array(sorted(known), dtype=np.uint32)
