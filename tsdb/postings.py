"""The head's inverted index: from label name and value to the refs of the series that carry the pair.

What a label's values hold is in tsdb/labelvalues.py. New series wait in a list and are sorted in together,
because a bitmap takes a thousand refs for little more than it takes one.
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
from tsdb.labelvalues import LabelValues, as_bitmap
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
class _RegexMatches:
    """Values of a label that match, as far as they have been looked at."""

    epoch: int
    scanned: int
    matched: array[int]
    generation: int = -1
    unions: dict[bool, BitMap] = field(default_factory=dict)


class Postings:
    """One writer, many readers; the lock is held for set operations, not while values are matched."""

    def __init__(self, symbols: SymbolTable) -> None:
        self._symbols = symbols
        self._labels: dict[int, LabelValues] = {}
        self._all = BitMap()
        self._pending: list[tuple[int, U32Array, U32Array]] = []
        self._regexes: dict[tuple[str, int], _RegexMatches] = {}
        self.lock = threading.RLock()
        self.generation = 0
        """Counts every change, before it is seen."""

    def __len__(self) -> int:
        with self.lock:
            return len(self._all) + len(self._pending)

    def add(self, ref: int, name_ids: U32Array, value_ids: U32Array) -> None:
        """Add one series; the arrays are copied."""
        entry = (ref, np.array(name_ids, dtype=np.uint32), np.array(value_ids, dtype=np.uint32))
        with self.lock:
            self.generation += 1
            self._pending.append(entry)
            if len(self._pending) >= PENDING_SERIES_LIMIT:
                self._flush()

    def add_many(self, refs: U32Array, offsets: I64Array, name_ids: U32Array, value_ids: U32Array) -> None:
        """Add N series whose pairs are `offsets[i] .. offsets[i+1]` of the id columns."""
        counts = np.diff(offsets)
        pairs = slice(int(offsets[0]), int(offsets[-1]))
        with self.lock:
            self.generation += 1
            self._flush()
            self._all.update(as_bitmap(refs))
            self._insert(np.repeat(refs, counts), name_ids[pairs], value_ids[pairs])

    def remove(self, refs: BitMap | U32Array) -> None:
        """Drop dead series. Their refs may be used again when this returns."""
        dead = refs if isinstance(refs, BitMap) else as_bitmap(refs)
        with self.lock:
            self.generation += 1
            self._flush()
            self._all -= dead
            for name in list(self._labels):
                self._remove_from(name, dead)

    def _remove_from(self, name: int, dead: BitMap) -> None:
        label = self._labels[name]
        label.remove(dead)
        if not len(label):
            del self._labels[name]
            for key in [key for key in self._regexes if key[1] == name]:
                del self._regexes[key]

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if not pending:
            return
        refs = np.array([entry[0] for entry in pending], dtype=np.uint32)
        self._all.update(as_bitmap(refs))
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
        current, label = -1, LabelValues()
        for name, value, start, end in zip(
            name_list, value_list, starts.tolist(), ends.tolist(), strict=True
        ):
            if name != current:
                current, label = name, self._labels.setdefault(name, LabelValues())
                label.generation += 1
            label.add(value, flat[start:end])
            if label.any is not None:
                label.any.update(flat[start:end])

    # What the planner asks; the lock is held.

    def all_refs(self) -> BitMap:
        """Every series; not to be changed."""
        return self._all

    def with_name(self, name: str) -> BitMap:
        """Series that have the label."""
        label = self._label(name)
        return BitMap() if label is None else label.all()

    def with_value(self, name: str, value: str) -> BitMap:
        """Series with this value of the label."""
        label, symbol = self._label(name), self._symbols.find(value)
        if label is None or symbol is None:
            return BitMap()
        return label.of(symbol)

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
            found = label.union(known.matched)
            if not matching:
                found = label.all() - found
            known.unions[matching] = found
        return found

    def value_count(self, name: str) -> int:
        """Distinct values of the label."""
        label = self._label(name)
        return len(label) if label is not None else 0

    def _label(self, name: str) -> LabelValues | None:
        symbol = self._symbols.find(name)
        return self._labels.get(symbol) if symbol is not None else None

    def _scan(self, name: str, label: LabelValues, regex: Regex) -> _RegexMatches:
        """Matching values of the label; looks only at values added since the last time."""
        symbol = self._symbols.find(name)
        assert symbol is not None
        key = (regex.pattern, symbol)
        known = self._regexes.pop(key, None)
        if known is None or known.epoch != label.epoch or known.scanned > len(label):
            known = _RegexMatches(label.epoch, 0, array("I"))
        if known.scanned < len(label):
            fresh = label.order[known.scanned :]
            texts = self._symbols.texts(fresh)
            matched = known.matched + array("I", [fresh[i] for i in regex.matching(texts)])
            known = _RegexMatches(label.epoch, known.scanned + len(fresh), matched)
        self._regexes[key] = known
        if len(self._regexes) > REGEX_CACHE_LIMIT:
            del self._regexes[next(iter(self._regexes))]
        return known

    def has_scanned(self, matchers: Sequence[Matcher]) -> bool:
        """Whether the values of regular expressions among them are known already; the lock is held."""
        for matcher in matchers:
            if matcher.type not in (MatchType.REGEXP, MatchType.NOT_REGEXP):
                continue
            regex, label = compile_regex(matcher.value), self._label(matcher.name)
            if label is None or regex.literals() is not None or regex.matches_everything:
                continue
            known = self._regexes.get((matcher.value, self._symbols.find(matcher.name) or 0))
            if known is None or known.epoch != label.epoch or known.scanned < len(label):
                return False
        return True

    def _prescan(self, matchers: Sequence[Matcher]) -> None:
        """Match long value lists before the lock is taken, so that writers do not wait for it."""
        for matcher in matchers:
            if matcher.type not in (MatchType.REGEXP, MatchType.NOT_REGEXP):
                continue
            regex, symbol = compile_regex(matcher.value), self._symbols.find(matcher.name)
            if symbol is None or regex.literals() is not None or regex.matches_everything:
                continue
            with self.lock:
                label = self._labels.get(symbol)
                known = self._regexes.get((matcher.value, symbol))
                if label is None or (known is not None and known.epoch == label.epoch):
                    continue
                epoch, fresh = label.epoch, label.order[:]
            texts = self._symbols.texts(fresh)
            matched = array("I", [fresh[i] for i in regex.matching(texts)])
            with self.lock:
                if label.epoch == epoch and self._labels.get(symbol) is label:
                    self._regexes[matcher.value, symbol] = _RegexMatches(epoch, len(fresh), matched)

    # Reads

    def select_bitmap(self, matchers: Sequence[Matcher]) -> BitMap:
        """Refs of the series that satisfy every matcher (of all for none); the caller's own."""
        self._prescan(matchers)
        with self.lock:
            self._flush()
            return BitMap(resolve(self, matchers))

    def select(self, matchers: Sequence[Matcher]) -> U32Array:
        """Refs of the series that satisfy every matcher, u32 ascending. Raises InvalidRegexError."""
        self._prescan(matchers)
        with self.lock:
            self._flush()
            return np.frombuffer(resolve(self, matchers).to_array(), dtype=np.uint32)

    def label_names(self, refs: BitMap | U32Array | None = None) -> list[str]:
        """Sorted names of the labels of the series (of all for None)."""
        wanted = refs if refs is None or isinstance(refs, BitMap) else as_bitmap(refs)
        with self.lock:
            self._flush()
            names = [n for n, label in self._labels.items() if wanted is None or label.meets(wanted)]
        return sorted(self._symbols.texts(names))

    def label_values(self, name: str, refs: BitMap | U32Array | None = None) -> list[str]:
        """Sorted values of one label over the series (over all for None)."""
        wanted = refs if refs is None or isinstance(refs, BitMap) else as_bitmap(refs)
        with self.lock:
            self._flush()
            label = self._label(name)
            if label is None:
                return []
            values = label.order[:] if wanted is None else label.meeting(wanted)
        return sorted(self._symbols.texts(values))

    def cardinality(self, limit: int = 10) -> Cardinality:
        """The largest `limit` of each kind."""
        text = self._symbols.text
        with self.lock:
            self._flush()
            metrics: list[tuple[str, int]] = []
            value_counts: list[tuple[str, int]] = []
            sizes: list[tuple[str, int]] = []
            pairs: list[tuple[int, int, int]] = []
            for name, label in self._labels.items():
                values, held = label.counts()
                value_counts.append((text(name), len(label)))
                sizes.append((text(name), int((self._symbols.byte_lengths(values) * held).sum())))
                largest = np.argsort(-held, kind="stable")[:limit]
                top = list(zip(values[largest].tolist(), held[largest].tolist(), strict=True))
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
