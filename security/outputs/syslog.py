"""Events to a syslog receiver: RFC 5424 messages over UDP (RFC 5426), TCP or TLS (RFC 6587, RFC 5425).

The handler of the standard library writes RFC 3164 without time and host and knows no TLS.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

from security.output import format_utc
from security.record import EventRecord

UDP_BYTES_LIMIT = 65_000
"""What one datagram carries; a longer message is cut."""
_NILVALUE = "-"
_NOT_PRINTABLE = re.compile(r"[^!-~]")


@dataclass(frozen=True, slots=True)
class SyslogTarget:
    """Where and how; `context` is that of TLS, None for plain connections."""

    protocol: str
    host: str
    port: int
    facility: int
    app_name: str
    timeout_s: float
    context: ssl.SSLContext | None = None


def message(target: SyslogTarget, record: EventRecord, text: str) -> bytes:
    """One message. The severities of syslog are Falco's priorities."""
    output = record.output
    priority = target.facility * 8 + output.priority
    hostname = _NOT_PRINTABLE.sub("_", record.hostname)[:255] or _NILVALUE
    # RFC 5424 has at most six digits of a second.
    time_text = format_utc(output.time_ns)[:-4] + "Z"
    message_id = _NOT_PRINTABLE.sub("_", output.source)[:32] or _NILVALUE
    head = f"<{priority}>1 {time_text} {hostname} {target.app_name} {os.getpid()} {message_id} {_NILVALUE} "
    # The mark says that the text is UTF-8 (RFC 5424, section 6.4).
    return head.encode() + b"\xef\xbb\xbf" + text.encode("utf-8", "replace")


class SyslogChannel:
    """One connection, opened at the first event and after each failure."""

    batch = 64

    def __init__(self, target: SyslogTarget) -> None:
        self._target = target
        self._socket: socket.socket | None = None

    def send(self, lines: Sequence[tuple[EventRecord, str]]) -> None:
        """Send messages. Raises OSError."""
        messages = [message(self._target, record, text) for record, text in lines]
        try:
            connection = self._connected()
            if self._target.protocol == "udp":
                for data in messages:
                    connection.send(data[:UDP_BYTES_LIMIT])
            else:
                self._check_open(connection)
                connection.sendall(b"".join(b"%d %s" % (len(data), data) for data in messages))
        except OSError:
            self.reopen()
            raise

    @staticmethod
    def _check_open(connection: socket.socket) -> None:
        """A receiver that closed its end takes one more write without an error; look before that."""
        timeout = connection.gettimeout()
        connection.settimeout(0)
        try:
            closed = connection.recv(1) == b""
        except (ssl.SSLWantReadError, BlockingIOError):
            closed = False
        finally:
            connection.settimeout(timeout)
        if closed:
            raise ConnectionResetError("the syslog receiver closed the connection")

    def _connected(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        target = self._target
        if target.protocol == "udp":
            family, kind, proto, _, address = socket.getaddrinfo(
                target.host, target.port, type=socket.SOCK_DGRAM
            )[0]
            connection = socket.socket(family, kind, proto)
            try:
                connection.settimeout(target.timeout_s)
                connection.connect(address)
            except OSError:
                connection.close()
                raise
        else:
            connection = socket.create_connection((target.host, target.port), target.timeout_s)
            if target.context is not None:
                try:
                    connection = target.context.wrap_socket(connection, server_hostname=target.host)
                except OSError:
                    connection.close()
                    raise
        self._socket = connection
        return connection

    def reopen(self) -> None:
        """Close; the next event connects anew."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close the connection."""
        self.reopen()
