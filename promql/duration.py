"""Durations: Prometheus's text form, and the value of duration expressions.

Semantics: prometheus-surface.md 2.1 and 2.2. All is exact integers of milliseconds or float seconds.
"""

from __future__ import annotations

import math
import re

from promql.ast import DurationExpr, NumberLiteral
from promql.quoting import quote
from promql.visit import duration_postorder

SECOND_MS = 1000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
YEAR_MS = 365 * DAY_MS

DURATION_SECONDS_MAX = 2.0**63 / 1e9
"""What Go's 64-bit nanoseconds can hold."""

_DURATION_NS_MAX = 2**63 - 1
_DURATION_DIGITS_MAX = 19
_UNITS_MS = {
    "y": YEAR_MS,
    "w": WEEK_MS,
    "d": DAY_MS,
    "h": HOUR_MS,
    "m": MINUTE_MS,
    "s": SECOND_MS,
    "ms": 1,
}
_UNIT_RANK = {unit: rank for rank, unit in enumerate(_UNITS_MS)}
_DURATION_PART = re.compile(r"([0-9]+)([^0-9]+)")
_EXACT_UNITS = (("y", YEAR_MS), ("w", WEEK_MS))
_UNITS = (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS), ("ms", 1))


class DurationError(ValueError):
    """A duration that cannot be read or computed; the text is Prometheus's."""


def parse_duration(text: str) -> int:
    """Milliseconds of `1h30m`; units descend, each at most once; `0` needs none. Raises DurationError."""
    if not text:
        raise DurationError("empty duration string")
    if text == "0":
        return 0
    total_ns = 0
    last = -1
    at = 0
    for part in _DURATION_PART.finditer(text):
        if part.start() != at:
            break
        at = part.end()
        digits, unit = part.groups()
        if unit not in _UNITS_MS:
            raise DurationError(f"unknown unit {quote(unit)} in duration {quote(text)}")
        rank = _UNIT_RANK[unit]
        if rank <= last or len(digits) > _DURATION_DIGITS_MAX:
            break
        last = rank
        total_ns += int(digits) * _UNITS_MS[unit] * 1_000_000
        if total_ns > _DURATION_NS_MAX:
            raise DurationError("duration out of range")
    else:
        if at == len(text):
            return total_ns // 1_000_000
    raise DurationError(f"not a valid duration string: {quote(text)}")


def format_duration(ms: int) -> str:
    """Prometheus's short form, `1h30m`; years and weeks only where exact. `ms` is not negative."""
    if ms == 0:
        return "0s"
    out = []
    for unit, unit_ms in _EXACT_UNITS:
        if ms % unit_ms == 0 and ms:
            out.append(f"{ms // unit_ms}{unit}")
            ms = 0
    for unit, unit_ms in _UNITS:
        if ms >= unit_ms:
            out.append(f"{ms // unit_ms}{unit}")
            ms %= unit_ms
    return "".join(out)


def seconds_to_ms(seconds: float) -> int:
    """Milliseconds of a literal: rounded to nanoseconds, then cut towards zero, as Go's durations are."""
    nanoseconds = round_half_away(seconds * 1e9)
    return int(math.copysign(abs(nanoseconds) // 1_000_000, nanoseconds))


def round_half_away(value: float) -> int:
    """Go's math.Round as an integer."""
    whole = math.floor(abs(value))
    if abs(value) - whole >= 0.5:
        whole += 1
    return -whole if value < 0 else whole


def evaluate_duration(
    expr: DurationExpr, step_ms: int, range_ms: int, *, negative_allowed: bool = False
) -> int:
    """Milliseconds of a duration expression, given the query's step and range (end - start).

    Raises DurationError with Prometheus's text, whose position is `start:end` in bytes.
    """
    seconds = _seconds(expr, step_ms / SECOND_MS, range_ms / SECOND_MS)
    where = f"{expr.pos.start}:{expr.pos.end}"
    if not math.isfinite(seconds):
        raise DurationError(f"{where}: duration is NaN or infinite")
    if seconds <= 0 and not negative_allowed:
        raise DurationError(f"{where}: duration must be greater than 0")
    if abs(seconds) > DURATION_SECONDS_MAX:
        raise DurationError(f"{where}: duration is out of range")
    return int(seconds * SECOND_MS)


def _seconds(expr: DurationExpr, step_s: float, range_s: float) -> float:
    done: dict[int, float] = {}
    for node in duration_postorder(expr):
        if isinstance(node, NumberLiteral):
            done[id(node)] = node.value
        elif node.op in ("step", "range"):
            done[id(node)] = step_s if node.op == "step" else range_s
        else:
            assert node.rhs is not None
            lhs = None if node.lhs is None else done[id(node.lhs)]
            done[id(node)] = _operation(node, lhs, done[id(node.rhs)])
    return done[id(expr)]


def _operation(expr: DurationExpr, lhs: float | None, rhs: float) -> float:
    if lhs is None:
        return -rhs if expr.op == "-" else rhs
    where = f"{expr.pos.start}:{expr.pos.end}"
    if expr.op == "/" and rhs == 0:
        raise DurationError(f"{where}: division by zero")
    if expr.op == "%" and rhs == 0:
        raise DurationError(f"{where}: modulo by zero")
    return _arithmetic(expr.op, lhs, rhs)


def _arithmetic(op: str, lhs: float, rhs: float) -> float:
    if op == "+":
        return lhs + rhs
    if op == "-":
        return lhs - rhs
    if op == "*":
        return lhs * rhs
    if op == "/":
        return lhs / rhs
    if op == "%":
        return math.nan if math.isinf(lhs) else math.fmod(lhs, rhs)
    if op == "^":
        return _power(lhs, rhs)
    if math.isnan(lhs) or math.isnan(rhs):
        return math.nan
    return min(lhs, rhs) if op == "min_of" else max(lhs, rhs)


def _power(lhs: float, rhs: float) -> float:
    """math.pow with the results of IEEE 754 where Python raises."""
    try:
        return math.pow(lhs, rhs)
    except OverflowError:
        return -math.inf if lhs < 0 and rhs % 2 == 1 else math.inf
    except ValueError:
        return math.inf if lhs == 0 else math.nan
