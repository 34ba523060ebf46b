"""The JSON envelope of /api/v1 and its errors (prometheus-surface.md 1.1).

Ordinary strings are escaped as Go's encoder does for HTML (`<`, `>`, `&` and two line separators become
\\u escapes); label sets are not.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Any

import orjson

from tsdb.labels import Labels

JSON_TYPE = "application/json"

ANNOTATIONS_SHOWN_MAX = 10
"""Warnings, and infos, of one answer."""

_HTML = {b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026"}
_SEPARATORS = {"\u2028".encode(): b"\\u2028", "\u2029".encode(): b"\\u2029"}
_SPECIAL = (*_HTML, *_SEPARATORS)
_ESCAPED = re.compile(b"[<>&]|\xe2\x80[\xa8\xa9]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class ErrorType(enum.Enum):
    """`errorType` of an answer, with its status code."""

    BAD_DATA = ("bad_data", 400)
    EXECUTION = ("execution", 422)
    CANCELED = ("canceled", 499)
    TIMEOUT = ("timeout", 503)
    INTERNAL = ("internal", 500)
    UNAVAILABLE = ("unavailable", 500)
    NOT_FOUND = ("not_found", 404)
    NOT_ACCEPTABLE = ("not_acceptable", 406)

    @property
    def text(self) -> str:
        """The word in the answer."""
        return self.value[0]

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self.value[1]


class ApiError(Exception):
    """What a handler raises to answer with an error envelope."""

    def __init__(self, kind: ErrorType, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def bad_data(message: str) -> ApiError:
    """A 400 with a text of its own."""
    return ApiError(ErrorType.BAD_DATA, message)


def invalid_parameter(name: str, cause: object) -> ApiError:
    """A 400 `invalid parameter "name": cause`."""
    return ApiError(ErrorType.BAD_DATA, f'invalid parameter "{name}": {cause}')


def _escape(match: re.Match[bytes]) -> bytes:
    found = match.group()
    return _HTML.get(found) or _SEPARATORS[found]


def quote_label(text: str) -> bytes:
    """A JSON string of a label name or value: not escaped for HTML."""
    try:
        return orjson.dumps(text)
    except orjson.JSONEncodeError:
        return orjson.dumps(_SURROGATE.sub("\ufffd", text))


def quote(text: str) -> bytes:
    """A JSON string escaped for HTML."""
    return _ESCAPED.sub(_escape, quote_label(text))


def labels_json(labels: Labels) -> bytes:
    """The object of a label set."""
    return b"{" + b",".join(quote_label(n) + b":" + quote_label(v) for n, v in labels) + b"}"


def _plain(value: Any) -> Any:
    if isinstance(value, Labels):
        return value.to_dict()
    raise TypeError(f"cannot encode {type(value).__name__}")


class _Text(bytes):
    """JSON that is ready."""


def _encode_slowly(value: Any) -> bytes:
    """Any depth: trees of queries may be deep, and orjson takes 254 levels."""
    out: list[bytes] = []
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, _Text):
            out.append(item)
        elif isinstance(item, Labels):
            out.append(labels_json(item))
        elif isinstance(item, str):
            out.append(quote(item))
        elif isinstance(item, dict):
            out.append(b"{")
            pending.append(_Text(b"}"))
            last = len(item) - 1
            for at, (key, part) in enumerate(reversed(item.items())):
                pending += (part, _Text((b"," if at < last else b"") + quote(key) + b":"))
        elif isinstance(item, list | tuple):
            out.append(b"[")
            pending.append(_Text(b"]"))
            for at in range(len(item) - 1, -1, -1):
                pending.append(item[at])
                if at:
                    pending.append(_Text(b","))
        else:
            out.append(orjson.dumps(item))
    return b"".join(out)


def encode(value: Any) -> bytes:
    """JSON of dicts, lists, strings, numbers, and `Labels` objects anywhere among them."""
    try:
        text = orjson.dumps(value, default=_plain)
    except orjson.JSONEncodeError:
        return _encode_slowly(value)
    # One search a text is several times faster than one for any of them.
    return _encode_slowly(value) if any(special in text for special in _SPECIAL) else text


def _capped(texts: Sequence[str], kind: str) -> list[str]:
    if len(texts) <= ANNOTATIONS_SHOWN_MAX:
        return list(texts)
    omitted = len(texts) - ANNOTATIONS_SHOWN_MAX
    return [*texts[:ANNOTATIONS_SHOWN_MAX], f"{omitted} more {kind} annotations omitted"]


def success_end(warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> bytes:
    """What follows the data of a successful answer."""
    end = b""
    if warnings:
        end += b',"warnings":' + encode(_capped(warnings, "warning"))
    if infos:
        end += b',"infos":' + encode(_capped(infos, "info"))
    return end + b"}"


def success(data: Any, warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> bytes:
    """A whole successful answer."""
    return SUCCESS_START + encode(data) + success_end(warnings, infos)


def failure(error: ApiError) -> bytes:
    """A whole error answer."""
    kind, text = encode(error.kind.text), quote(error.message)
    return b'{"status":"error","errorType":' + kind + b',"error":' + text + b"}"


SUCCESS_START = b'{"status":"success","data":'
"""What precedes the data of a successful answer."""
