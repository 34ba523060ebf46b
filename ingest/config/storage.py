"""`storage`: Prometheus's keys and Vedette's additions (surface 7.1)."""

from __future__ import annotations

import itertools
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from ingest.config.durations import ByteSize, Duration
from ingest.config.section import Section, Text, fault
from tsdb.regex import InvalidRegexError, compile_regex
from tsdb.rollup import RANGE_DIVISIBLE_MS


class SeriesRetentionConfig(Section):
    """Vedette: series whose labels match every (anchored) pattern are kept for `time` only."""

    match: dict[Text, Text]
    time: Duration

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.match:
            raise fault("match must name at least one label", "match")
        if self.time <= 0:
            raise fault("time must be greater than 0", "time")
        for name, pattern in self.match.items():
            try:
                compile_regex(pattern)
            except InvalidRegexError as error:
                raise fault(str(error), "match", name) from error
        return self


class RetentionConfig(Section):
    """Limits of what is kept; each overrides its flag. `full_resolution` and `series` are Vedette's."""

    time: Duration = Duration(0)
    size: ByteSize = ByteSize(0)
    percentage: NonNegativeFloat = Field(default=0.0, le=100.0)
    full_resolution: Duration = Duration(0)
    series: list[SeriesRetentionConfig] = Field(default_factory=list)


class ChunkEncodingConfig(Section):
    """Encoding of new chunks."""

    floats: Literal["", "xor", "xor2"] = ""


class DownsampleTier(Section):
    """Vedette: samples older than `after` are also kept at `resolution`, for `retention` where it is set."""

    after: Duration
    resolution: Duration
    retention: Duration = Duration(0)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.resolution <= 0 or self.after <= 0:
            raise fault("after and resolution must be greater than 0")
        if self.resolution > self.after:
            raise fault(f"resolution ({self.resolution}) must not be greater than after ({self.after})")
        if RANGE_DIVISIBLE_MS % self.resolution:
            raise fault(f"resolution ({self.resolution}) must divide {Duration(RANGE_DIVISIBLE_MS)}")
        if 0 < self.retention < self.after:
            raise fault(f"retention ({self.retention}) must not be less than after ({self.after})")
        return self


class TSDBConfig(Section):
    """The local store."""

    out_of_order_time_window: Duration = Duration(0)
    stale_series_compaction_threshold: NonNegativeFloat = Field(default=0.0, le=1.0)
    chunk_encoding: ChunkEncodingConfig = ChunkEncodingConfig.model_construct()
    retention: RetentionConfig | None = None
    downsample: list[DownsampleTier] = Field(default_factory=list)

    @model_validator(mode="after")
    def _tiers_build_on_each_other(self) -> Self:
        for k, (fine, coarse) in enumerate(itertools.pairwise(self.downsample), start=1):
            if coarse.after <= fine.after:
                raise fault(f"after ({coarse.after}) must be greater than the tier before's", "downsample", k)
            if coarse.resolution <= fine.resolution or coarse.resolution % fine.resolution:
                raise fault(
                    f"resolution ({coarse.resolution}) must be a multiple of the tier before's "
                    f"({fine.resolution})",
                    "downsample",
                    k,
                )
            if 0 < fine.retention < coarse.after:
                raise fault(
                    f"retention ({fine.retention}) must not be less than the next tier's after "
                    f"({coarse.after})",
                    "downsample",
                    k - 1,
                )
        kept = Duration(0) if self.retention is None else self.retention.full_resolution
        if kept and (not self.downsample or kept < self.downsample[0].after):
            raise fault(
                f"full_resolution ({kept}) needs a downsample tier with an after that is not longer",
                "retention",
                "full_resolution",
            )
        return self


class ExemplarsConfig(Section):
    """The ring of exemplars; 0 or less turns it off."""

    max_exemplars: int = 100_000


class LimitsConfig(Section):
    """Vedette: what the store takes from all senders together; 0 is no limit. Names as those of a scrape."""

    always_printed = frozenset({"label_limit", "label_name_length_limit", "label_value_length_limit"})

    series_limit: NonNegativeInt = 0
    label_limit: NonNegativeInt = 1024
    label_name_length_limit: NonNegativeInt = 1 << 16
    label_value_length_limit: NonNegativeInt = 1 << 20


class StorageConfig(Section):
    """Storage settings that a reload may change."""

    tsdb: TSDBConfig | None = None
    exemplars: ExemplarsConfig | None = None
    limits: LimitsConfig | None = None
