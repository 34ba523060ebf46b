"""Label sets as columns: setting one label of every row, and Prometheus's hash of label sets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from promql.kernels import labelhash as kernels
from tsdb.serieslabels import SeriesLabels

U32Array = npt.NDArray[np.uint32]
U64Array = npt.NDArray[np.uint64]


def with_label(labels: SeriesLabels, name: str, values: U32Array) -> SeriesLabels:
    """Rows with one label set to `values` u32[S], or removed where the value id is 0. Pairs stay in order of
    the names' texts."""
    bare = labels.filter_names((name,), keep=False)
    rows = np.flatnonzero(values)
    if not len(rows):
        return bare
    distinct, place = np.unique(bare.name_ids, return_inverse=True)
    before = np.array([text < name for text in labels.symbols.texts(distinct.tolist())], dtype=np.int64)
    running = np.zeros(len(bare.name_ids) + 1, dtype=np.int64)
    if len(distinct):
        np.cumsum(before[place], out=running[1:])
    smaller = running[bare.offsets[1:]] - running[bare.offsets[:-1]]
    at = bare.offsets[rows] + smaller[rows]
    offsets = bare.offsets.copy()
    offsets[1:] += np.cumsum(values != 0)
    symbol = np.uint32(labels.symbols.intern(name))
    return SeriesLabels(
        offsets,
        np.insert(bare.name_ids, at, symbol),
        np.insert(bare.value_ids, at, values[rows]),
        labels.symbols,
    )


def label_hashes(labels: SeriesLabels) -> U64Array:
    """u64[S]: xxHash64 of every label set over the layout that Prometheus hashes."""
    pairs = len(labels.name_ids)
    ids = np.concatenate([labels.name_ids, labels.value_ids])
    distinct, place = np.unique(ids, return_inverse=True)
    blobs = [text.encode("utf-8", "surrogateescape") for text in labels.symbols.texts(distinct.tolist())]
    bounds = np.zeros(len(blobs) + 1, dtype=np.int64)
    np.cumsum([len(blob) for blob in blobs], out=bounds[1:])
    arena = np.frombuffer(b"".join(blobs) + b"\0", dtype=np.uint8).copy()
    place = place.astype(np.int64)
    lengths = np.zeros(pairs + 1, dtype=np.int64)
    size = np.diff(bounds) + 4
    if pairs:
        np.cumsum(size[place[:pairs]] + size[place[pairs:]], out=lengths[1:])
    row_bytes = lengths[labels.offsets[1:]] - lengths[labels.offsets[:-1]]
    out = np.empty(len(labels), dtype=np.uint64)
    widest = int(row_bytes.max()) + 1 if len(labels) else 1
    names, values = np.ascontiguousarray(place[:pairs]), np.ascontiguousarray(place[pairs:])
    kernels.hash_rows(labels.offsets, names, values, arena, bounds, widest, out)
    return out
