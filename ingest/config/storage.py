"""`storage`: Prometheus's keys and Vedette's additions (surface 7.1)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from ingest.config.durations import ByteSize, Duration
from ingest.config.section import Section, fault


class RetentionConfig(Section):
    """Limits of what is kept; each overrides its flag."""

    time: Duration = Duration(0)
    size: ByteSize = ByteSize(0)
    percentage: NonNegativeFloat = Field(default=0.0, le=100.0)


class ChunkEncodingConfig(Section):
    """Encoding of new chunks."""

    floats: Literal["", "xor", "xor2"] = ""


class DownsampleTier(Section):
    """Vedette: samples older than `after` are also kept at `resolution`."""

    after: Duration
    resolution: Duration

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.resolution <= 0 or self.after <= 0:
            raise fault("after and resolution must be greater than 0")
        if self.resolution > self.after:
            raise fault(f"resolution ({self.resolution}) must not be greater than after ({self.after})")
        return self


class TSDBConfig(Section):
    """The local store."""

    out_of_order_time_window: Duration = Duration(0)
    stale_series_compaction_threshold: NonNegativeFloat = Field(default=0.0, le=1.0)
    chunk_encoding: ChunkEncodingConfig = ChunkEncodingConfig()
    retention: RetentionConfig | None = None
    downsample: list[DownsampleTier] = Field(default_factory=list)


class ExemplarsConfig(Section):
    """The ring of exemplars; 0 or less turns it off."""

    max_exemplars: int = 100_000


class StorageConfig(Section):
    """Storage settings that a reload may change."""

    tsdb: TSDBConfig | None = None
    exemplars: ExemplarsConfig | None = None
