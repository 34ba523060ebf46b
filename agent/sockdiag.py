"""TCP connections with their byte counters, from the kernel's socket monitoring interface (sock_diag)."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass

NETLINK_SOCK_DIAG = 4
TIMEOUT_SECONDS = 2.0
SOCKETS_LIMIT = 20_000
"""Sockets of one dump; the rest is left out."""
ESTABLISHED, LISTEN = 1, 10
_ALIVE = sum(1 << state for state in (ESTABLISHED, 4, 5, 8, LISTEN))
"""Established, both sides of closing, listening."""
_BY_FAMILY, _ERROR, _DONE = 20, 2, 3
_DUMP_REQUEST = 0x301
_INFO = 2
_CLONE_NEWNET = 0x40000000
_HEADER = struct.Struct("<IHHII")
_MESSAGE = struct.Struct("<4B2H16s16sIQ4xIIII")
"""struct inet_diag_msg up to its inode; ports are in network order."""


_ROUND_TRIP_AT, _BYTES_END = 68, 136
"""Offsets in struct tcp_info, whose members never move."""


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """One socket; addresses are 4 or 16 bytes. Counters are 0 where the kernel gives none."""

    cookie: int
    """Number of the socket, never used twice."""
    state: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    inode: int
    sent_bytes: int = 0
    received_bytes: int = 0
    retransmits: int = 0
    round_trip_seconds: float = 0.0


def open_diag(namespace: str = "") -> socket.socket:
    """A socket that lists the connections of a network namespace (`/proc/PID/ns/net`), by default our own.

    Raises OSError where the kernel or the lack of root does not allow it.
    """
    if not namespace:
        return _netlink()
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def enter() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), namespace)
                made.append(_netlink())
            finally:
                os.close(descriptor)
        except OSError as error:
            failed.append(error)

    # A thread of its own: it ends inside the namespace, and nobody else is ever there.
    thread = threading.Thread(target=enter, name="network-namespace")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _netlink() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    made.settimeout(TIMEOUT_SECONDS)
    return made


def tcp_sockets(diag: socket.socket) -> list[TcpSocket]:
    """All TCP sockets of the namespace of `diag`, at most `SOCKETS_LIMIT`. Raises OSError."""
    found: list[TcpSocket] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("<4BI", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, _ALIVE) + bytes(48)
        diag.send(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _DUMP_REQUEST, 1, 0) + request)
        for message in _messages(diag):
            if len(found) < SOCKETS_LIMIT:
                found.append(_socket(message))
    return found


def _messages(diag: socket.socket) -> Iterator[bytes]:
    """Bodies of the answer's messages; the whole answer is read."""
    while True:
        data = diag.recv(1 << 18)
        at = 0
        while at + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -struct.unpack_from("<i", data, at + _HEADER.size)[0]
                raise OSError(number, os.strerror(number))
            if length < _HEADER.size + _MESSAGE.size or at + length > len(data):
                raise OSError(f"sock_diag: a message of {length} bytes makes no sense")
            yield data[at + _HEADER.size : at + length]
            at += (length + 3) & ~3


def _socket(message: bytes) -> TcpSocket:
    fields = _MESSAGE.unpack_from(message)
    family, state, _, _, local_port, remote_port, local, remote, _, cookie = fields[:10]
    width = 4 if family == socket.AF_INET else 16
    info = _attribute(message, _INFO)
    round_trip = retransmits = sent = received = 0
    if len(info) >= _BYTES_END:
        round_trip, retransmits = struct.unpack_from("<I28xI", info, _ROUND_TRIP_AT)
        sent, received = struct.unpack_from("<QQ", info, _BYTES_END - 16)
    return TcpSocket(
        cookie,
        state,
        local[:width],
        socket.ntohs(local_port),
        remote[:width],
        socket.ntohs(remote_port),
        fields[-1],
        sent,
        received,
        retransmits,
        round_trip / 1e6,
    )


def _attribute(message: bytes, wanted: int) -> bytes:
    at = _MESSAGE.size
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("<HH", message, at)
        if length < 4:
            break
        if kind == wanted:
            return message[at + 4 : at + length]
        at += (length + 3) & ~3
    return b""
