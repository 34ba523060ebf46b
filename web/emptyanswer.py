"""The answer of a write that was stored, which is the same each time: no content, nothing but headers.

Senders get hundreds a second, and putting the same headers together was a quarter of the event loop's time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11
from aiohttp.web_request import BaseRequest

NO_CONTENT = 204
VARY = ("Origin", "Accept-Encoding")
"""What answers of the API depend on beside the URL."""

_PLAIN = "".join(f"Vary: {name}\r\n" for name in VARY)


class _Head:
    """The rendered head of an answer without headers of its own, kept for a second."""

    def __init__(self) -> None:
        self._second = -1
        self._bytes = b""

    def at(self, now_s: float) -> bytes:
        """The head with the date of a Unix time."""
        second = int(now_s)
        if second != self._second:
            date = formatdate(second, usegmt=True)
            text = f"HTTP/1.1 204 No Content\r\n{_PLAIN}Date: {date}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n"
            self._second, self._bytes = second, text.encode("latin-1")
        return self._bytes


_HEAD = _Head()


class EmptyAnswer(web.Response):
    """204. To usual requests it is written in one piece; what may need other headers takes the usual way."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(status=NO_CONTENT, headers=headers or None)
        self._is_plain = not headers
        self._is_written = False

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Send the head. Raises ConnectionResetError where the client is gone."""
        usual = (
            self._is_plain
            and not self.prepared
            and request.version == HttpVersion11
            and request.keep_alive
            and "Origin" not in request.headers
        )
        if not usual:
            return await super().prepare(request)
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(_HEAD.at(time.time()))
        self._is_written = True
        return None

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection stays open."""
        return True if self._is_written else super().keep_alive

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing follows the head."""
        if not self._is_written:
            await super().write_eof(data)
