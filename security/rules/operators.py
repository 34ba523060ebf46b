"""Operators as functions over one value. The columnar engine calls them once per distinct value."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

from security.rules.transformers import to_bytes
from security.rules.values import Value
from tsdb.regex import InvalidRegexError, Regex

Test = Callable[[Any], bool]


class OperatorError(Exception):
    """An operator cannot be applied, in Falco's words."""


_ORDER = {"<", "<=", ">", ">="}
_EQUAL = {"=", "==", "!=", "in", "intersects", "exists"}
_TEXT = {"contains", "icontains", "startswith", "endswith", "glob", "iglob", "regex", "pmatch"}
_BUFFER = {"contains", "startswith", "endswith", "bcontains", "bstartswith"}
_ALLOWED: dict[str, tuple[str, set[str]]] = {
    "CHARBUF": ("string", _EQUAL | _ORDER | _TEXT),
    "FSPATH": ("string", _EQUAL | _ORDER | _TEXT),
    "BYTEBUF": ("buffer", _EQUAL | _BUFFER),
    "BOOL": ("bool", _EQUAL),
    "IPADDR": ("ip address", _EQUAL),
    "IPNET": ("ip network", _EQUAL),
}
_NUMBER = ("numeric", _EQUAL | _ORDER)
_LIST = {"in", "intersects", "exists"}
_MODIFIABLE = {"=", "==", "!=", *_TEXT} - {"pmatch"}


def check_operator(kind: str, is_list: bool, operator: str, modifier: str | None) -> None:
    """Raises OperatorError when a type does not take an operator."""
    word, allowed = _ALLOWED.get(kind, _NUMBER)
    if modifier is not None:
        if kind not in ("CHARBUF", "FSPATH") or operator not in _MODIFIABLE:
            raise OperatorError(f"'{operator} {modifier}' operator not supported for {word} filters")
        return
    if is_list and operator not in _LIST:
        raise OperatorError(f"'{operator}' operator not supported for list filters")
    if operator not in allowed:
        raise OperatorError(f"'{operator}' operator not supported for {word} filters")


def make_test(kind: str, operator: str, values: tuple[Value, ...]) -> Test:
    """The test of one value against the values of a check: `!=` against all, everything else against any."""
    if kind == "IPNET" or (kind == "IPADDR" and any(_is_network(v) for v in values)):
        inside = _in_networks(values)
        return (lambda value: not inside(value)) if operator == "!=" else inside
    if operator in ("=", "==", "in", "intersects"):
        wanted = frozenset(values)
        return lambda value: value in wanted
    if operator == "!=":
        unwanted = frozenset(values)
        return lambda value: value not in unwanted
    if operator in _ORDER:
        return _order(operator, values[0])
    return _text_test(operator, values)


def _is_network(value: Value) -> bool:
    return isinstance(value, (IPv4Network, IPv6Network))


def _in_networks(values: tuple[Value, ...]) -> Test:
    four = [value for value in values if isinstance(value, IPv4Network)]
    six = [value for value in values if isinstance(value, IPv6Network)]

    def inside(value: Any) -> bool:
        if isinstance(value, IPv4Address):
            return any(value in network for network in four)
        return isinstance(value, IPv6Address) and any(value in network for network in six)

    return inside


def _order(operator: str, bound: Any) -> Test:
    if operator == "<":
        return lambda value: value < bound
    if operator == "<=":
        return lambda value: value <= bound
    if operator == ">":
        return lambda value: value > bound
    return lambda value: value >= bound


def _text_test(operator: str, values: tuple[Any, ...]) -> Test:
    single = values[0] if len(values) == 1 else None
    if operator in ("startswith", "bstartswith"):
        return lambda value: value.startswith(values)
    if operator == "endswith":
        return lambda value: value.endswith(values)
    if operator in ("contains", "bcontains"):
        if single is not None:
            return lambda value: single in value
        return lambda value: any(part in value for part in values)
    if operator == "icontains":
        lowered = tuple(_fold(part) for part in values)
        return lambda value: any(part in _fold(value) for part in lowered)
    if operator == "pmatch":
        return _path_match(values)
    if operator in ("glob", "iglob"):
        patterns = [compile_glob(pattern, operator == "iglob") for pattern in values]
    else:
        patterns = [_compile_regex(pattern) for pattern in values]
    return lambda value: any(pattern.matches(_valid(value)) for pattern in patterns)


def _fold(text: str) -> bytes:
    return to_bytes(text).lower()


def _valid(text: str) -> str:
    if text.isascii():
        return text
    return to_bytes(text).decode("utf-8", "replace")


def components(path: str) -> tuple[str, ...]:
    """The parts of a path; repeated slashes count once and a leading slash is a part of its own."""
    parts = tuple(part for part in path.split("/") if part)
    return ("/", *parts) if path.startswith("/") else parts


def _path_match(values: tuple[str, ...]) -> Test:
    prefixes = frozenset(components(value) for value in values)
    sizes = sorted({len(prefix) for prefix in prefixes})

    def matches(value: str) -> bool:
        parts = components(value)
        return any(parts[:size] in prefixes for size in sizes if size <= len(parts))

    return matches


def _compile_regex(pattern: str) -> Regex:
    try:
        return Regex(pattern)
    except InvalidRegexError as error:
        raise OperatorError(f"invalid regular expression '{pattern}': {error}") from None


def compile_glob(pattern: str, fold: bool) -> Regex:
    """A shell pattern as a regular expression: `*` crosses slashes, backslash escapes."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if parts[-1:] != [".*"]:
                parts.append(".*")
        elif char == "?":
            parts.append(".")
        elif char == "\\" and at < len(pattern):
            parts.append(_escape(pattern[at]))
            at += 1
        elif char == "[":
            end = _class_end(pattern, at)
            parts.append(_class(pattern[at:end]) if end > 0 else "\\[")
            at = end + 1 if end > 0 else at
        else:
            parts.append(_escape(char))
    return _compile_regex(("(?i)" if fold else "") + "".join(parts))


def _escape(char: str) -> str:
    return f"\\{char}" if char in "\\.+*?()|[]{}^$" else char


def _class_end(pattern: str, at: int) -> int:
    start = at
    if pattern[at : at + 1] in ("!", "^"):
        at += 1
    if pattern[at : at + 1] == "]":
        at += 1
    end = pattern.find("]", at)
    return end if end > start else -1


def _class(body: str) -> str:
    negated = body[:1] in ("!", "^")
    rest = body[1:] if negated else body
    escaped = rest.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace("^", "\\^")
    return f"[{'^' if negated else ''}{escaped}]"
