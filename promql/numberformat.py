"""Floats as text, in the four spellings of Prometheus: Go's %g, Go's 'f', the API's, and OpenMetrics'; and
number literals as floats.

All print the shortest digits that read back as the same float64 (prometheus-surface.md 1.1, appendix C).
"""

from __future__ import annotations

import math
import re

_INTEGER = re.compile(r"0[xX](?:_?[0-9a-fA-F])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*")
_INT64_MAX = 2**63 - 1


def _special(value: float) -> str | None:
    if value != value:
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return None


def _digits(value: float) -> tuple[str, str, int]:
    """Sign, shortest significant digits, and the decimal exponent of the first digit."""
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return sign, "0", 0
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole + fraction) - len(digits)
    point = len(whole) - leading + int(exponent or 0)
    return sign, digits.rstrip("0"), point - 1


def _fixed(sign: str, digits: str, exponent: int) -> str:
    if exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    if len(digits) <= exponent + 1:
        return sign + digits + "0" * (exponent + 1 - len(digits))
    return f"{sign}{digits[: exponent + 1]}.{digits[exponent + 1 :]}"


def _scientific(sign: str, digits: str, exponent: int) -> str:
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _general(value: float, low: int, high: int) -> str:
    special = _special(value)
    if special is not None:
        return special
    sign, digits, exponent = _digits(value)
    if exponent < low or exponent >= high:
        return _scientific(sign, digits, exponent)
    return _fixed(sign, digits, exponent)


def format_g(value: float) -> str:
    """Go's `%g` and `%v`: exponent form when the decimal exponent is below -4 or at least 6 (`1e+06`)."""
    return _general(value, -4, 6)


def format_api(value: float) -> str:
    """Sample values of the HTTP API: exponent form below 1e-6 and from 1e21 (`1e-07`, `1e+21`)."""
    return _general(value, -6, 21)


def format_openmetrics(value: float) -> str:
    """Values of `le` and `quantile` labels: %g, with `.0` appended where that shows no point or exponent."""
    text = format_g(value)
    return text if any(char in text for char in ".eIN") else text + ".0"


def format_f(value: float) -> str:
    """Go's `strconv.FormatFloat(v, 'f', -1, 64)`: never an exponent."""
    special = _special(value)
    return special if special is not None else _fixed(*_digits(value))


def parse_number(text: str) -> float:
    """Value of a number literal: a Go integer literal (`0x1f`, `010` octal, `1_000`) or a float. Raises
    ValueError."""
    if _INTEGER.fullmatch(text):
        digits = text.replace("_", "")
        octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567"
        value = int(digits, 8) if octal else int(digits, 0)
        if value <= _INT64_MAX:
            return float(value)
    if text[:2] in ("0x", "0X") or not text.isascii():
        raise ValueError(text)
    value_f = float(text)
    if math.isinf(value_f) and not text.lstrip("+-").lower().startswith("inf"):
        raise OverflowError(text)
    return value_f
