"""Unary gRPC calls over a Unix socket: what the CRI needs, on the library `h2`.

`grpcio` would add 19 MB on disk and 11 MB of memory for four short calls a container; `h2` is pure Python.
"""

from __future__ import annotations

import socket
import time
import urllib.parse
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

MESSAGE_BYTES_LIMIT = 4 << 20
"""As in gRPC's own libraries."""
PREFIX_BYTES = 5
"""Before each message: whether it is compressed, and its length."""
_READ_BYTES = 1 << 16

OK, NOT_FOUND, UNIMPLEMENTED = 0, 5, 12


class CallError(OSError):
    """A call that the server answered with another status than OK."""

    def __init__(self, method: str, status: int, text: str) -> None:
        super().__init__(f"{method}: gRPC status {status}: {text}")
        self.status = status


class UnaryChannel:
    """One connection to one server; calls one after another. A context manager, one thread."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        """Connect. Raises OSError (FileNotFoundError where there is no socket). The time is for each call."""
        self._path = path
        self._timeout = timeout_seconds
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        try:
            self._socket.settimeout(timeout_seconds)
            self._socket.connect(path)
            self._connection.initiate_connection()
            # Room for a whole message at once: fewer round trips.
            self._connection.increment_flow_control_window(MESSAGE_BYTES_LIMIT)
            self._flush()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, method: str, message: bytes) -> bytes:
        """The answer to one message; `method` is `/package.Service/Method`.

        Raises CallError for the server's refusal, OSError when it does not answer in time or breaks off,
        ValueError for an answer that makes no sense or is too large.
        """
        deadline = time.monotonic() + self._timeout
        try:
            return self._call(method, message, deadline)
        except ProtocolError as error:
            raise ValueError(f"{self._path}: {method}: {type(error).__name__}: {error}") from None

    def _call(self, method: str, message: bytes, deadline: float) -> bytes:
        stream = self._connection.get_next_available_stream_id()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("grpc-timeout", f"{max(1, int(self._timeout * 1000))}m"),
        ]
        self._connection.send_headers(stream, headers)
        self._connection.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        self._flush()
        answer = _Answer(self._path, method, stream)
        while not answer.ended:
            for event in self._connection.receive_data(self._receive(method, deadline)):
                answer.take(event)
                if isinstance(event, DataReceived):
                    self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._flush()
        return answer.message()

    def _receive(self, method: str, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{self._path}: {method}: timed out after {self._timeout:g} s")
        self._socket.settimeout(left)
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError(f"{self._path}: {method}: the runtime closed the connection")
        return data

    def _flush(self) -> None:
        data = self._connection.data_to_send()
        if data:
            self._socket.sendall(data)


class _Answer:
    """What has come of one call."""

    def __init__(self, path: str, method: str, stream: int) -> None:
        self._what = f"{path}: {method}"
        self._method = method
        self._stream = stream
        self._body = bytearray()
        self._http_status = ""
        self._status: int | None = None
        self._text = ""
        self.ended = False

    def take(self, event: Event) -> None:
        """Follow one event. Raises OSError, ValueError."""
        if isinstance(event, ConnectionTerminated):
            raise ConnectionError(f"{self._what}: the runtime ends the connection")
        if getattr(event, "stream_id", None) != self._stream:
            return
        if isinstance(event, StreamReset):
            if not self.ended or event.error_code != ErrorCodes.NO_ERROR:
                raise ConnectionError(f"{self._what}: the runtime reset the call ({event.error_code})")
        elif isinstance(event, ResponseReceived | TrailersReceived):
            self._follow(event.headers)
        elif isinstance(event, DataReceived):
            self._body += event.data
            if len(self._body) > MESSAGE_BYTES_LIMIT + PREFIX_BYTES:
                raise ValueError(f"{self._what}: answer exceeds {MESSAGE_BYTES_LIMIT} bytes")
        elif isinstance(event, StreamEnded):
            self.ended = True

    def _follow(self, headers: Iterable[tuple[str | bytes, str | bytes]]) -> None:
        for raw_name, raw_value in headers:
            name, value = str(raw_name), str(raw_value)
            if name == ":status":
                self._http_status = value
            elif name == "grpc-status":
                self._status = int(value) if value.isascii() and value.isdigit() else -1
            elif name == "grpc-message":
                self._text = urllib.parse.unquote(value)[:512]

    def message(self) -> bytes:
        """The one message of the body. Raises CallError, ValueError."""
        if self._status is None:
            raise ValueError(f"{self._what}: no gRPC status in the answer (HTTP {self._http_status or '?'})")
        if self._status != OK:
            raise CallError(self._method, self._status, self._text)
        length = int.from_bytes(self._body[1:PREFIX_BYTES], "big")
        if len(self._body) != PREFIX_BYTES + length or self._body[0]:
            raise ValueError(f"{self._what}: answer is not one uncompressed message")
        return bytes(self._body[PREFIX_BYTES:])
