"""`fd.*` of sockets: addresses, ports, roles. `fd.ip`, `fd.net`, `fd.port` and `fd.proto` hold both ends."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agent.fields.files import has_descriptor
from agent.fields.sockets import Sockets
from agent.fields.view import Loader, View, numbers_where
from security.columns import MISSING_CODE, AnyColumn, Column, ColumnKey, Dictionary, ListColumn
from security.fields.connections import service_name

Bytes = NDArray[np.uint8]
_SOURCES_LIMIT = 65_536
"""Datagram sockets whose last other end is remembered."""
_DATAGRAM_CALLS = frozenset(("sendto", "sendmsg", "recvfrom", "recvmsg"))
UNKNOWN_PROTOCOL = "<NA>"
_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_ICMP: "icmp"}


class End:
    """One end of each event's socket, or the other: addresses, ports, and where there is one."""

    def __init__(self, sockets: Sockets, local: NDArray[np.bool_]) -> None:
        """`local` says for each event whether this is the end on this host."""
        self.addresses = np.where(local[:, None], sockets.local, sockets.remote)
        self.ports = np.where(local, sockets.local_port, sockets.remote_port)
        self.present = np.where(local, sockets.has_local, sockets.has_remote)
        self.is_v6 = sockets.is_v6


EndCodes = Callable[[End, NDArray[np.int64]], NDArray[np.int32]]


def _end(view: View, side: str) -> End:
    """The end that a letter of a field's name means: client, server, local, remote."""
    sockets, everything = view.sockets, np.ones(len(view), np.bool_)
    local = {
        "c": ~sockets.is_server,
        "s": sockets.is_server,
        "l": everything,
        "r": ~everything,
    }
    return End(sockets, local[side])


def address_codes(dictionary: Dictionary, addresses: Bytes, is_v6: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Codes of addresses (n, 16) as `IPv4Address` and `IPv6Address`."""
    codes = np.empty(len(addresses), np.int32)
    four = ~is_v6
    numbers = np.ascontiguousarray(addresses[four, :4]).view(">u4").reshape(-1)
    distinct, inverse = np.unique(numbers, return_inverse=True)
    known = [dictionary.code(ipaddress.IPv4Address(int(number))) for number in distinct.tolist()]
    codes[four] = np.array(known, np.int32)[inverse] if known else []
    for row in np.flatnonzero(is_v6).tolist():
        codes[row] = dictionary.code(ipaddress.IPv6Address(addresses[row].tobytes()))
    return codes


def _address(view: View, key: ColumnKey) -> AnyColumn:
    end = _end(view, key[0].removeprefix("fd.")[0])
    dictionary = view.known.lasting.vocabulary(key).dictionary
    codes = np.full(len(view), MISSING_CODE, np.int32)
    rows = np.flatnonzero(end.present)
    codes[rows] = address_codes(dictionary, end.addresses[rows], end.is_v6[rows])
    return Column(codes, dictionary)


def _both(view: View, codes: EndCodes, dictionary: Dictionary) -> ListColumn:
    """Values of this end and of the other, for events that have them."""
    near, far = _end(view, "l"), _end(view, "r")
    counts = near.present.astype(np.int64) + far.present
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    flat = np.empty(int(offsets[-1]), np.int32)
    rows = np.flatnonzero(near.present)
    flat[offsets[rows]] = codes(near, rows)
    rows = np.flatnonzero(far.present)
    flat[offsets[rows] + near.present[rows]] = codes(far, rows)
    return ListColumn(flat, offsets, counts > 0, dictionary)


def _addresses(view: View, key: ColumnKey) -> AnyColumn:
    dictionary = view.known.lasting.vocabulary(key).dictionary

    def codes(end: End, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        return address_codes(dictionary, end.addresses[rows], end.is_v6[rows])

    return _both(view, codes, dictionary)


def _ports(view: View, key: ColumnKey) -> AnyColumn:
    dictionary = view.known.lasting.vocabulary(key).dictionary

    def codes(end: End, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        distinct, inverse = np.unique(end.ports[rows], return_inverse=True)
        known = [dictionary.code(port) for port in distinct.tolist()]
        return np.array(known, np.int32)[inverse]

    return _both(view, codes, dictionary)


def _port(view: View, key: ColumnKey) -> AnyColumn:
    end = _end(view, key[0].removeprefix("fd.")[0])
    return numbers_where(end.ports, end.present)


def _service(view: View, key: ColumnKey) -> AnyColumn:
    end = _end(view, key[0].removeprefix("fd.")[0])
    protocols = view.sockets.tuples["protocol"].astype(np.int64)

    def text(row: int) -> str | None:
        protocol = _PROTOCOLS.get(int(protocols[row]), "")
        return service_name(int(end.ports[row]), protocol) if end.present[row] else None

    return view.of_groups(key, end.ports << 17 | protocols << 1 | end.present, text)


def _services(view: View, key: ColumnKey) -> AnyColumn:
    dictionary = view.known.lasting.vocabulary(key).dictionary
    protocols = view.sockets.tuples["protocol"]

    def codes(end: End, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        names = [service_name(int(end.ports[row]), _PROTOCOLS.get(int(protocols[row]), "")) for row in rows]
        return dictionary.codes(names)

    return _both(view, codes, dictionary)


def _transport(view: View, key: ColumnKey) -> AnyColumn:
    kinds, protocols = view.sockets.tuples["type"], view.sockets.tuples["protocol"]

    def text(row: int) -> str:
        if kinds[row] == socket.SOCK_RAW:
            return "raw"
        return _PROTOCOLS.get(int(protocols[row]), UNKNOWN_PROTOCOL)

    groups = kinds.astype(np.int64) << 16 | protocols
    column = view.of_groups(key, groups, text)
    return Column(np.where(has_descriptor(view), column.codes, MISSING_CODE), column.dictionary)


def _family(view: View, key: ColumnKey) -> AnyColumn:
    texts: dict[int, str] = {socket.AF_INET: "ip", socket.AF_INET6: "ip", socket.AF_UNIX: "unix"}
    families = view.sockets.family
    return view.of_groups(key, families.astype(np.int64), lambda row: texts.get(int(families[row])))


def _is_server(view: View, key: ColumnKey) -> AnyColumn:
    return numbers_where(view.sockets.is_server & view.sockets.is_ip, has_descriptor(view))


def _connected(view: View, key: ColumnKey) -> AnyColumn:
    return numbers_where(view.sockets.connected, has_descriptor(view))


def _name_changed(view: View, key: ColumnKey) -> AnyColumn:
    """Whether a datagram went to, or came from, another end than the one before on the same socket."""
    sockets = view.sockets
    changed = np.zeros(len(view), np.bool_)
    rows = view.rows_of(_DATAGRAM_CALLS) & sockets.has_remote & (sockets.tuples["remote_port"] == 0)
    rows |= view.rows_of(frozenset(("connect",))) & sockets.has_remote
    last = view.known.destinations
    inodes = view.descriptors["inode"]
    for row in np.flatnonzero(rows).tolist():
        if len(last) >= _SOURCES_LIMIT:
            last.clear()
        inode = int(inodes[row])
        other = sockets.remote[row].tobytes() + int(sockets.remote_port[row]).to_bytes(2, "big")
        changed[row] = last.get(inode) != other
        last[inode] = other
    return numbers_where(changed, has_descriptor(view))


def _resolved(view: View, key: ColumnKey) -> AnyColumn:
    """The name of an address that some rule asks for; no other name is looked up."""
    plain = _address(view, (key[0].removesuffix(".name"), None))
    assert isinstance(plain, Column)
    values = plain.dictionary.values

    def text(row: int) -> str | None:
        code = int(plain.codes[row])
        return None if code < 0 else view.known.address_names(str(values[code]))

    return view.of_groups(key, plain.codes.astype(np.int64), text)


def loaders() -> dict[str, Loader]:
    """Loaders by field."""
    found: dict[str, Loader] = {}
    for side in "cslr":
        found |= {
            f"fd.{side}ip": _address,
            f"fd.{side}net": _address,
            f"fd.{side}port": _port,
            f"fd.{side}proto": _service,
            f"fd.{side}ip.name": _resolved,
        }
    return found | {
        "fd.ip": _addresses,
        "fd.net": _addresses,
        "fd.port": _ports,
        "fd.proto": _services,
        "fd.l4proto": _transport,
        "fd.sockfamily": _family,
        "fd.is_server": _is_server,
        "fd.connected": _connected,
        "fd.name_changed": _name_changed,
    }
