"""Parameters of API requests: times, durations, limits, selectors, label names.

Accepted forms and error texts are Prometheus's (prometheus-surface.md 1.1, 1.2).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from promql.duration import DurationError
from promql.duration import parse_duration as parse_prometheus_duration
from promql.errors import ParseError
from promql.quoting import quote
from tsdb.labels import Matcher
from web.envelope import ApiError, bad_data, invalid_parameter
from web.forms import Form

MATCHER_SETS_MAX = 1_000
RANGE_POINTS_MAX = 11_000
"""Steps of a range query less one, as in Prometheus."""

MIN_TIME_MS = -9223309901257974 * 1000
MAX_TIME_MS = 9223309901257974 * 1000 + 999
_MIN_TIME_TEXT = "-292273086-05-16T16:47:06Z"
_MAX_TIME_TEXT = "292277025-08-18T07:12:54.999999999Z"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:(Z)|([+-])(\d\d):(\d\d))", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _rfc3339_ms(text: str) -> int | None:
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    fraction = int((match[7] or "0").ljust(3, "0")[:3])
    try:
        moment = datetime(*(int(match[n]) for n in range(1, 7)), tzinfo=UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        return None
    zone_s = 0
    if match[9]:
        zone_s = (int(match[10]) * 3600 + int(match[11]) * 60) * (-1 if match[9] == "-" else 1)
    return (moment - _EPOCH) // timedelta(milliseconds=1) + fraction - zone_s * 1000


def parse_time(text: str) -> int:
    """Milliseconds of Unix seconds or an RFC 3339 time. Raises ValueError."""
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        if abs(seconds) <= MAX_TIME_MS / 1000:
            fraction, whole = math.modf(seconds)
            # Halves round away from zero, as Go's math.Round does.
            return int(whole) * 1000 + int(math.copysign(math.floor(abs(fraction) * 1000 + 0.5), fraction))
    elif (moment := _rfc3339_ms(text)) is not None:
        return moment
    elif text == _MIN_TIME_TEXT:
        return MIN_TIME_MS
    elif text == _MAX_TIME_TEXT:
        return MAX_TIME_MS
    raise ValueError(f"cannot parse {quote(text)} to a valid timestamp")


def parse_duration_ms(text: str) -> float:
    """Milliseconds of float seconds or a Prometheus duration. Raises ValueError."""
    if _NUMBER.fullmatch(text):
        seconds = float(text)
        if abs(seconds) * 1e9 > 2.0**63:
            raise ValueError(f"cannot parse {quote(text)} to a valid duration. It overflows int64")
        return seconds * 1000
    try:
        return parse_prometheus_duration(text)
    except DurationError:
        raise ValueError(f"cannot parse {quote(text)} to a valid duration") from None


def time_parameter(form: Form, name: str, default_ms: int) -> int:
    """An optional time. Raises ApiError."""
    text = form.get(name)
    if not text:
        return default_ms
    try:
        return parse_time(text)
    except ValueError as error:
        raise invalid_parameter(name, f"invalid time value for '{name}': {error}") from None


def required_time(form: Form, name: str) -> int:
    """A time that must be given. Raises ApiError."""
    try:
        return parse_time(form.get(name))
    except ValueError as error:
        raise invalid_parameter(name, error) from None


def duration_parameter(form: Form, name: str) -> float:
    """A duration in milliseconds that must be given. Raises ApiError."""
    try:
        return parse_duration_ms(form.get(name))
    except ValueError as error:
        raise invalid_parameter(name, error) from None


def parse_integer(text: str, bits: int = 64, parser: str = "Atoi") -> int:
    """A Go integer; raises ValueError with the text of a function of Go's `strconv`."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"strconv.{parser}: parsing {quote(text)}: invalid syntax")
    largest = 2 ** (bits - 1)
    number = int(text) if len(text) <= 20 else largest
    if not -largest <= number < largest:
        raise ValueError(f"strconv.{parser}: parsing {quote(text)}: value out of range")
    return number


def limit_parameter(form: Form) -> int:
    """`limit` of a query or a metadata endpoint; 0 means none. Raises ApiError."""
    text = form.get("limit")
    if not text:
        return 0
    try:
        limit = parse_integer(text)
    except ValueError as error:
        raise invalid_parameter("limit", error) from None
    if limit < 0:
        raise invalid_parameter("limit", "limit must be non-negative")
    return limit


def number_parameter(form: Form, name: str, default: int) -> int:
    """A count of the metadata of targets: any integer, negative meaning no limit. Raises ApiError."""
    text = form.get(name)
    if not text:
        return default
    try:
        return parse_integer(text)
    except ValueError:
        raise bad_data(f"{name} must be a number") from None


def boolean_parameter(form: Form, name: str) -> bool:
    """A Go boolean, false when absent. Raises ApiError."""
    text = form.get(name)
    if text in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    cause = f"strconv.ParseBool: parsing {quote(text)}: invalid syntax"
    raise invalid_parameter(name, f"unable to parse boolean: {cause}")


def parse_matcher_sets(
    selectors: Sequence[str], *, wrap: bool = True, selective: bool = True
) -> list[tuple[Matcher, ...]]:
    """Matchers of `match[]` values; with `selective` each set has one matcher that refuses the empty string.

    Raises ApiError, its text wrapped as an invalid parameter or (the label endpoints) bare.
    """
    from promql.parser import parse_metric_selector

    if len(selectors) > MATCHER_SETS_MAX:
        raise bad_data(f"{len(selectors)} match[] parameters, the limit is {MATCHER_SETS_MAX}")

    def refuse(cause: object) -> ApiError:
        return invalid_parameter("match[]", cause) if wrap else bad_data(str(cause))

    sets = []
    for text in selectors:
        try:
            sets.append(tuple(parse_metric_selector(text)))
        except ParseError as error:
            raise refuse(error) from None
    for matchers in sets:
        if selective and all(matcher.matches("") for matcher in matchers):
            raise refuse("match[] must contain at least one non-empty matcher")
    return sets


def unescape_label_name(name: str) -> str:
    """The label name of a path segment: `U__` starts the form in which `__` is an underscore and `_hex_` a
    character. A malformed name stays as it is."""
    if not name.startswith("U__"):
        return name
    out = []
    body, at = name[3:], 0
    while at < len(body):
        if body[at] != "_":
            out.append(body[at])
            at += 1
            continue
        end = body.find("_", at + 1)
        if end < 0:
            return name
        code = body[at + 1 : end]
        if not code:
            out.append("_")
        elif len(code) > 5 or not re.fullmatch(r"[0-9a-fA-F]+", code):
            return name
        else:
            number = int(code, 16)
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                return name
            out.append(chr(number))
        at = end + 1
    return "".join(out)


def label_name(segment: str) -> str:
    """A valid label name from a path segment. Raises ApiError."""
    name = unescape_label_name(segment)
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        name = ""
    if not name:
        raise bad_data(f"invalid label name: {quote(segment)}")
    return name
