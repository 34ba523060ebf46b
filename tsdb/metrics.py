"""The store's own metrics under Prometheus's names (prometheus-surface.md 10.2 and 10.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from tsdb.blockcache import BlockCache

if TYPE_CHECKING:
    from tsdb.database import Database

_P = "prometheus_tsdb_"


class StorageMetrics:
    """Counters that the parts of the store move; gauges that look at the database when scraped.

    Names of counters are given without `_total`, which the client adds.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._make_sample_counters()
        self._make_head_counters()
        self._make_block_counters()
        self._make_log_counters()

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(_P + name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(_P + name, text, registry=self._registry)

    def _summary(self, name: str, text: str) -> Summary:
        return Summary(_P + name, text, registry=self._registry)

    def _make_sample_counters(self) -> None:
        counter = self._counter
        appended = counter("head_samples_appended", "Total number of appended samples.", ("type",))
        self.floats_appended = appended.labels("float")
        self.histograms_appended = appended.labels("histogram")
        late = counter("head_out_of_order_samples_appended", "Appended out of order samples.", ("type",))
        self.late_floats_appended = late.labels("float")
        self.late_histograms_appended = late.labels("histogram")
        self.out_of_order = counter(
            "out_of_order_samples", "Samples refused because they were out of order.", ("type",)
        )
        self.out_of_bounds = counter(
            "out_of_bound_samples", "Samples refused because they were out of bounds.", ("type",)
        )
        self.too_old = counter(
            "too_old_samples", "Samples refused because they were too old for the window.", ("type",)
        )
        self.duplicates = Counter(
            "vedette_tsdb_duplicate_samples",
            "Samples refused because their timestamp had another value.",
            registry=self._registry,
        )

    def _make_head_counters(self) -> None:
        counter = self._counter
        self.series_created = counter("head_series_created", "Series created in the head.")
        self.series_removed = counter("head_series_removed", "Series removed from the head.")
        self.chunks_created = counter("head_chunks_created", "Chunks sealed in the head.")
        self.chunks_removed = counter("head_chunks_removed", "Chunks removed from the head.")
        self.late_delta = Histogram(
            _P + "sample_ooo_delta",
            "How far, in seconds, the oldest late sample of a batch lies behind the head's newest.",
            buckets=[600, 1800, 3600, 7200, 10800, 21600, 43200],
            registry=self._registry,
        )
        self.series_not_found = counter("head_series_not_found", "Refs that named no series.")
        self.truncations = counter("head_truncations", "Head truncations attempted.")
        self.truncations_failed = counter("head_truncations_failed", "Head truncations that failed.")
        self.gc_duration = self._summary("head_gc_duration_seconds", "Duration of head truncations.")

    def _make_block_counters(self) -> None:
        counter = self._counter
        self.compactions = counter("compactions", "Compactions that were executed.")
        self.compactions_triggered = counter("compactions_triggered", "Compaction rounds.")
        self.compactions_failed = counter("compactions_failed", "Compactions that failed.")
        self.vertical_compactions = counter("vertical_compactions", "Compactions of overlapping blocks.")
        self.compaction_duration = Histogram(
            _P + "compaction_duration_seconds",
            "Duration of compaction runs.",
            buckets=[2.0**i for i in range(14)],
            registry=self._registry,
        )
        self.reloads = counter("reloads", "Times the store reloaded its blocks.")
        self.reloads_failed = counter("reloads_failures", "Block reloads that failed.")
        self.time_retentions = counter("time_retentions", "Blocks deleted for their age.")
        self.size_retentions = counter("size_retentions", "Blocks deleted for the store's size.")

        self.rollup_samples = Counter(
            "vedette_tsdb_rolled_up_samples",
            "Samples and finer windows that were rolled up, by resolution in seconds.",
            ("resolution",),
            registry=self._registry,
        )
        self.rollup_blocks_deleted = Counter(
            "vedette_tsdb_rollup_superseded_blocks",
            "Blocks deleted because a coarser tier has their samples or their tier's retention is over.",
            registry=self._registry,
        )
        self.rollup_selects = Counter(
            "vedette_tsdb_rollup_selects",
            "Selects in which roll-ups stood in for samples, exactly or because samples are gone.",
            ("reason",),
            registry=self._registry,
        )
        for reason in ("exact", "gone"):
            self.rollup_selects.labels(reason)

    def _make_log_counters(self) -> None:
        counter, summary = self._counter, self._summary
        self.checkpoint_creations = counter("checkpoint_creations", "Checkpoints attempted.")
        self.checkpoint_creations_failed = counter("checkpoint_creations_failed", "Checkpoints that failed.")
        self.checkpoint_deletions = counter("checkpoint_deletions", "Checkpoint deletions attempted.")
        self.checkpoint_deletions_failed = counter(
            "checkpoint_deletions_failed", "Checkpoint deletions that failed."
        )
        self.wal_corruptions = counter("wal_corruptions", "Damages found in the write-ahead log.")
        self.wal_truncations = counter("wal_truncations", "Truncations of the log attempted.")
        self.wal_truncations_failed = counter("wal_truncations_failed", "Truncations of the log that failed.")
        self.wal_truncate_duration = summary("wal_truncate_duration_seconds", "Duration of log truncations.")
        self.wal_fsync_duration = summary("wal_fsync_duration_seconds", "Duration of log syncs.")
        self.wal_completed_pages = counter("wal_completed_pages", "Groups of records written to the log.")
        self.wal_page_flushes = counter("wal_page_flushes", "Writes to the log.")
        self.wal_writes_failed = counter("wal_writes_failed", "Log writes that failed.")
        self.wal_segment = self._gauge("wal_segment_current", "Segment the log is writing to.")
        self.wal_record_bytes = Counter(
            "vedette_tsdb_wal_written_bytes", "Bytes written to the log.", registry=self._registry
        )
        self.quarantined = Counter(
            "vedette_tsdb_quarantined_files",
            "Damaged files that were set aside instead of deleted.",
            ("kind",),
            registry=self._registry,
        )
        self.clean_start = self._gauge(
            "clean_start", "1 if the store was closed cleanly before this start, else 0."
        )
        self.replay_duration = self._gauge(
            "data_replay_duration_seconds", "Time the replay took at the start."
        )
        self.tombstone_cleanup = Histogram(
            _P + "tombstone_cleanup_seconds",
            "Time to rewrite blocks without deleted data.",
            registry=self._registry,
        )
        self.exemplars_appended = counter("exemplar_exemplars_appended", "Exemplars stored.")
        self.exemplars_out_of_order = counter(
            "exemplar_out_of_order_exemplars", "Exemplars refused because they were out of order."
        )

    # What the log reports (wal.WalObserver).

    def fsync(self, seconds: float) -> None:
        """A sync took this long."""
        self.wal_fsync_duration.observe(seconds)

    def written(self, size: int) -> None:
        """A group of records was written."""
        self.wal_page_flushes.inc()
        self.wal_record_bytes.inc(size)

    def write_failed(self) -> None:
        """A write failed."""
        self.wal_writes_failed.inc()

    def segment(self, number: int) -> None:
        """A segment was begun."""
        self.wal_segment.set(number)

    def watch(self, database: Database) -> None:
        """Register the gauges that read the database."""
        head = database.head

        def gauge(name: str, text: str, read: Callable[[], float]) -> None:
            Gauge(_P + name, text, registry=self._registry).set_function(read)

        def time_or_zero(value: int) -> float:
            return float(value) if abs(value) < 1 << 62 else 0.0

        gauge("head_series", "Series in the head.", lambda: head.series.series_count)
        gauge("head_chunks", "Chunks in the head.", head.chunk_count)
        gauge("head_min_time", "Oldest time in the head, ms.", lambda: time_or_zero(head.min_time))
        gauge("head_max_time", "Newest time in the head, ms.", lambda: time_or_zero(head.max_time))
        gauge("head_min_time_seconds", "Oldest time in the head.", lambda: time_or_zero(head.min_time) / 1000)
        gauge("head_max_time_seconds", "Newest time in the head.", lambda: time_or_zero(head.max_time) / 1000)
        gauge(
            "head_chunks_storage_size_bytes", "Bytes of sealed chunks in the head.", head.chunk_storage_bytes
        )
        gauge("head_native_histogram_series", "Series with native histograms.", head.histogram_series_count)
        gauge("head_stale_series", "Series whose newest sample is a stale marker.", head.stale_series_count)
        gauge("head_active_appenders", "Appends running.", lambda: database.appender().active)
        self._watch_cache("block", "decoded pieces of blocks", database.block_set.cache)
        self._watch_cache("decoded", "values that are read often", database.block_set.decoded.cache)
        gauge("blocks_loaded", "Blocks in the store.", lambda: len(database.blocks()))
        damaged = Gauge(
            "vedette_tsdb_damaged_blocks",
            "Blocks that are served although damage was found in them.",
            registry=self._registry,
        )
        damaged.set_function(database.block_set.damaged_count)
        gauge("storage_blocks_bytes", "Bytes of all blocks.", database.block_bytes)
        gauge("wal_storage_size_bytes", "Bytes of the log.", database.wal_bytes)
        gauge("symbol_table_size_bytes", "Bytes of interned label texts.", database.symbol_bytes)
        gauge("lowest_timestamp", "Oldest time in the store, ms.", lambda: time_or_zero(database.min_time()))
        gauge(
            "lowest_timestamp_seconds",
            "Oldest time in the store.",
            lambda: time_or_zero(database.min_time()) / 1000,
        )
        gauge("retention_limit_bytes", "Limit of the store's size.", lambda: database.options.retention_bytes)
        gauge(
            "retention_limit_seconds",
            "Limit of the data's age.",
            lambda: database.options.retention_ms / 1000,
        )
        gauge("exemplar_exemplars_in_storage", "Exemplars held.", lambda: len(database.exemplar_store))
        gauge("exemplar_max_exemplars", "Limit of exemplars.", lambda: database.exemplar_store.limit)
        # Batches become visible whole, under one lock: the oldest one being read is the newest stored.
        gauge("isolation_low_watermark", "Batches stored.", lambda: database.appender().batches)
        gauge("isolation_high_watermark", "Batches stored.", lambda: database.appender().batches)

    def _watch_cache(self, kind: str, what: str, cache: BlockCache) -> None:
        """Figures of a cache: "vedette_tsdb_<kind>_cache_..." of `what` it has."""
        prefix, registry = f"vedette_tsdb_{kind}_cache_", self._registry
        used = Gauge(prefix + "bytes", f"Bytes of {what}.", registry=registry)
        used.set_function(lambda: cache.used)
        limit = Gauge(prefix + "limit_bytes", f"Most bytes of {what}.", registry=registry)
        limit.set_function(lambda: cache.limit)
        for name, text, read in (
            ("hits", "What was asked for and was in the cache", lambda: cache.hits),
            ("misses", "What had to be decoded", lambda: cache.misses),
            ("evictions", "What was dropped for others", lambda: cache.evictions),
        ):
            registry.register(_Figure(prefix + name, f"{text}: {what}.", read))


class _Figure(Collector):
    """A counter that somebody else counts."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self._name, self._text, self._read = name, text, read

    def collect(self) -> Iterator[Metric]:
        """One family with one sample."""
        yield CounterMetricFamily(self._name, self._text, value=self._read())
