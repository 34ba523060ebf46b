"""DNS questions over UDP, and over TCP where the answer is too long (RFC 1035, 2782)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

QUERY_SECONDS = 5.0
"""One server's time to answer."""
_COMPRESSION_JUMPS_MAX = 64
_NAME_BYTES_MAX = 255
_PORT = 53

RECORD_TYPES = {"A": 1, "NS": 2, "MX": 15, "AAAA": 28, "SRV": 33}
_CLASS_IN = 1
_RCODE_NXDOMAIN = 3


class DNSError(Exception):
    """No server gave a usable answer."""


@dataclass(frozen=True, slots=True)
class Record:
    """An answer: `target` is an address or a name without the final dot; `port` only of SRV."""

    type: str
    target: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Resolver:
    """Where to ask."""

    servers: tuple[str, ...]
    search: tuple[str, ...] = ()
    port: int = _PORT


def system_resolver(path: str = "/etc/resolv.conf") -> Resolver:
    """The machine's name servers and search domains."""
    servers, search = [], tuple[str, ...]()
    with contextlib.suppress(OSError):
        for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                servers.append(words[1])
            elif len(words) >= 2 and words[0] in ("search", "domain"):
                search = tuple(words[1:])
    return Resolver(tuple(servers) or ("127.0.0.1",), search)


async def lookup(name: str, kind: str, resolver: Resolver, rng: random.Random) -> list[Record]:
    """Records of a name, tried as it is and under each search domain. Raises DNSError."""
    names = (
        [name] if name.endswith(".") else [f"{name}.", *(f"{name}.{d.rstrip('.')}." for d in resolver.search)]
    )
    failure: Exception | None = None
    for candidate in names:
        for server in resolver.servers:
            try:
                records = await _ask(candidate, kind, server, resolver.port, rng)
            except (DNSError, OSError, TimeoutError) as error:
                failure = error
                continue
            if records:
                return records
            break
    if failure is not None:
        raise DNSError(f"could not resolve {name!r}: {failure or type(failure).__name__}")
    return []


async def _ask(name: str, kind: str, server: str, port: int, rng: random.Random) -> list[Record]:
    number = rng.randrange(1 << 16)
    query = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + _encode(name)
    query += struct.pack(">HH", RECORD_TYPES[kind], _CLASS_IN)
    async with asyncio.timeout(QUERY_SECONDS):
        message = await _udp(query, server, port, number)
        if message[2] & 0x02:
            message = await _tcp(query, server, port)
    return parse_answer(message, number, kind)


async def _udp(query: bytes, server: str, port: int, number: int) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (server, port))
        await loop.sock_sendall(sock, query)
        while True:
            message = await loop.sock_recv(sock, 1 << 16)
            if len(message) >= 12 and int.from_bytes(message[:2], "big") == number:
                return message


async def _tcp(query: bytes, server: str, port: int) -> bytes:
    reader, writer = await asyncio.open_connection(server, port)
    try:
        writer.write(struct.pack(">H", len(query)) + query)
        await writer.drain()
        length = int.from_bytes(await reader.readexactly(2), "big")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        raise DNSError("connection closed within an answer") from None
    finally:
        writer.close()


def _encode(name: str) -> bytes:
    encoded = b""
    for label in name.rstrip(".").split("."):
        raw = label.encode("idna") if not label.isascii() else label.encode()
        if not 0 < len(raw) < 64:
            raise DNSError(f"invalid name {name!r}")
        encoded += bytes([len(raw)]) + raw
    if len(encoded) > _NAME_BYTES_MAX:
        raise DNSError(f"invalid name {name!r}")
    return encoded + b"\0"


def _name(message: bytes, at: int) -> tuple[str, int]:
    labels: list[str] = []
    after = -1
    for _ in range(_COMPRESSION_JUMPS_MAX + _NAME_BYTES_MAX):
        if at >= len(message):
            break
        length = message[at]
        if length & 0xC0 == 0xC0 and at + 1 < len(message):
            after = at + 2 if after < 0 else after
            at = (length & 0x3F) << 8 | message[at + 1]
        elif length == 0:
            return ".".join(labels), at + 1 if after < 0 else after
        elif length < 64 and at + 1 + length <= len(message):
            labels.append(message[at + 1 : at + 1 + length].decode(errors="replace"))
            at += 1 + length
        else:
            break
    raise DNSError("malformed name in an answer")


def parse_answer(message: bytes, number: int, kind: str) -> list[Record]:
    """Records of the asked type in a message; [] for an unknown name. Raises DNSError."""
    if len(message) < 12 or int.from_bytes(message[:2], "big") != number:
        raise DNSError("malformed answer")
    flags, questions, answers = struct.unpack_from(">HHH", message, 2)
    code = flags & 0x0F
    if code == _RCODE_NXDOMAIN:
        return []
    if code:
        raise DNSError(f"server answered with code {code}")
    at, found = 12, []
    try:
        for _ in range(questions):
            _, at = _name(message, at)
            at += 4
        for _ in range(answers):
            _, at = _name(message, at)
            record_type, record_class, _, length = struct.unpack_from(">HHIH", message, at)
            at += 10
            if record_type == RECORD_TYPES[kind] and record_class == _CLASS_IN:
                found.append(_record(message, at, length, kind))
            at += length
    except struct.error:
        raise DNSError("truncated answer") from None
    return found


def _record(message: bytes, at: int, length: int, kind: str) -> Record:
    data = message[at : at + length]
    if kind == "A" and len(data) == 4:
        return Record(kind, socket.inet_ntop(socket.AF_INET, data))
    if kind == "AAAA" and len(data) == 16:
        return Record(kind, socket.inet_ntop(socket.AF_INET6, data))
    if kind == "SRV" and length > 6:
        return Record(kind, _name(message, at + 6)[0], struct.unpack_from(">H", message, at + 4)[0])
    if kind == "MX" and length > 2:
        return Record(kind, _name(message, at + 2)[0])
    if kind == "NS":
        return Record(kind, _name(message, at)[0])
    raise DNSError(f"malformed {kind} record")


def join_host_port(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def names_of(records: Sequence[Record]) -> list[str]:
    """Targets of records in order."""
    return [record.target for record in records]
