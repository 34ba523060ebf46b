"""Samples of an OpenMetrics file as columns, a piece of the file at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from ingest.kernels.exposition import OPENMETRICS, TYPE
from ingest.scrape.text import (
    ExpositionError,
    MetadataLine,
    Scanned,
    metadata_lines,
    normalized,
    parse_labels,
    scan_body,
)
from tsdb.labels import METRIC_NAME, Labels

I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

PIECE_BYTES = 32 << 20
_EOF = b"# EOF\n"


@dataclass(frozen=True, slots=True)
class Columns:
    """N samples: `rows` i64[N] are numbers of series, counted over the whole file."""

    rows: I64Array
    t_ms: I64Array
    values: F64Array

    def __len__(self) -> int:
        return len(self.rows)


class OpenMetricsFile:
    """Reads a file once. `series` grows while pieces are read."""

    def __init__(self, path: Path, labels: dict[str, str], piece_bytes: int = PIECE_BYTES) -> None:
        """`labels` are set on every series, in place of its own."""
        self.series: list[Labels] = []
        self._path, self._labels, self._piece_bytes = path, labels, piece_bytes
        self._by_text: dict[tuple[bytes, str], int] = {}
        self._by_labels: dict[Labels, int] = {}
        self._type = ""

    def pieces(self) -> Iterator[Columns]:
        """Raises ValueError naming the line for what is not OpenMetrics, or has no timestamp; OSError."""
        line = 0
        with self._path.open("rb") as file:
            for piece, last in _pieces(file, self._piece_bytes):
                try:
                    scanned = scan_body(piece if last else piece + _EOF, OPENMETRICS)
                    yield self._columns(scanned)
                except ExpositionError as error:
                    reason = str(error).partition(": ")[2]
                    raise ValueError(f"{self._path}: line {line + error.line}: {reason}") from None
                line += piece.count(b"\n")

    def _columns(self, scanned: Scanned) -> Columns:
        untimed = np.flatnonzero(scanned.timed == 0)
        if len(untimed):
            at = int(untimed[0])
            text = scanned.series_text(at).decode(errors="replace")
            line = scanned.line_of(int(scanned.starts[at]))
            raise ExpositionError(line, f"expected timestamp for series {text}, got none")
        types = [item for item in metadata_lines(scanned) if item.kind == TYPE]
        _, first, places = np.unique(scanned.hashes, return_index=True, return_inverse=True)
        rows = np.array([self._row(scanned, int(at), types) for at in first], dtype=np.int64)
        self._type = types[-1].text if types else self._type
        return Columns(rows[places], scanned.t_ms.copy(), scanned.values.copy())

    def _row(self, scanned: Scanned, at: int, types: list[MetadataLine]) -> int:
        """Number of the series of a sample."""
        start = int(scanned.starts[at])
        before = bisect_left(types, start, key=lambda item: item.position)
        metric_type = types[before - 1].text if before else self._type
        text = scanned.series_text(at)
        known = self._by_text.get((text, metric_type))
        if known is not None:
            return known
        try:
            labels = self._parsed(text, metric_type)
        except ValueError as error:
            raise ExpositionError(scanned.line_of(start), str(error)) from None
        row = self._by_labels.setdefault(labels, len(self.series))
        if row == len(self.series):
            self.series.append(labels)
        self._by_text[text, metric_type] = row
        return row

    def _parsed(self, text: bytes, metric_type: str) -> Labels:
        pairs = normalized(parse_labels(text, OPENMETRICS), metric_type)
        labels = dict(pairs)
        if len(labels) != len(pairs):
            raise ValueError(f"label names are not unique: {text[:80].decode(errors='replace')}")
        labels.update(self._labels)
        if not labels.get(METRIC_NAME):
            raise ValueError("missing metric name")
        return Labels.from_dict(labels)


def _pieces(file: IO[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """Whole lines of about `size` bytes; True with the last piece."""
    rest = b""
    piece = file.read(size)
    while piece:
        following = file.read(size)
        joined = rest + piece
        if not following:
            yield joined, True
            return
        cut = joined.rfind(b"\n") + 1
        # A piece that ends in the closing line would close the file twice.
        if cut and not joined[:cut].endswith(b"\n# EOF\n"):
            yield joined[:cut], False
            rest = joined[cut:]
        else:
            rest = joined
        piece = following
    yield rest, True
