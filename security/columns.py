"""Batches of events as columns. Texts and addresses are numbers into a dictionary of distinct values.

A source may keep a dictionary over many batches: what the engine learned about a value is then known for
good. A code of -1 is a missing value, which no check satisfies (security-surface.md 2.6).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MISSING_CODE = -1
DICTIONARY_VALUES_LIMIT = 1 << 22
BATCH_EVENTS_LIMIT = 1 << 20

ColumnKey = tuple[str, str | None]


class DictionaryFullError(Exception):
    """A dictionary has DICTIONARY_VALUES_LIMIT values: the source must begin a new one."""


class Dictionary:
    """Distinct values in order of their first appearance. Append-only; one writer, many readers."""

    __slots__ = ("_codes", "values")

    def __init__(self, values: Iterable[Hashable] = ()) -> None:
        self.values: list[Any] = []
        self._codes: dict[Hashable, int] = {}
        for value in values:
            self.code(value)

    def __len__(self) -> int:
        return len(self.values)

    def code(self, value: Hashable) -> int:
        """The number of a value, a new one for a new value; None is MISSING_CODE."""
        if value is None:
            return MISSING_CODE
        known = self._codes.get(value)
        if known is None:
            if len(self.values) >= DICTIONARY_VALUES_LIMIT:
                raise DictionaryFullError(f"dictionary has {DICTIONARY_VALUES_LIMIT} values")
            known = self._codes[value] = len(self.values)
            self.values.append(value)
        return known

    def codes(self, values: Sequence[Hashable]) -> NDArray[np.int32]:
        """The numbers of many values, int32."""
        code = self.code
        return np.fromiter((code(value) for value in values), np.int32, len(values))


@dataclass(slots=True)
class Column:
    """One value an event: `codes` int32[n] into the dictionary."""

    codes: NDArray[np.int32]
    dictionary: Dictionary

    def value(self, row: int) -> Any:
        """The value of an event or None."""
        code = self.codes[row]
        return None if code < 0 else self.dictionary.values[code]

    def take(self, rows: NDArray[np.int64]) -> Column:
        """The column of some events."""
        return Column(self.codes[rows], self.dictionary)


@dataclass(slots=True)
class NumberColumn:
    """One number or truth value an event, of any integer dtype; `present` None means all are there."""

    values: NDArray[Any]
    present: NDArray[np.bool_] | None = None

    def value(self, row: int) -> Any:
        """The value of an event or None."""
        return None if self.present is not None and not self.present[row] else self.values[row].item()

    def take(self, rows: NDArray[np.int64]) -> NumberColumn:
        """The column of some events."""
        return NumberColumn(self.values[rows], None if self.present is None else self.present[rows])


@dataclass(slots=True)
class ListColumn:
    """Many values an event: those of event i are `codes[offsets[i]:offsets[i+1]]`. An empty list may be there
    or missing."""

    codes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    present: NDArray[np.bool_]
    dictionary: Dictionary

    def value(self, row: int) -> Any:
        """The values of an event as a tuple, or None."""
        if not self.present[row]:
            return None
        span = self.codes[self.offsets[row] : self.offsets[row + 1]]
        return tuple(self.dictionary.values[code] for code in span)

    def take(self, rows: NDArray[np.int64]) -> ListColumn:
        """The column of some events."""
        sizes = self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        return ListColumn(
            self.codes[np.repeat(self.offsets[rows], sizes) + within],
            offsets,
            self.present[rows],
            self.dictionary,
        )


AnyColumn = Column | NumberColumn | ListColumn


def text_column(values: Sequence[Hashable], dictionary: Dictionary | None = None) -> Column:
    """A column of values, None where missing."""
    dictionary = Dictionary() if dictionary is None else dictionary
    return Column(dictionary.codes(values), dictionary)


def list_column(
    values: Sequence[Sequence[Hashable] | None], dictionary: Dictionary | None = None
) -> ListColumn:
    """A column of lists, None where missing."""
    dictionary = Dictionary() if dictionary is None else dictionary
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([0 if value is None else len(value) for value in values], out=offsets[1:])
    flat = [part for value in values if value is not None for part in value]
    present = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return ListColumn(dictionary.codes(flat), offsets, present, dictionary)


@dataclass(slots=True)
class EventBatch:
    """Events of one source in order of time.

    `types` names each event's type, None for sources whose events have no types. `load` gives the column of
    a field at its first use, None for a field that no event has.
    """

    source: str
    times_ns: NDArray[np.int64]
    load: Callable[[ColumnKey], AnyColumn | None]
    types: Column | None = None
    first_number: int = 1
    hostname: str = ""
    plugin: str = ""
    columns: dict[ColumnKey, AnyColumn | None] = field(default_factory=dict)
    narrow: Callable[[NDArray[np.int64]], Callable[[ColumnKey], AnyColumn | None]] | None = None
    """Gives a loader for some rows, of a source that can make columns for less than the whole batch."""
    numbers: NDArray[np.int64] | None = None
    """Numbers of the events where they do not follow each other."""

    @property
    def count(self) -> int:
        """Number of events."""
        return len(self.times_ns)

    def take(self, rows: NDArray[np.int64]) -> EventBatch:
        """Some events as a batch of their own; columns are made for these only where the source can."""

        def cut(key: ColumnKey) -> AnyColumn | None:
            column = self.column(key)
            return column if column is None else column.take(rows)

        numbers = self.first_number + rows if self.numbers is None else self.numbers[rows]
        return EventBatch(
            self.source,
            self.times_ns[rows],
            cut if self.narrow is None else self.narrow(rows),
            None if self.types is None else self.types.take(rows),
            hostname=self.hostname,
            plugin=self.plugin,
            numbers=numbers,
        )

    def column(self, key: ColumnKey) -> AnyColumn | None:
        """The column of a field, None when no event has it."""
        if key not in self.columns:
            self.columns[key] = self._generic(key[0]) or self.load(key)
        return self.columns[key]

    def _generic(self, name: str) -> AnyColumn | None:
        if name == "evt.num":
            if self.numbers is not None:
                return NumberColumn(self.numbers)
            return NumberColumn(np.arange(self.first_number, self.first_number + self.count))
        if name in ("evt.rawtime", "jevt.rawtime.ns"):
            return NumberColumn(self.times_ns)
        if name == "evt.rawtime.s":
            return NumberColumn(self.times_ns // 1_000_000_000)
        if name == "evt.rawtime.ns":
            return NumberColumn(self.times_ns % 1_000_000_000)
        if name == "evt.type":
            return self.types
        constant = {"evt.source": self.source, "evt.hostname": self.hostname, "evt.pluginname": self.plugin}
        if constant.get(name):
            return Column(np.zeros(self.count, np.int32), Dictionary([constant[name]]))
        return None
