"""Series notation: `metric{a="b"} 1+2x3 _ stale {{schema:1 count:2 buckets:[2]}}x2`.

Used by query test files and by rule unit tests. Values follow each other at a fixed interval. Semantics:
prometheus-surface.md 3.1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from promql.ast import Position
from promql.errors import ParseError
from promql.histogramvalue import Histogram
from promql.numberformat import parse_number
from promql.parser import parse_metric
from promql.quoting import quote
from tsdb.histogram import ResetHint
from tsdb.labels import Labels

SERIES_VALUES_MAX = 1_000_000
"""Longest sequence that one line may stand for."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|' + r"'(?:[^'\\\n]|\\.)*'|`[^`]*`")
_PLAIN = r"(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:[eE][+-]?[0-9]+)?"
_FLOAT = rf"(?:{_PLAIN}|[iI][nN][fF]|[nN][aA][nN])"
_GAP = re.compile(r"_(?:x([0-9]{1,18}))?")
_STALE = re.compile(r"stale(?:x([0-9]{1,18}))?")
_RUN = re.compile(rf"([+-]?{_FLOAT})(?:([+-]{_FLOAT}))?(?:x([0-9]{{1,18}}))?")
_HISTOGRAMS = re.compile(r"\{\{([^}]*)\}\}(?:([+-])\{\{([^}]*)\}\})?(?:x([0-9]{1,18}))?")
_FIELD = re.compile(r"([a-z_A-Z]+):(\[[^\]]*\]|[^\s\[\]]+)")

_HINTS = {
    "unknown": ResetHint.UNKNOWN,
    "reset": ResetHint.RESET,
    "not_reset": ResetHint.NOT_RESET,
    "gauge": ResetHint.GAUGE,
}
_NUMBERS = {"sum", "count", "z_bucket", "z_bucket_w"}
_INTEGERS = {"schema", "offset", "n_offset"}
_LISTS = {"buckets", "n_buckets", "custom_values"}


@dataclass(frozen=True, slots=True)
class SeriesValue:
    """One position of a sequence: nothing (`omitted`), a stale marker, a float or a histogram.

    `hint_given` tells a histogram whose reset hint was written from one where it does not matter.
    """

    value: float = 0.0
    histogram: Histogram | None = None
    omitted: bool = False
    stale: bool = False
    hint_given: bool = False

    def __str__(self) -> str:
        if self.omitted:
            return "_"
        if self.stale:
            return "stale"
        return repr(self.value) if self.histogram is None else self.histogram.notation()


_OMITTED = SeriesValue(omitted=True)
_STALE_VALUE = SeriesValue(value=math.nan, stale=True)


def parse_series_description(text: str) -> tuple[Labels, list[SeriesValue]]:
    """Labels and values of one line. Raises ParseError."""
    return _Description(text).read()


class _Problem(Exception):
    """Something is wrong at a character offset."""

    def __init__(self, message: str, at: int, end: int) -> None:
        super().__init__(message)
        self.at = at
        self.end = end


class _Description:
    """Reads one line."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> tuple[Labels, list[SeriesValue]]:
        text = self._text
        end = _metric_end(text)
        labels = parse_metric(text[:end])
        values: list[SeriesValue] = []
        try:
            if end < len(text) and not text[end].isspace():
                raise _Problem(f"unexpected {quote(text[end])} in series values", end, end + 1)
            for at, item in _items(text, end):
                values.extend(self._item(at, item))
                if len(values) > SERIES_VALUES_MAX:
                    raise _Problem(f"more than {SERIES_VALUES_MAX} values in one series", at, at + len(item))
        except _Problem as problem:
            start = len(text[: problem.at].encode())
            stop = len(text[: problem.end].encode())
            raise ParseError(str(problem), Position(start, stop), text) from None
        return labels, values

    def _item(self, at: int, item: str) -> list[SeriesValue]:
        gap = _GAP.fullmatch(item)
        if gap is not None:
            return [_OMITTED] * self._count(gap[1], 1, at)
        stale = _STALE.fullmatch(item)
        if stale is not None:
            return [_STALE_VALUE] * (self._count(stale[1], 0, at) + 1)
        run = _RUN.fullmatch(item)
        if run is not None:
            return self._run(run, at)
        histograms = _HISTOGRAMS.fullmatch(item)
        if histograms is not None:
            return self._histogram_run(histograms, at)
        raise _Problem(f"unexpected {quote(item)} in series values", at, at + len(item))

    def _count(self, digits: str | None, default: int, at: int) -> int:
        count = default if digits is None else int(digits)
        if count > SERIES_VALUES_MAX:
            text = f"invalid repetition in series values: {count} is more than {SERIES_VALUES_MAX}"
            raise _Problem(text, at, at)
        return count

    def _run(self, run: re.Match[str], at: int) -> list[SeriesValue]:
        base, step, repeat = run.groups()
        if step is not None and repeat is None:
            raise _Problem(
                'unexpected end of series value, expected "x" and a repetition', at, at + len(run[0])
            )
        try:
            value, delta = _number(base), 0.0 if step is None else _number(step)
        except (ValueError, OverflowError):
            raise _Problem(f"bad number syntax: {quote(run[0])}", at, at + len(run[0])) from None
        out = []
        for _ in range(self._count(repeat, 0, at) + 1):
            out.append(SeriesValue(value))
            value += delta
        return out

    def _histogram_run(self, match: re.Match[str], at: int) -> list[SeriesValue]:
        base_text, sign, step_text, repeat = match.groups()
        base, hint_given = self._histogram(base_text, at + 2)
        count = self._count(repeat, 0, at)
        if sign is None:
            return [SeriesValue(histogram=base, hint_given=hint_given)] * (count + 1)
        if repeat is None:
            raise _Problem(
                'unexpected end of series value, expected "x" and a repetition', at, at + len(match[0])
            )
        step, hint_given = self._histogram(step_text, match.start(3) + at)
        out = [SeriesValue(histogram=base, hint_given=hint_given)]
        current = base
        for _ in range(count):
            if current.schema > step.schema:
                text = f"cannot merge from schema {step.schema} to {current.schema}"
                raise _Problem(f"error combining histograms: {text}", at, at + len(match[0]))
            try:
                current = current.plus(step, 1 if sign == "+" else -1)
            except ValueError as error:
                raise _Problem(f"error combining histograms: {error}", at, at + len(match[0])) from None
            out.append(SeriesValue(histogram=current, hint_given=hint_given))
        return out

    def _histogram(self, body: str, at: int) -> tuple[Histogram, bool]:
        fields: dict[str, str] = {}
        end = 0
        for match in _FIELD.finditer(body):
            if body[end : match.start()].strip():
                break
            end = match.end()
            key = match[1].lower()
            if key in fields:
                raise _Problem(f'duplicate key "{key}" in histogram', at + match.start(), at + end)
            if key not in _NUMBERS | _INTEGERS | _LISTS | {"counter_reset_hint"}:
                text = f"bad histogram descriptor found: {quote(match[1])}"
                raise _Problem(text, at + match.start(), at + end)
            fields[key] = match[2]
        if body[end:].strip():
            text = f"unexpected {quote(body[end:].strip())} in histogram description"
            key = "histogram description key, e.g. buckets:[5 10 7]"
            raise _Problem(f"{text}, expected {key}", at + end, at + len(body))
        try:
            return _histogram(fields), "counter_reset_hint" in fields
        except (ValueError, OverflowError) as error:
            raise _Problem(f"error parsing histogram: {error}", at, at + len(body)) from None


def _metric_end(text: str) -> int:
    """Where the metric ends: after its name, or after the brace that closes its labels."""
    name = _NAME.match(text)
    at = name.end() if name is not None else 0
    if not text.startswith("{", at) or text.startswith("{{", at):
        return at
    while at < len(text):
        string = _STRING.match(text, at)
        if string is not None:
            at = string.end()
        elif text[at] == "}":
            return at + 1
        else:
            at += 1
    return at


def _items(text: str, start: int) -> Iterator[tuple[int, str]]:
    """Items of a sequence with their offsets; blanks inside `{{ }}` do not separate."""
    at = start
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        end = at
        while end < len(text) and not text[end].isspace():
            if text.startswith("{{", end):
                close = text.find("}}", end)
                end = len(text) if close < 0 else close + 2
            else:
                end += 1
        yield at, text[at:end]
        at = end


def _number(text: str) -> float:
    sign = -1.0 if text.startswith("-") else 1.0
    return sign * parse_number(text.lstrip("+-"))


def _numbers(text: str) -> tuple[float, ...]:
    if not text.startswith("["):
        raise ValueError(f"{text} is not a list")
    return tuple(_number(part) for part in text[1:-1].split())


def _histogram(fields: dict[str, str]) -> Histogram:
    integers = {key: int(fields.get(key, "0")) for key in _INTEGERS}
    numbers = {key: _number(fields.get(key, "0")) for key in _NUMBERS}
    lists = {key: _numbers(fields.get(key, "[]")) for key in _LISTS}
    hint = fields.get("counter_reset_hint", "unknown")
    if hint not in _HINTS:
        raise ValueError(f"unknown counter_reset_hint {hint}")
    return Histogram(
        schema=integers["schema"],
        count=numbers["count"],
        sum=numbers["sum"],
        zero_threshold=numbers["z_bucket_w"],
        zero_count=numbers["z_bucket"],
        positive=tuple(enumerate(lists["buckets"], integers["offset"])),
        negative=tuple(enumerate(lists["n_buckets"], integers["n_offset"])),
        custom_values=lists["custom_values"],
        hint=_HINTS[hint],
    )
