"""Limits of the store that a configuration may change; every error names the limit and its value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tsdb.blockcache import CACHE_BYTES
from tsdb.decodedruns import DECODED_BYTES
from tsdb.errors import InvalidLabelsError, LimitError, SeriesLimitError
from tsdb.labels import Labels
from tsdb.rollup import ROLLUP_LABEL, SeriesRetention, Tier


@dataclass(frozen=True, slots=True)
class Limits:
    """Zero means no limit; of `exemplars`, none. Errors name a limit as `storage.limits` of the configuration
    does."""

    active_series: int = 0
    labels_per_series: int = 1024
    label_name_bytes: int = 1 << 16
    label_value_bytes: int = 1 << 20
    exemplars: int = 100_000
    metadata_entries: int = 1_000_000

    def check_labels(self, labels: Labels) -> None:
        """Raise InvalidLabelsError or LimitError for a label set that must not be stored.

        `labels` is sorted and without empty values (the class's invariant); names must not repeat, texts must
        be encodable as UTF-8.
        """
        if not labels.pairs:
            raise InvalidLabelsError("empty labelset: invalid sample")
        if self.labels_per_series and len(labels.pairs) > self.labels_per_series:
            raise LimitError(
                f"{len(labels.pairs)} labels exceed the label_limit of {self.labels_per_series}: "
                f"{_short(labels)}"
            )
        last = None
        for name, value in labels.pairs:
            if name == last:
                raise InvalidLabelsError(f'label name "{name}" is not unique: invalid sample')
            if not name or (last is not None and name < last) or not value:
                raise InvalidLabelsError(f"labels are not sorted and non-empty: {_short(labels)}")
            if name == ROLLUP_LABEL:
                raise InvalidLabelsError(f"label {ROLLUP_LABEL} is reserved: {_short(labels)}")
            last = name
            self._check_text(name, self.label_name_bytes, "label name", "label_name_length_limit")
            what = f'value of label "{name}"'
            self._check_text(value, self.label_value_bytes, what, "label_value_length_limit")

    @staticmethod
    def _check_text(text: str, limit: int, what: str, limit_name: str) -> None:
        if text.isascii():
            size = len(text)
        else:
            try:
                size = len(text.encode())
            except UnicodeEncodeError as error:
                raise InvalidLabelsError(f"{what} is not valid UTF-8: {text!r}") from error
        if limit and size > limit:
            raise LimitError(f"{what} has {size} bytes, above the {limit_name} of {limit}: {text[:64]}")

    def check_series(self, active: int, new: int) -> None:
        """Raise SeriesLimitError where new series exceed the limit of active ones."""
        if self.active_series and active + new > self.active_series:
            raise SeriesLimitError(
                f"{active} active series and {new} new ones exceed the series_limit of {self.active_series}"
            )


def _short(labels: Labels) -> str:
    text = str(labels)
    return text if len(text) <= 200 else text[:200] + "..."


def describe(rows: Sequence[Labels], limit: int = 3) -> str:
    """The first few label sets, for an error."""
    return ", ".join(_short(row) for row in rows[:limit])


DAY_MS = 24 * 3600 * 1000
CHUNK_MEMORY_BYTES = 128 << 20
"""Three hours of 100,000 node-exporter series: these are written to the log and to a block, nowhere else."""


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How a store behaves; times in ms, 0 turns a retention off.

    `start_timestamps` stores start timestamps of samples (Prometheus's feature st-storage); without it they
    are dropped. `out_of_order_window_ms` 0 refuses samples older than the newest of their series, as
    Prometheus does by default. `wal_sync` is batch, interval or never. `block_range_ms` is the range of the
    smallest block, `cache_bytes` what decoded pieces of all blocks may take together, `decoded_bytes`
    what values that are read often may take besides, decoded. Sealed chunks of the head beyond
    `chunk_memory_bytes` are moved to files.
    """

    retention_ms: int = 15 * DAY_MS
    retention_bytes: int = 0
    retention_disk_percent: float = 0.0
    """Share of the disk that the store may take; stands in for `retention_bytes` where it is set."""
    out_of_order_window_ms: int = 3600 * 1000
    wal_sync: str = "batch"
    wal_segment_bytes: int = 128 << 20
    lock_file: bool = True
    block_range_ms: int = 2 * 3600 * 1000
    longest_block_ms: int = 0
    """Ranges that merges make at most; 0 is a tenth of the retention and at most 31 days."""
    background: bool = True
    snapshot_on_close: bool = True
    start_timestamps: bool = False
    cache_bytes: int = CACHE_BYTES
    decoded_bytes: int = DECODED_BYTES
    chunk_memory_bytes: int = CHUNK_MEMORY_BYTES
    limits: Limits = Limits()
    tiers: tuple[Tier, ...] = ()
    """Roll-ups (docs/rollups.md), the finest first; each resolution a multiple of the one before."""
    full_resolution_ms: int = 0
    """Age from which blocks of samples go when the first tier has them; 0 keeps them."""
    series_retention: tuple[SeriesRetention, ...] = ()
