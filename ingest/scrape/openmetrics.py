"""What only OpenMetrics has: exemplars (surface 6.3)."""

from __future__ import annotations

import re

from ingest.kernels import exposition
from ingest.scrape.text import parse_float, parse_labels, parse_time
from tsdb.labels import Labels

EXEMPLAR_LABEL_CHARACTERS_MAX = 128
"""UTF-8 characters of all names and values of one exemplar."""

_TAIL = re.compile(rb" ([^ ]+)(?: ([^ ]+))?")


def parse_exemplar(text: bytes) -> tuple[Labels, float, int | None]:
    """Labels, value and own time in ms of `{labels} value [seconds]`. Raises ValueError."""
    end = _labels_end(text)
    tail = _TAIL.fullmatch(text, end)
    if tail is None:
        raise ValueError("expected value after exemplar labels")
    labels = Labels.from_pairs(parse_labels(text[:end], exposition.OPENMETRICS))
    length = sum(len(name) + len(value) for name, value in labels)
    if length > EXEMPLAR_LABEL_CHARACTERS_MAX:
        raise ValueError(
            f"label length for exemplar exceeds maximum of {EXEMPLAR_LABEL_CHARACTERS_MAX} UTF-8 characters"
        )
    time = None if tail.group(2) is None else parse_time(tail.group(2), exposition.OPENMETRICS)
    return labels, parse_float(tail.group(1)), time


def _labels_end(text: bytes) -> int:
    at, quoted = 1, False
    while at < len(text):
        byte = text[at]
        if quoted and byte == 0x5C:
            at += 1
        elif byte == 0x22:
            quoted = not quoted
        elif byte == 0x7D and not quoted:
            return at + 1
        at += 1
    raise ValueError("exemplar label set is not closed")
