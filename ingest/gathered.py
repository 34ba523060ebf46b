"""Samples that a collector gathers at one moment, and their way into the store.

For everything that is read rather than scraped: host metrics, container metrics, StatsD. A collector adds
values under a family; the writer keeps the refs of the label sets, marks as stale what is not gathered any
more, and hands over one `WriteBatch` a collection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tsdb.columns import Appender, AppendResult, Metadata, Rejected, SampleColumns, WriteBatch
from tsdb.errors import InvalidLabelsError, LimitError
from tsdb.labels import METRIC_NAME, Labels
from tsdb.select import STALE_BITS

SERIES_COUNT_LIMIT = 200_000
"""Series of one collection; what comes after is refused and counted."""

SeriesKey = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Metric name, label names, label values."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric family: `type` as in the exposition format (`unknown` for untyped), label names in order."""

    name: str
    type: str
    help: str
    label_names: tuple[str, ...] = ()


def counter(name: str, text: str, *label_names: str) -> Family:
    """A family of counters."""
    return Family(name, "counter", text, label_names)


def gauge(name: str, text: str, *label_names: str) -> Family:
    """A family of gauges."""
    return Family(name, "gauge", text, label_names)


def untyped(name: str, text: str, *label_names: str) -> Family:
    """A family without a type."""
    return Family(name, "unknown", text, label_names)


class Gathered:
    """What one collection found; the first value of a series counts. One thread at a time."""

    def __init__(self, series_limit: int = SERIES_COUNT_LIMIT) -> None:
        self.values: dict[SeriesKey, float] = {}
        self.families: dict[str, Family] = {}
        self.over_limit_count = 0
        self._series_limit = series_limit

    def add(self, family: Family, value: float, *label_values: str) -> None:
        """Add the value of one series; `label_values` in the order of the family's label names."""
        if len(label_values) != len(family.label_names):
            raise ValueError(f"{family.name} has labels {family.label_names}, not {len(label_values)} values")
        self.add_series(family, value, (family.name, family.label_names, label_values))

    def add_series(self, family: Family, value: float, key: SeriesKey) -> None:
        """Add a series whose name (`_sum`, `_count`) or labels are not just the family's."""
        if len(self.values) >= self._series_limit:
            self.over_limit_count += 1
            return
        self.families.setdefault(family.name, family)
        self.values.setdefault(key, float(value))

    def labelled(self) -> Iterable[tuple[Labels, float]]:
        """Label sets with their values, for tests and for showing."""
        for key, value in self.values.items():
            yield series_labels(key, {}), value


@dataclass(frozen=True, slots=True)
class Written:
    """Counts of samples of one write. `result` is None when there was nothing to write."""

    stored_count: int = 0
    refused_count: int = 0
    stale_count: int = 0
    result: AppendResult | None = None


def series_labels(key: SeriesKey, added: Mapping[str, str]) -> Labels:
    """The label set of a key; `added` labels give way to the series' own."""
    name, label_names, label_values = key
    pairs = {label: _encodable(value) for label, value in zip(label_names, label_values, strict=True)}
    return Labels.from_dict({**added, **pairs, METRIC_NAME: name})


class GatheredWriter:
    """Writes collections of one source. One thread at a time.

    `added` labels (such as job and instance) are set on every series. A series of the last collection that
    is missing in this one gets a stale marker, at a later write if this one fails.
    """

    def __init__(self, appender: Appender, added: Mapping[str, str] | None = None) -> None:
        self._appender = appender
        self._added = dict(added or {})
        self._refs: dict[SeriesKey, int] = {}
        self._keys: list[SeriesKey] = []
        self._ref_column: npt.NDArray[np.uint32] = np.empty(0, np.uint32)
        self._described: dict[str, Family] = {}
        self._vanished: dict[SeriesKey, int] = {}

    def write(self, gathered: Gathered, t_ms: int, *, now_ms: int | None = None) -> Written:
        """Store a collection at `t_ms`. Raises StorageError when nothing could be stored."""
        refused = gathered.over_limit_count
        if (keys := list(gathered.values)) == self._keys:
            refs, values = self._ref_column, list(gathered.values.values())
        else:
            refused += self._find_refs(keys)
            known = [key for key in keys if key in self._refs]
            refs = np.fromiter((self._refs[key] for key in known), np.uint32, len(known))
            values = [gathered.values[key] for key in known]
            self._vanished.update(
                (key, self._refs.pop(key)) for key in self._keys if key not in gathered.values
            )
            self._keys, self._ref_column = known, refs
        vanished = [ref for key, ref in self._vanished.items() if key not in gathered.values]
        metadata = self._new_metadata(gathered.families)
        result = self._append(refs, values, vanished, t_ms, metadata, now_ms)
        self._vanished.clear()
        self._described.update((entry.family, gathered.families[entry.family]) for entry in metadata)
        if result is None:
            return Written(refused_count=refused)
        rejected = int(np.count_nonzero(result.codes))
        unknown = self._forget_unknown(result, refs)
        if unknown:
            return self._write_again(gathered, unknown, t_ms, now_ms, refused + rejected - len(unknown))
        return Written(len(values), refused + rejected, len(vanished), result)

    def end(self, t_ms: int, *, now_ms: int | None = None) -> Written:
        """Stale markers for every series, as when a target goes away."""
        return self.write(Gathered(), t_ms, now_ms=now_ms)

    def _append(
        self,
        refs: npt.NDArray[np.uint32],
        values: Sequence[float],
        vanished: Sequence[int],
        t_ms: int,
        metadata: Sequence[Metadata],
        now_ms: int | None,
    ) -> AppendResult | None:
        count = len(refs) + len(vanished)
        if not count:
            return None
        column = np.empty(count, np.float64)
        column[: len(refs)] = values
        column.view(np.uint64)[len(refs) :] = STALE_BITS
        all_refs = np.concatenate([refs, np.array(vanished, np.uint32)]) if vanished else refs
        samples = SampleColumns(all_refs, np.full(count, t_ms, np.int64), column)
        return self._appender.append(WriteBatch(samples=samples, metadata=metadata), now_ms=now_ms)

    def _find_refs(self, keys: Sequence[SeriesKey]) -> int:
        """Look up what is not known; the count of series that the store refuses."""
        new = [key for key in keys if key not in self._refs]
        rows = [series_labels(key, self._added) for key in new]
        try:
            self._refs.update(zip(new, self._appender.refs(rows).tolist(), strict=True))
            return 0
        except (InvalidLabelsError, LimitError):
            return sum(not self._find_one(key, row) for key, row in zip(new, rows, strict=True))

    def _find_one(self, key: SeriesKey, row: Labels) -> bool:
        try:
            self._refs[key] = int(self._appender.refs([row])[0])
        except (InvalidLabelsError, LimitError):
            return False
        return True

    def _forget_unknown(self, result: AppendResult, refs: npt.NDArray[np.uint32]) -> list[SeriesKey]:
        """Keys whose refs the store has collected since; they are looked up anew at the next write."""
        positions = np.flatnonzero(result.codes[: len(refs)] == Rejected.UNKNOWN_SERIES)
        unknown = [self._keys[position] for position in positions.tolist()]
        for key in unknown:
            del self._refs[key]
        return unknown

    def _write_again(
        self, gathered: Gathered, unknown: Sequence[SeriesKey], t_ms: int, now_ms: int | None, refused: int
    ) -> Written:
        refused += self._find_refs(unknown)
        found = [key for key in unknown if key in self._refs]
        refs = np.fromiter((self._refs[key] for key in found), np.uint32, len(found))
        result = self._append(refs, [gathered.values[key] for key in found], (), t_ms, (), now_ms)
        self._keys = [key for key in self._keys if key in self._refs]
        self._ref_column = np.fromiter((self._refs[key] for key in self._keys), np.uint32, len(self._keys))
        rejected = 0 if result is None else int(np.count_nonzero(result.codes))
        return Written(len(self._keys) - rejected, refused + rejected, 0, result)

    def _new_metadata(self, families: Mapping[str, Family]) -> list[Metadata]:
        new = [family for name, family in families.items() if self._described.get(name) != family]
        return [Metadata(f.name, f.type, f.help, "") for f in new]


def _encodable(text: str) -> str:
    """Lone surrogates, which undecodable bytes become, are shown as replacement characters."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
