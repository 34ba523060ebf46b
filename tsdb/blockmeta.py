"""meta.json of a block, with Prometheus's fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tsdb.errors import CorruptionError, UnknownVersionError

META_FILE = "meta.json"
META_VERSION = 1
FORMAT, ROLLUP_FORMAT = "vedette-pages", "vedette-rollup"


@dataclass(frozen=True, slots=True)
class BlockStats:
    """What a block holds. A chunk is one series' run of samples in one page."""

    num_samples: int = 0
    num_float_samples: int = 0
    num_histogram_samples: int = 0
    num_series: int = 0
    num_chunks: int = 0
    num_tombstones: int = 0


@dataclass(frozen=True, slots=True)
class BlockDesc:
    """A block that was compacted into another."""

    ulid: str
    min_time: int
    max_time: int


@dataclass(frozen=True, slots=True)
class BlockMeta:
    """Times are milliseconds; the block covers [min_time, max_time). `resolution_ms` > 0 says that it holds
    windows in place of samples (docs/formats/rollup.md)."""

    ulid: str
    min_time: int
    max_time: int
    stats: BlockStats = field(default_factory=BlockStats)
    level: int = 1
    sources: tuple[str, ...] = ()
    parents: tuple[BlockDesc, ...] = ()
    resolution_ms: int = 0

    @property
    def desc(self) -> BlockDesc:
        """How a block compacted from this one names it."""
        return BlockDesc(self.ulid, self.min_time, self.max_time)

    def to_json(self) -> bytes:
        """The text of meta.json."""
        stats = self.stats
        compaction: dict[str, Any] = {"level": self.level, "sources": list(self.sources)}
        if self.parents:
            compaction["parents"] = [
                {"ulid": p.ulid, "minTime": p.min_time, "maxTime": p.max_time} for p in self.parents
            ]
        document = {
            "ulid": self.ulid,
            "minTime": self.min_time,
            "maxTime": self.max_time,
            "stats": {
                "numSamples": stats.num_samples,
                "numFloatSamples": stats.num_float_samples,
                "numHistogramSamples": stats.num_histogram_samples,
                "numSeries": stats.num_series,
                "numChunks": stats.num_chunks,
                "numTombstones": stats.num_tombstones,
            },
            "compaction": compaction,
            "version": META_VERSION,
            "format": ROLLUP_FORMAT if self.resolution_ms else FORMAT,
        }
        if self.resolution_ms:
            document["resolution"] = self.resolution_ms
        return json.dumps(document, indent="\t").encode() + b"\n"

    @classmethod
    def from_json(cls, text: bytes, where: str) -> BlockMeta:
        """Raises CorruptionError naming `where`, or UnknownVersionError for another version or format."""
        try:
            document = json.loads(text)
            version, form = document["version"], document.get("format", "prometheus")
            if version != META_VERSION or form not in (FORMAT, ROLLUP_FORMAT):
                raise UnknownVersionError(
                    f"{where}: format {form} version {version}, this program reads {FORMAT} and "
                    f"{ROLLUP_FORMAT} version {META_VERSION}"
                )
            stats, compaction = document["stats"], document["compaction"]
            return cls(
                ulid=str(document["ulid"]),
                min_time=int(document["minTime"]),
                max_time=int(document["maxTime"]),
                stats=BlockStats(
                    *(int(stats.get(name, 0)) for name in _STAT_NAMES),
                ),
                level=int(compaction["level"]),
                sources=tuple(map(str, compaction["sources"])),
                parents=_parents(compaction.get("parents") or []),
                resolution_ms=_resolution(document) if form == ROLLUP_FORMAT else 0,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptionError(f"{where}: not a block's meta.json: {error}") from None


_STAT_NAMES = (
    "numSamples",
    "numFloatSamples",
    "numHistogramSamples",
    "numSeries",
    "numChunks",
    "numTombstones",
)


def _resolution(document: Any) -> int:
    resolution = int(document["resolution"])
    if resolution <= 0:
        raise ValueError(f"resolution {resolution} is not positive")
    return resolution


def _parents(items: Sequence[Any]) -> tuple[BlockDesc, ...]:
    return tuple(BlockDesc(str(p["ulid"]), int(p["minTime"]), int(p["maxTime"])) for p in items)
