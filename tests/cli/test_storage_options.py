"""The store's options from flags and configuration."""

from __future__ import annotations

import pytest

from cli.flags import FLAGS, ServeFlags
from cli.serveroptions import retention_text, storage_options
from ingest.config.document import parse_config
from ingest.config.errors import ConfigError
from tsdb.limits import DAY_MS, Limits, StorageOptions
from tsdb.rollup import SeriesRetention, Tier

HOUR_MS = 3600_000


def options_of(text: str) -> StorageOptions:
    flags = ServeFlags({flag.name: flag.default for flag in FLAGS}, frozenset())
    return storage_options(flags, parse_config(text))


def test_roll_ups_are_off_by_default() -> None:
    options = options_of("global: {}\n")
    assert (options.tiers, options.full_resolution_ms, options.series_retention) == ((), 0, ())


def test_tiers_and_retentions_reach_the_store() -> None:
    options = options_of(
        "storage:\n"
        "  tsdb:\n"
        "    downsample: [{after: 6h, resolution: 5m, retention: 90d}, {after: 7d, resolution: 1h}]\n"
        "    retention: {full_resolution: 1d, series: [{match: {job: 'a|b', env: dev}, time: 3d}]}\n"
    )
    assert options.tiers == (Tier(6 * HOUR_MS, 300_000, 90 * DAY_MS), Tier(7 * DAY_MS, HOUR_MS))
    assert options.full_resolution_ms == DAY_MS
    assert options.series_retention == (SeriesRetention((("job", "a|b"), ("env", "dev")), 3 * DAY_MS),)
    assert options.retention_ms == 15 * DAY_MS


def test_the_file_s_out_of_order_window_overrides_the_flag_even_when_it_is_zero() -> None:
    assert options_of("global: {}\n").out_of_order_window_ms == HOUR_MS
    assert options_of("storage: {tsdb: {out_of_order_time_window: 0s}}\n").out_of_order_window_ms == 0
    assert (
        options_of("storage: {tsdb: {out_of_order_time_window: 30m}}\n").out_of_order_window_ms
        == HOUR_MS // 2
    )


def test_flags_of_the_log_and_of_blocks_reach_the_store() -> None:
    values = {flag.name: flag.default for flag in FLAGS}
    values |= {"storage.tsdb.min-block-duration": "30m", "storage.tsdb.wal-segment-size": "16MB"}
    values |= {"storage.tsdb.max-block-duration": "2h"}
    values |= {"storage.wal.sync": "interval", "enable-feature": ("st-storage",)}
    options = storage_options(ServeFlags(values, frozenset()), parse_config("global: {}\n"))
    assert options.block_range_ms == HOUR_MS // 2
    assert options.longest_block_ms == 2 * HOUR_MS
    assert options.wal_segment_bytes == 16 << 20
    assert options.wal_sync == "interval"
    assert options.start_timestamps


def test_retention_by_share_of_the_disk_stands_in_for_size_and_default() -> None:
    flags = ServeFlags({flag.name: flag.default for flag in FLAGS}, frozenset())
    for keys, expected in (
        ("{percentage: 80.5}", (0, 80.5, "80.5%")),
        ("{percentage: 80, size: 1GB, time: 3d}", (3 * DAY_MS, 80, "3d or 80%")),
        ("{size: 1GB}", (0, 0, "1GiB")),
    ):
        config = parse_config(f"storage: {{tsdb: {{retention: {keys}}}}}\n")
        options = storage_options(flags, config)
        found = (options.retention_ms, options.retention_disk_percent, retention_text(flags, config))
        assert found == expected


def test_retention_of_flags_is_spelt_as_prometheus_does() -> None:
    values = {flag.name: flag.default for flag in FLAGS}
    values |= {"storage.tsdb.retention.time": "720h", "storage.tsdb.retention.size": "1024MB"}
    flags = ServeFlags(values, frozenset())
    assert retention_text(flags, parse_config("global: {}\n")) == "30d or 1GiB"
    flags = ServeFlags(values | {"storage.tsdb.retention.time": "0s"}, frozenset())
    assert retention_text(flags, parse_config("global: {}\n")) == "1GiB"


def test_limits_reach_the_store() -> None:
    assert options_of("global: {}\n").limits == Limits()
    assert options_of("storage: {limits: {}}\n").limits == Limits()
    found = options_of(
        "storage:\n"
        "  exemplars: {max_exemplars: 5}\n"
        "  limits:\n"
        "    {series_limit: 1, label_limit: 2, label_name_length_limit: 3, label_value_length_limit: 4}\n"
    )
    assert found.limits == Limits(
        active_series=1, labels_per_series=2, label_name_bytes=3, label_value_bytes=4, exemplars=5
    )
    with pytest.raises(ConfigError, match="series_limit"):
        options_of("storage: {limits: {series_limit: -1}}\n")


def test_the_number_of_exemplars_reaches_the_store() -> None:
    assert options_of("global: {}\n").limits.exemplars == 100_000
    assert options_of("storage: {exemplars: {max_exemplars: -1}}\n").limits.exemplars == -1
