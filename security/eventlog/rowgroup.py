"""A few thousand rows of a part as columns: messages, and fields by name with dictionaries of values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tsdb.columnpack import pack_columns, unpack_columns
from tsdb.errors import CorruptionError

GROUP_ROWS = 4096

Row = tuple[str, dict[str, Any]]
"""Message and fields of an event."""

_DTYPES = (np.uint32, np.uint8, np.uint32, np.uint32, np.uint32, np.uint8, np.uint32, np.uint8)


def encode_rows(rows: Sequence[Row]) -> bytes:
    """The rows as one compressed piece (docs/formats/eventlog.md)."""
    names = list(dict.fromkeys(name for _, fields in rows for name in fields))
    codes = np.zeros((len(names), len(rows)), np.uint32)
    values: list[bytes] = []
    counts = []
    for place, name in enumerate(names):
        known: dict[bytes, int] = {}
        for at, (_, fields) in enumerate(rows):
            if name in fields:
                codes[place, at] = known.setdefault(orjson.dumps(fields[name]), len(known) + 1)
        values += known
        counts.append(len(known))
    texts = [name.encode() for name in names]
    messages = [message.encode() for message, _ in rows]
    return pack_columns(
        [
            *_text_columns(texts),
            np.array(counts, np.uint32),
            codes.reshape(-1),
            *_text_columns(values),
            *_text_columns(messages),
        ]
    )


def decode_rows(stored: npt.NDArray[np.uint8], where: str) -> list[Row]:
    """The rows of a piece. Raises CorruptionError."""
    columns = unpack_columns(stored, _DTYPES, where)
    names = [text.decode() for text in _texts(columns[0], columns[1], where)]
    values = _texts(columns[4], columns[5], where)
    messages = [text.decode() for text in _texts(columns[6], columns[7], where)]
    counts, codes = columns[2].astype(np.int64), columns[3].astype(np.int64)
    if len(counts) != len(names) or len(codes) != len(names) * len(messages) or counts.sum() != len(values):
        raise CorruptionError(f"{where}: fields and values do not fit together")
    rows: list[Row] = [(message, {}) for message in messages]
    first = 0
    for name, count, column in zip(
        names, counts.tolist(), codes.reshape(len(names), len(messages)), strict=True
    ):
        if len(column) and column.max() > count:
            raise CorruptionError(f"{where}: field {name} has {count} values and names more")
        decoded = [orjson.loads(value) for value in values[first : first + count]]
        for at in np.flatnonzero(column).tolist():
            rows[at][1][name] = decoded[column[at] - 1]
        first += count
    return rows


def _text_columns(texts: Sequence[bytes]) -> list[npt.NDArray[Any]]:
    lengths = np.fromiter((len(text) for text in texts), np.uint32, len(texts))
    return [lengths, np.frombuffer(b"".join(texts), np.uint8)]


def _texts(lengths: npt.NDArray[Any], data: npt.NDArray[Any], where: str) -> list[bytes]:
    ends = [0, *np.cumsum(lengths, dtype=np.int64).tolist()]
    if ends[-1] != len(data):
        raise CorruptionError(f"{where}: texts do not add up to {len(data)} bytes")
    raw = data.tobytes()
    return [raw[a:b] for a, b in itertools.pairwise(ends)]
