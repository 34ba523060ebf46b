"""From flags and configuration to the options of the store and of the query engine."""

from __future__ import annotations

from typing import TypedDict

from cli import flagtypes
from cli.flags import ServeFlags
from ingest.config.document import LoadedConfig
from ingest.config.durations import ByteSize, Duration
from promql.options import EngineOptions
from tsdb.limits import Limits, StorageOptions
from tsdb.rollup import SeriesRetention, Tier

_RETENTION_DEFAULT = "15d"


class _RollupOptions(TypedDict, total=False):
    tiers: tuple[Tier, ...]
    full_resolution_ms: int
    series_retention: tuple[SeriesRetention, ...]


def _retention(flags: ServeFlags, config: LoadedConfig) -> tuple[str, str]:
    """Retention by time and by size as texts, "" or "0" for none; the file overrides the flags."""
    time_text, size_text = flags["storage.tsdb.retention.time"], flags["storage.tsdb.retention.size"]
    tsdb = config.config.storage.tsdb
    if tsdb is not None and tsdb.retention is not None:
        time_text = str(tsdb.retention.time) if tsdb.retention.time else time_text
        size_text = str(tsdb.retention.size) if tsdb.retention.size else size_text
    if not time_text and size_text == "0" and not _disk_percent(config):
        time_text = _RETENTION_DEFAULT
    return time_text or "0", size_text


def _disk_percent(config: LoadedConfig) -> float:
    tsdb = config.config.storage.tsdb
    return tsdb.retention.percentage if tsdb is not None and tsdb.retention is not None else 0.0


def retention_text(flags: ServeFlags, config: LoadedConfig) -> str:
    """What /status/runtimeinfo says, in Prometheus's spelling, e.g. `15d or 512MiB`."""
    time_text, size_text = _retention(flags, config)
    percent = _disk_percent(config)
    texts = []
    if flagtypes.parse_duration_ms(time_text):
        texts.append(str(Duration.parse(time_text)))
    if percent:
        texts.append(f"{percent:g}%")
    elif flagtypes.parse_size_bytes(size_text):
        texts.append(str(ByteSize.parse(size_text)))
    return " or ".join(texts)


def storage_options(flags: ServeFlags, config: LoadedConfig) -> StorageOptions:
    """Options of the store."""
    time_text, size_text = _retention(flags, config)
    return StorageOptions(
        retention_ms=flagtypes.parse_duration_ms(time_text),
        retention_bytes=flagtypes.parse_size_bytes(size_text),
        retention_disk_percent=_disk_percent(config),
        out_of_order_window_ms=_out_of_order_window_ms(flags, config),
        block_range_ms=flags.duration_ms("storage.tsdb.min-block-duration"),
        longest_block_ms=flags.duration_ms("storage.tsdb.max-block-duration"),
        wal_sync=flags["storage.wal.sync"],
        wal_segment_bytes=flags.size_bytes("storage.tsdb.wal-segment-size"),
        start_timestamps="st-storage" in flags.features(),
        lock_file=not flags["storage.tsdb.no-lockfile"],
        limits=_limits(config),
        **_rollup_options(config),
    )


def _limits(config: LoadedConfig) -> Limits:
    storage = config.config.storage
    exemplars = Limits().exemplars if storage.exemplars is None else storage.exemplars.max_exemplars
    if storage.limits is None:
        return Limits(exemplars=exemplars)
    return Limits(
        active_series=storage.limits.series_limit,
        labels_per_series=storage.limits.label_limit,
        label_name_bytes=storage.limits.label_name_length_limit,
        label_value_bytes=storage.limits.label_value_length_limit,
        exemplars=exemplars,
    )


def _out_of_order_window_ms(flags: ServeFlags, config: LoadedConfig) -> int:
    """The window of the configuration file where it names one, else that of the flag."""
    tsdb = config.config.storage.tsdb
    if tsdb is not None and "out_of_order_time_window" in tsdb.model_fields_set:
        return int(tsdb.out_of_order_time_window)
    return flags.duration_ms("storage.tsdb.out-of-order-time-window")


def _rollup_options(config: LoadedConfig) -> _RollupOptions:
    """Tiers of roll-ups and what they replace."""
    tsdb = config.config.storage.tsdb
    if tsdb is None:
        return {}
    tiers = tuple(Tier(tier.after, tier.resolution, tier.retention) for tier in tsdb.downsample)
    kept = tsdb.retention
    if kept is None:
        return {"tiers": tiers}
    series = tuple(SeriesRetention(tuple(rule.match.items()), rule.time) for rule in kept.series)
    return {"tiers": tiers, "full_resolution_ms": kept.full_resolution, "series_retention": series}


def engine_options(flags: ServeFlags) -> EngineOptions:
    """Options of the query engine."""
    return EngineOptions(
        samples_max=flags["query.max-samples"],
        bytes_max=flags.size_bytes("query.max-memory"),
        timeout_s=flags.duration_ms("query.timeout") / 1000,
        lookback_ms=flags.duration_ms("query.lookback-delta"),
        features=flags.features(),
    )
