"""Both ends of the sockets of a batch as arrays: families, addresses, ports, and who is the server.

The same rules as in `agent.descriptors`, which makes one socket at a time.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agent.probe.layout import ADDRESS, SOCKET, TUPLE_STRUCT
from agent.probe.ringbuffer import Batch
from security.fields.connections import ACCEPTS, EPHEMERAL_PORT

ESTABLISHED, SYN_SENT = 1, 2
_OWN_ADDRESS = ACCEPTS | {"bind"}
_RECEIVES = frozenset(("recvfrom", "recvmsg"))
_V4_BYTES, _V6_BYTES = 8, 24
"""Bytes of a struct sockaddr up to the end of its address."""
_MAPPED_PREFIX = np.array([0] * 10 + [0xFF, 0xFF], np.uint8)
Bytes = NDArray[np.uint8]


class Sockets:
    """One row an event; rows without an IP socket have family 0 and mean nothing otherwise.

    Addresses are (events, 16) bytes: four and zeros for IPv4, also where it is mapped into IPv6.
    """

    def __init__(self, batch: Batch, rows_of: Callable[[frozenset[str]], NDArray[np.bool_]]) -> None:
        """`rows_of` says which events are of some types."""
        self._batch = batch
        self._of_types = rows_of
        self.tuples = batch.structs(SOCKET, TUPLE_STRUCT)
        self.family: NDArray[np.uint16] = self.tuples["family"]

    @cached_property
    def is_ip(self) -> NDArray[np.bool_]:
        """Which events have an IP socket."""
        return np.asarray((self.family == socket.AF_INET) | (self.family == socket.AF_INET6))

    @cached_property
    def _named(self) -> tuple[Bytes, NDArray[np.int64]]:
        """Address and port that the call names, port 0 where it names none or it is not the other end's."""
        batch, count = self._batch, len(self._batch)
        addresses, ports = np.zeros((count, 16), np.uint8), np.zeros(count, np.int64)
        lengths = batch.length[:, ADDRESS]
        rows = np.flatnonzero((lengths >= _V4_BYTES) & self.is_ip & ~self._of_types(_OWN_ADDRESS))
        if not len(rows):
            return addresses, ports
        head = batch.data[batch.offset[rows, ADDRESS, None] + np.arange(_V4_BYTES)].astype(np.int64)
        family = head[:, 0] | head[:, 1] << 8
        four = family == socket.AF_INET
        six = (family == socket.AF_INET6) & (lengths[rows] >= _V6_BYTES)
        ports[rows] = np.where(four | six, head[:, 2] << 8 | head[:, 3], 0)
        addresses[rows[four], :4] = head[four, 4:8]
        if six.any():
            at = batch.offset[rows[six], ADDRESS, None] + np.arange(_V4_BYTES, _V6_BYTES)
            addresses[rows[six]] = _unmapped(batch.data[at])[0]
        return addresses, ports

    @cached_property
    def _ends(self) -> tuple[Bytes, Bytes, NDArray[np.int64], NDArray[np.bool_]]:
        """Local and remote address, remote port, and which IPv6 sockets carry IPv4."""
        local, local_mapped = self._normal(self.tuples["local"])
        remote, remote_mapped = self._normal(self.tuples["remote"])
        ports = self.tuples["remote_port"].astype(np.int64)
        address, named = self._named
        from_call = (ports == 0) & (named > 0)
        remote = np.where(from_call[:, None], address, remote)
        remote_mapped = np.where(from_call, _is_v4(address), remote_mapped)
        six = self.family == socket.AF_INET6
        empty_local, empty_remote = ~local.any(axis=1), ~remote.any(axis=1)
        mapped = six & (local_mapped | empty_local) & (remote_mapped | empty_remote)
        mapped &= ~(empty_local & empty_remote)
        return local, remote, np.where(from_call, named, ports), mapped

    def _normal(self, addresses: Bytes) -> tuple[Bytes, NDArray[np.bool_]]:
        """Addresses with mapped ones as IPv4; of IPv4 sockets only four bytes mean something."""
        six = self.family == socket.AF_INET6
        found, mapped = _unmapped(addresses)
        four = np.zeros_like(addresses)
        four[:, :4] = addresses[:, :4]
        return np.where(six[:, None], found, four), mapped & six

    @property
    def local(self) -> Bytes:
        """Addresses of this end."""
        return self._ends[0]

    @property
    def remote(self) -> Bytes:
        """Addresses of the other end."""
        return self._ends[1]

    @property
    def remote_port(self) -> NDArray[np.int64]:
        """Ports of the other end, 0 where there is none."""
        return self._ends[2]

    @property
    def mapped(self) -> NDArray[np.bool_]:
        """IPv6 sockets that carry IPv4."""
        return self._ends[3]

    @cached_property
    def local_port(self) -> NDArray[np.int64]:
        """Ports of this end."""
        return self.tuples["local_port"].astype(np.int64)

    @cached_property
    def is_v6(self) -> NDArray[np.bool_]:
        """Whose addresses are sixteen bytes long."""
        return np.asarray((self.family == socket.AF_INET6) & ~self.mapped)

    @cached_property
    def is_server(self) -> NDArray[np.bool_]:
        """Whether this end is the server: by the call, else by ports, else by the direction of the data."""
        low_local, low_remote = self.local_port < EPHEMERAL_PORT, self.remote_port < EPHEMERAL_PORT
        guess = np.where(low_local != low_remote, low_local, self._of_types(_RECEIVES))
        accepts, connects = self._of_types(ACCEPTS), self._of_types(frozenset(("connect",)))
        return np.asarray((accepts | (guess & ~connects)) | (self.remote_port == 0))

    @cached_property
    def has_local(self) -> NDArray[np.bool_]:
        """Whether this end has an address."""
        return np.asarray(self.is_ip & ((self.local_port > 0) | (self.remote_port > 0)))

    @cached_property
    def has_remote(self) -> NDArray[np.bool_]:
        """Whether there is another end."""
        return np.asarray(self.is_ip & (self.remote_port > 0))

    @cached_property
    def connected(self) -> NDArray[np.bool_]:
        """Connected, or about to be."""
        results = self._batch.header["result"]
        pending = (results >= 0) | (results == -errno.EINPROGRESS)
        connects = self._of_types(frozenset(("connect",)))
        kernel = (self.tuples["remote_port"] > 0) & np.isin(self.tuples["state"], (ESTABLISHED, SYN_SENT))
        return self.is_ip & np.where(connects, pending & (self.remote_port > 0), kernel)


def _is_v4(addresses: Bytes) -> NDArray[np.bool_]:
    return np.asarray(~addresses[:, 4:].any(axis=1))


def _unmapped(addresses: Bytes) -> tuple[Bytes, NDArray[np.bool_]]:
    """IPv6 addresses with those that are mapped IPv4 ones as four bytes, and which these were."""
    mapped = (addresses[:, :12] == _MAPPED_PREFIX).all(axis=1)
    found = addresses.copy()
    found[mapped, :4] = addresses[mapped, 12:]
    found[mapped, 4:] = 0
    return found, mapped
