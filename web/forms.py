"""Bodies and forms of requests: what was sent as which parameter.

A form is read as Go's net/url and net/http read it, and with Prometheus's texts: a pair with a bad escape or
a semicolon is left out and the others count; whether that is an error, the endpoint decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote_plus

from aiohttp import BodyPartReader, web

from promql.quoting import quote
from web.envelope import bad_data

FORM_BYTES_MAX = 10 * 1024 * 1024
FORM_FIELDS_MAX = 10_000
KEPT_TEXT_MAX, KEPT_TEXTS_MAX = 2048, 512
"""Values of parameters whose unquoted form is kept: dashboards ask the same query again, at other times."""

_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2}).{0,2}", re.DOTALL)

Fields = list[tuple[str, str]]


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

    def __init__(self, fields: Sequence[tuple[str, str]], fault: str = "") -> None:
        self.fault = fault
        """Why a pair was left out, the first if several were."""
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

    def require_whole(self) -> None:
        """Raise ApiError where a pair was left out: some endpoints of Prometheus say so, most do not."""
        if self.fault:
            raise bad_data(f"error parsing form values: {self.fault}")


def _unquoted(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    return _unquoted_short(text) if len(text) <= KEPT_TEXT_MAX else _unquote(text)


def _unquote(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


_unquoted_short = lru_cache(maxsize=KEPT_TEXTS_MAX)(_unquote)


def _pairs(text: str) -> tuple[list[tuple[str, str]], str]:
    """Pairs as they were sent, and why one was left out."""
    pairs = [pair for pair in text.split("&") if pair]
    split = [(name, value) for name, _, value in (pair.partition("=") for pair in pairs)]
    if ";" not in text and _BAD_ESCAPE.search(text) is None:
        return split, ""
    kept, fault = [], ""
    for pair, (name, value) in zip(pairs, split, strict=True):
        bad = _BAD_ESCAPE.search(name) or _BAD_ESCAPE.search(value)
        if ";" in pair:
            fault = fault or "invalid semicolon separator in query"
        elif bad is not None:
            fault = fault or f"invalid URL escape {quote(bad.group())}"
        else:
            kept.append((name, value))
    return kept, fault


def parse_fields(text: str) -> tuple[Fields, str]:
    """(fields, fault) of `a=1&b=2`: Go's url.ParseQuery. Raises ApiError for too many.

    Several times as fast as urllib's parse_qsl.
    """
    if not text:
        return [], ""
    if text.count("&") >= FORM_FIELDS_MAX:
        raise bad_data(
            f"error parsing form values: Max number of fields exceeded, the limit is {FORM_FIELDS_MAX}"
        )
    pairs, fault = _pairs(text)
    return [(_unquoted(name), _unquoted(value)) for name, value in pairs], fault


def url_query(request: web.Request) -> Form:
    """Parameters of the URL alone."""
    return Form(*parse_fields(request.rel_url.raw_query_string))


async def read_form(request: web.Request, *, multipart: bool = False) -> Form:
    """Parameters of a form body, if there is one, before those of the URL; with `multipart` those of such a
    body after them (net/http's Request.FormValue; without it, ParseForm). Raises ApiError, BodyTooLarge."""
    of_url, fault = parse_fields(request.rel_url.raw_query_string)
    if request.method not in ("POST", "PUT", "PATCH"):
        return Form(of_url, fault)
    if request.content_type == "application/x-www-form-urlencoded":
        body = await read_body(request, FORM_BYTES_MAX)
        of_body, fault_of_body = parse_fields(body.decode("utf-8", "surrogateescape"))
        return Form(of_body + of_url, fault_of_body or fault)
    if multipart and request.content_type == "multipart/form-data":
        return Form(of_url + await _multipart_fields(request), fault)
    return Form(of_url, fault)


async def _multipart_fields(request: web.Request) -> Fields:
    """Fields of a multipart body up to where it is malformed, without its files."""
    fields: Fields = []
    size = 0
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            value = bytearray()
            while chunk := await part.read_chunk():
                size += len(chunk)
                if size > FORM_BYTES_MAX:
                    raise BodyTooLarge(FORM_BYTES_MAX)
                value += chunk
            if part.name and part.filename is None:
                fields.append((part.name, value.decode("utf-8", "surrogateescape")))
    except ValueError:
        # Whatever the endpoint needs of the rest, it will miss.
        pass
    return fields
