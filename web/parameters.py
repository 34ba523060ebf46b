"""Parameters of API requests: forms, times, durations, limits, selectors, label names.

Accepted forms and error texts are Prometheus's (prometheus-surface.md 1.1, 1.2).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import unquote_plus

from aiohttp import web

from promql.duration import DurationError
from promql.duration import parse_duration as parse_prometheus_duration
from promql.errors import ParseError
from promql.quoting import quote
from tsdb.labels import Matcher
from web.envelope import ApiError, bad_data, invalid_parameter

FORM_BYTES_MAX = 10 * 1024 * 1024
FORM_FIELDS_MAX = 10_000
KEPT_TEXT_MAX, KEPT_TEXTS_MAX = 2048, 512
"""Values of parameters whose unquoted form is kept: dashboards ask the same query again, at other times."""
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


class BodyTooLarge(Exception):
    """A request body above its limit; HTTP 413."""

    def __init__(self, limit_bytes: int, flag: str = "") -> None:
        where = f" ({flag})" if flag else ""
        super().__init__(f"request body exceeds the limit of {limit_bytes} bytes{where}")


async def read_body(request: web.Request, limit_bytes: int, flag: str = "") -> bytes:
    """The whole body. Raises BodyTooLarge as soon as it is known to exceed the limit."""
    if request.content_length is not None and request.content_length > limit_bytes:
        raise BodyTooLarge(limit_bytes, flag)
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLarge(limit_bytes, flag)
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Form:
    """Values of a request by name, in order. Bytes that are not UTF-8 arrive as surrogate escapes."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in fields:
            self._values.setdefault(name, []).append(value)

    def get(self, name: str, default: str = "") -> str:
        """The first value of a parameter."""
        values = self._values.get(name)
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        """All values of a parameter."""
        return self._values.get(name, [])


def _unquoted(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    return _unquoted_short(text) if len(text) <= KEPT_TEXT_MAX else _unquote(text)


def _unquote(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


_unquoted_short = lru_cache(maxsize=KEPT_TEXTS_MAX)(_unquote)


def _fields(text: str) -> list[tuple[str, str]]:
    """As urllib's parse_qsl with blank values, which takes four times as long."""
    if not text:
        return []
    if text.count("&") >= FORM_FIELDS_MAX:
        raise bad_data(
            f"error parsing form values: Max number of fields exceeded, the limit is {FORM_FIELDS_MAX}"
        )
    pairs = (pair.partition("=") for pair in text.split("&") if pair)
    return [(_unquoted(name), _unquoted(value)) for name, _, value in pairs]


def url_query(request: web.Request) -> Form:
    """Parameters of the URL alone."""
    return Form(_fields(request.rel_url.raw_query_string))


async def read_form(request: web.Request) -> Form:
    """Parameters of a form body, if there is one, before those of the URL."""
    fields: list[tuple[str, str]] = []
    if (
        request.method in ("POST", "PUT", "PATCH")
        and request.content_type == "application/x-www-form-urlencoded"
    ):
        body = await read_body(request, FORM_BYTES_MAX)
        fields = _fields(body.decode("utf-8", "surrogateescape"))
    return Form(fields + _fields(request.rel_url.raw_query_string))


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
