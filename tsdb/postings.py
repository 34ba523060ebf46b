"""The head's inverted index: from label name and value to the refs of the series that carry the pair.

Pairs held by one series are a plain number; pairs held by several are roaring bitmaps. New series wait in a
list and are sorted in together, because a bitmap takes a thousand refs for little more than it takes one.
"""

from __future__ import annotations

import heapq
import threading
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from tsdb.labels import METRIC_NAME, Matcher, MatchType
from tsdb.matcherplan import resolve
from tsdb.regex import Regex, compile_regex
from tsdb.symbols import SymbolTable

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

PENDING_SERIES_LIMIT = 8192
"""Series that wait to be sorted in; a select sorts them in first."""

REGEX_CACHE_LIMIT = 512
"""Expressions whose matching values are remembered, over all labels."""


@dataclass(frozen=True, slots=True)
class Cardinality:
    """Figures of `/api/v1/status/tsdb`: pairs of a name and a number, largest first."""

    series_count: int
    label_pair_count: int
    label_name_count: int
    series_by_metric_name: list[tuple[str, int]]
    values_by_label_name: list[tuple[str, int]]
    memory_by_label_name: list[tuple[str, int]]
    series_by_label_pair: list[tuple[str, int]]


@dataclass(slots=True)
class _Label:
    """Values of one label name. `epoch` changes when values go, `generation` with every change."""

    values: dict[int, int | BitMap] = field(default_factory=dict)
    any: BitMap | None = None
    epoch: int = 0
    generation: int = 0


@dataclass(slots=True)
class _RegexMatches:
    """Values of a label that match, as far as they have been looked at."""

    epoch: int
    scanned: int
    matched: list[int]
    generation: int = -1
    unions: dict[bool, BitMap] = field(default_factory=dict)


class Postings:
    """One writer, many readers; the lock is held for set operations, not while values are matched."""

    def __init__(self, symbols: SymbolTable) -> None:
        self._symbols = symbols
        self._labels: dict[int, _Label] = {}
        self._all = BitMap()
        self._pending: list[tuple[int, U32Array, U32Array]] = []
        self._regexes: dict[tuple[str, int], _RegexMatches] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._all) + len(self._pending)

    def add(self, ref: int, name_ids: U32Array, value_ids: U32Array) -> None:
        """Add one series; the arrays are copied."""
        entry = (ref, np.array(name_ids, dtype=np.uint32), np.array(value_ids, dtype=np.uint32))
        with self._lock:
            self._pending.append(entry)
            if len(self._pending) >= PENDING_SERIES_LIMIT:
                self._flush()

    def add_many(self, refs: U32Array, offsets: I64Array, name_ids: U32Array, value_ids: U32Array) -> None:
        """Add N series whose pairs are `offsets[i] .. offsets[i+1]` of the id columns."""
        counts = np.diff(offsets)
        pairs = slice(int(offsets[0]), int(offsets[-1]))
        with self._lock:
            self._flush()
            self._all.update(_bitmap(refs))
            self._insert(np.repeat(refs, counts), name_ids[pairs], value_ids[pairs])

    def remove(self, refs: BitMap | U32Array) -> None:
        """Drop dead series. Their refs may be used again when this returns."""
        dead = refs if isinstance(refs, BitMap) else _bitmap(refs)
        with self._lock:
            self._flush()
            self._all -= dead
            for name in list(self._labels):
                self._remove_from(name, dead)

    def _remove_from(self, name: int, dead: BitMap) -> None:
        label = self._labels[name]
        gone: list[int] = []
        for value, entry in label.values.items():
            if isinstance(entry, int):
                if entry in dead:
                    gone.append(value)
            elif entry.intersect(dead):
                entry -= dead
                label.values[value] = entry
                if not entry:
                    gone.append(value)
        for value in gone:
            del label.values[value]
        if label.any is not None:
            label.any -= dead
        label.epoch += bool(gone)
        label.generation += 1
        if not label.values:
            del self._labels[name]
            for key in [key for key in self._regexes if key[1] == name]:
                del self._regexes[key]

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        refs = np.array([entry[0] for entry in pending], dtype=np.uint32)
        self._all.update(_bitmap(refs))
        counts = np.array([len(entry[1]) for entry in pending], dtype=np.int64)
        names = np.concatenate([entry[1] for entry in pending])
        values = np.concatenate([entry[2] for entry in pending])
        self._insert(np.repeat(refs, counts), names, values)

    def _insert(self, refs: U32Array, names: U32Array, values: U32Array) -> None:
        """Add ref refs[p] to the pair (names[p], values[p])."""
        if not len(refs):
            return
        keys = (names.astype(np.uint64) << np.uint64(32)) | values
        order = np.argsort(keys, kind="stable")
        keys, ordered = keys[order], refs[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        ends = np.append(starts[1:], len(keys))
        distinct = keys[starts]
        name_list = (distinct >> np.uint64(32)).tolist()
        value_list = (distinct & np.uint64(0xFFFFFFFF)).tolist()
        flat = array("I", ordered.tobytes())
        current, label = -1, _Label()
        for name, value, start, end in zip(
            name_list, value_list, starts.tolist(), ends.tolist(), strict=True
        ):
            if name != current:
                current, label = name, self._labels.setdefault(name, _Label())
                label.generation += 1
            entry = label.values.get(value)
            if entry is None:
                label.values[value] = flat[start] if end == start + 1 else BitMap(flat[start:end])
            elif isinstance(entry, int):
                label.values[value] = BitMap((entry, *flat[start:end]))
            else:
                entry.update(flat[start:end])
            if label.any is not None:
                label.any.update(flat[start:end])

    # What the planner asks; the lock is held.

    def all_refs(self) -> BitMap:
        """Every series; not to be changed."""
        return self._all

    def with_name(self, name: str) -> BitMap:
        """Series that have the label."""
        label = self._label(name)
        if label is None:
            return BitMap()
        if label.any is None:
            label.any = _union(list(label.values.values()))
        return label.any

    def with_value(self, name: str, value: str) -> BitMap:
        """Series with this value of the label."""
        label, symbol = self._label(name), self._symbols.find(value)
        if label is None or symbol is None:
            return BitMap()
        entry = label.values.get(symbol)
        if entry is None:
            return BitMap()
        return BitMap((entry,)) if isinstance(entry, int) else entry

    def with_regex(self, name: str, regex: Regex, matching: bool) -> BitMap:
        """Series that have the label with a value that matches (or does not)."""
        label = self._label(name)
        if label is None:
            return BitMap()
        known = self._scan(name, label, regex)
        if known.generation != label.generation:
            known.unions.clear()
            known.generation = label.generation
        found = known.unions.get(matching)
        if found is None:
            if matching:
                entries = [label.values[value] for value in known.matched]
            else:
                refused = set(known.matched)
                entries = [entry for value, entry in label.values.items() if value not in refused]
            found = known.unions[matching] = _union(entries)
        return found

    def value_count(self, name: str) -> int:
        """Distinct values of the label."""
        label = self._label(name)
        return len(label.values) if label is not None else 0

    def _label(self, name: str) -> _Label | None:
        symbol = self._symbols.find(name)
        return self._labels.get(symbol) if symbol is not None else None

    def _scan(self, name: str, label: _Label, regex: Regex) -> _RegexMatches:
        """Matching values of the label; looks only at values added since the last time."""
        symbol = self._symbols.find(name)
        assert symbol is not None
        key = (regex.pattern, symbol)
        known = self._regexes.pop(key, None)
        if known is None or known.epoch != label.epoch or known.scanned > len(label.values):
            known = _RegexMatches(label.epoch, 0, [])
        if known.scanned < len(label.values):
            fresh = list(label.values)[known.scanned :]
            texts = self._symbols.texts(fresh)
            matched = [*known.matched, *(fresh[i] for i in regex.matching(texts))]
            known = _RegexMatches(label.epoch, known.scanned + len(fresh), matched)
        self._regexes[key] = known
        if len(self._regexes) > REGEX_CACHE_LIMIT:
            del self._regexes[next(iter(self._regexes))]
        return known

    def _prescan(self, matchers: Sequence[Matcher]) -> None:
        """Match long value lists before the lock is taken, so that writers do not wait for it."""
        for matcher in matchers:
            if matcher.type not in (MatchType.REGEXP, MatchType.NOT_REGEXP):
                continue
            regex, symbol = compile_regex(matcher.value), self._symbols.find(matcher.name)
            if symbol is None or regex.literals() is not None or regex.matches_everything:
                continue
            with self._lock:
                label = self._labels.get(symbol)
                known = self._regexes.get((matcher.value, symbol))
                if label is None or (known is not None and known.epoch == label.epoch):
                    continue
                epoch, fresh = label.epoch, list(label.values)
            texts = self._symbols.texts(fresh)
            matched = [fresh[i] for i in regex.matching(texts)]
            with self._lock:
                if label.epoch == epoch and self._labels.get(symbol) is label:
                    self._regexes[matcher.value, symbol] = _RegexMatches(epoch, len(fresh), matched)

    # Reads

    def select_bitmap(self, matchers: Sequence[Matcher]) -> BitMap:
        """Refs of the series that satisfy every matcher (of all for none); the caller's own."""
        self._prescan(matchers)
        with self._lock:
            self._flush()
            return BitMap(resolve(self, matchers))

    def select(self, matchers: Sequence[Matcher]) -> U32Array:
        """Refs of the series that satisfy every matcher, u32 ascending. Raises InvalidRegexError."""
        self._prescan(matchers)
        with self._lock:
            self._flush()
            return np.frombuffer(resolve(self, matchers).to_array(), dtype=np.uint32)

    def label_names(self, refs: BitMap | U32Array | None = None) -> list[str]:
        """Sorted names of the labels of the series (of all for None)."""
        wanted = refs if refs is None or isinstance(refs, BitMap) else _bitmap(refs)
        with self._lock:
            self._flush()
            names = [n for n, label in self._labels.items() if wanted is None or _has(label, wanted)]
        return sorted(self._symbols.texts(names))

    def label_values(self, name: str, refs: BitMap | U32Array | None = None) -> list[str]:
        """Sorted values of one label over the series (over all for None)."""
        wanted = refs if refs is None or isinstance(refs, BitMap) else _bitmap(refs)
        with self._lock:
            self._flush()
            label = self._label(name)
            if label is None:
                return []
            values = [v for v, entry in label.values.items() if wanted is None or _meets(entry, wanted)]
        return sorted(self._symbols.texts(values))

    def cardinality(self, limit: int = 10) -> Cardinality:
        """The largest `limit` of each kind."""
        text = self._symbols.text
        with self._lock:
            self._flush()
            metrics: list[tuple[str, int]] = []
            value_counts: list[tuple[str, int]] = []
            sizes: list[tuple[str, int]] = []
            pairs: list[tuple[int, int, int]] = []
            for name, label in self._labels.items():
                counts = [(v, 1 if isinstance(e, int) else len(e)) for v, e in label.values.items()]
                value_counts.append((text(name), len(counts)))
                sizes.append((text(name), sum(len(text(v).encode()) * c for v, c in counts)))
                top = heapq.nlargest(limit, counts, key=lambda pair: pair[1])
                pairs.extend((count, name, value) for value, count in top)
                if text(name) == METRIC_NAME:
                    metrics = [(text(value), count) for value, count in top]
            return Cardinality(
                series_count=len(self._all),
                label_pair_count=sum(count for _, count in value_counts),
                label_name_count=len(self._labels),
                series_by_metric_name=metrics,
                values_by_label_name=heapq.nlargest(limit, value_counts, key=lambda pair: pair[1]),
                memory_by_label_name=heapq.nlargest(limit, sizes, key=lambda pair: pair[1]),
                series_by_label_pair=[
                    (f"{text(name)}={text(value)}", count)
                    for count, name, value in heapq.nlargest(limit, pairs)
                ],
            )


def _bitmap(refs: U32Array) -> BitMap:
    return BitMap(array("I", np.asarray(refs, dtype=np.uint32).tobytes()))


def _union(entries: Sequence[int | BitMap]) -> BitMap:
    singles = BitMap([entry for entry in entries if isinstance(entry, int)])
    return BitMap.union(singles, *(entry for entry in entries if not isinstance(entry, int)))


def _meets(entry: int | BitMap, wanted: BitMap) -> bool:
    return entry in wanted if isinstance(entry, int) else bool(entry.intersect(wanted))


def _has(label: _Label, wanted: BitMap) -> bool:
    if label.any is not None:
        return bool(label.any.intersect(wanted))
    return any(_meets(entry, wanted) for entry in label.values.values())
