"""What every source of samples hands to the store: columns of refs, times and values.

All sources end in the same call, `Appender.append(columns)`; there is no second write path.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tsdb.histogram import HistogramBatch
from tsdb.labels import Labels

U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]
U8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class SampleColumns:
    """N float samples: `refs` u32[N], `t_ms` i64[N], `values` f64[N] (raw bits), `start_t_ms` i64[N] or
    None."""

    refs: U32Array
    t_ms: I64Array
    values: F64Array
    start_t_ms: I64Array | None = None


@dataclass(frozen=True, slots=True)
class HistogramColumns:
    """H histogram samples: `refs` u32[H]; `batch.row_offsets` is not used."""

    refs: U32Array
    batch: HistogramBatch


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One exemplar of a series."""

    ref: int
    labels: Labels
    value: float
    t_ms: int


@dataclass(frozen=True, slots=True)
class Metadata:
    """Type, help and unit of a metric family."""

    family: str
    type: str
    help: str
    unit: str


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """One unit of visibility and durability: a query sees all of it or nothing, and so does a restart."""

    samples: SampleColumns | None = None
    histograms: HistogramColumns | None = None
    exemplars: Sequence[Exemplar] = ()
    metadata: Sequence[Metadata] = ()


class Rejected(enum.IntEnum):
    """Why one sample was not stored."""

    NO = 0
    OUT_OF_ORDER = 1
    OUT_OF_BOUNDS = 2
    TOO_OLD = 3
    DUPLICATE = 4
    UNKNOWN_SERIES = 5
    """The ref was garbage collected since it was looked up: look it up again and append again."""
    INVALID_HISTOGRAM = 6
    LIMIT = 7


@dataclass(frozen=True, slots=True)
class AppendResult:
    """Outcome of one append.

    `codes` u8[N] and `histogram_codes` u8[H] hold a `Rejected` a sample. `durable` is done when the WAL
    record is on disk (according to --storage.wal.sync); acknowledge only then. With `atomic` a
    single rejected sample means that nothing was stored (`stored_count` 0). `refused_exemplars` are indexes
    of exemplars out of order; they refuse no batch.
    """

    codes: U8Array
    histogram_codes: U8Array
    stored_count: int
    durable: Future[None]
    messages: Sequence[str] = field(default=())
    """Text of the first few rejections, in Prometheus's words."""
    refused_exemplars: Sequence[int] = ()


class Appender(Protocol):
    """The write interface of the store. Any thread may call; calls are serialised inside."""

    def refs(self, rows: Sequence[Labels]) -> U32Array:
        """Refs of label sets, creating series as needed (the slow path; callers cache).

        Raises InvalidLabelsError or LimitError for the first bad row, having created none.
        """
        ...

    def append(self, batch: WriteBatch, *, atomic: bool = False, now_ms: int | None = None) -> AppendResult:
        """Validate, log and store a batch. None of its arrays is used after the return.

        `atomic` refuses the whole batch when one float or histogram sample is refused (remote write 1.0);
        otherwise the good samples are stored. A sample equal to the newest one in time and bits is accepted
        silently. `now_ms` is the clock for the check against the future; None uses the database's.
        Raises DiskFullError, ClosedError.
        """
        ...
