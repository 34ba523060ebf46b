"""Validity of names and values of labels, and the label limits of a scrape (surface 6.2, appendix C)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tsdb.labels import METRIC_NAME

_LEGACY_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LEGACY_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")

UTF8 = "utf8"
LEGACY = "legacy"


def is_utf8(text: str) -> bool:
    """Whether the text can be written as UTF-8 (it holds no lone surrogate)."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_label_name(name: str, scheme: str = UTF8) -> bool:
    """Whether a label name is valid under a validation scheme."""
    if scheme == LEGACY:
        return _LEGACY_LABEL.fullmatch(name) is not None
    return name != "" and is_utf8(name)


def is_metric_name(name: str, scheme: str = UTF8) -> bool:
    """Whether a metric name is valid under a validation scheme."""
    if scheme == LEGACY:
        return _LEGACY_METRIC.fullmatch(name) is not None
    return name != "" and is_utf8(name)


@dataclass(frozen=True, slots=True)
class LabelLimits:
    """Limits of one series after metric relabelling; 0 is no limit. Lengths are in bytes."""

    label_count: int = 0
    name_bytes: int = 0
    value_bytes: int = 0

    def violation(self, pairs: Iterable[tuple[str, str]]) -> str | None:
        """The text of the first exceeded limit, None when the label set fits."""
        if not (self.label_count or self.name_bytes or self.value_bytes):
            return None
        pairs = list(pairs)
        metric = next((v for n, v in pairs if n == METRIC_NAME), "")
        if self.label_count and len(pairs) > self.label_count:
            return (
                f"label_limit exceeded (metric: {metric:.50}, number of labels: {len(pairs)}, "
                f"limit: {self.label_count})"
            )
        for name, value in pairs:
            if self.name_bytes and len(name.encode()) > self.name_bytes:
                return (
                    f"label_name_length_limit exceeded (metric: {metric:.50}, label name: {name:.50}, "
                    f"length: {len(name.encode())}, limit: {self.name_bytes})"
                )
            if self.value_bytes and len(value.encode()) > self.value_bytes:
                return (
                    f"label_value_length_limit exceeded (metric: {metric:.50}, label name: {name:.50}, "
                    f'value: "{value:.50}", length: {len(value.encode())}, limit: {self.value_bytes})'
                )
        return None
