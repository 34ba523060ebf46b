"""Events by POST to an HTTP(S) receiver."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from security.outputs.output import RefusedError
from security.record import EventRecord

_ANSWER_BYTES = 512
"""What is read of an answer, for the error text."""
_AGAIN = frozenset({408, 425, 429})
"""Statuses below 500 that say that the same request may succeed later."""


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """Where and how. `batch` above 1 sends a line an event, which is newline-delimited JSON."""

    url: str
    content_type: str
    batch: int
    timeout_s: float
    headers: Mapping[str, str] = field(default_factory=dict)
    context: ssl.SSLContext | None = None


class HttpChannel:
    """One kept-alive connection, opened again after each failure."""

    def __init__(self, target: HttpTarget) -> None:
        self._target = target
        self.batch = target.batch
        self._connection: http.client.HTTPConnection | None = None

    def send(self, lines: Sequence[tuple[EventRecord, str]]) -> None:
        """POST the events. Raises OSError for a receiver that is down or says so, RefusedError for one that
        does not want them."""
        texts = [text for _, text in lines]
        body = "\n".join([*texts, ""] if self.batch > 1 else texts).encode("utf-8", "replace")
        url = urlsplit(self._target.url)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {"Content-Type": self._target.content_type, **self._target.headers}
        try:
            connection = self._connected()
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            text = answer.read(_ANSWER_BYTES)
            # What is left of a long answer would be read as the next one.
            if answer.read(1):
                self.reopen()
        except (OSError, http.client.HTTPException) as error:
            self.reopen()
            raise OSError(f"POST {self._target.url}: {error or type(error).__name__}") from error
        if answer.status >= 300:
            shown = text.decode("utf-8", "replace").strip()
            reason = f"POST {self._target.url}: {answer.status} {answer.reason}: {shown}"
            if answer.status >= 500 or answer.status in _AGAIN:
                raise OSError(reason)
            raise RefusedError(reason)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            url, timeout_s = urlsplit(self._target.url), self._target.timeout_s
            assert url.hostname is not None
            if url.scheme == "https":
                self._connection = http.client.HTTPSConnection(
                    url.hostname, url.port, timeout=timeout_s, context=self._target.context
                )
            else:
                self._connection = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout_s)
        return self._connection

    def reopen(self) -> None:
        """Close; the next event connects anew."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the connection."""
        self.reopen()
