"""Connections of a batch of events, equal ones as one record."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.eventcounts import PROTOCOLS, distinct, protocols
from agent.events import Events
from agent.probe.layout import ADDRESS, KIND_CALL, SOCKET, TUPLE_STRUCT
from agent.probe.ringbuffer import Batch


class ConnectionRecord(NamedTuple):
    """`times` equal connections of one process; `side` is `client` for connect and `server` for accept."""

    pid: int
    start_ns: int
    remote: bytes
    port: int
    protocol: str
    side: str
    failed: bool
    times: int


def connections(events: Events) -> list[ConnectionRecord]:
    """Distinct connections over IP of a batch; of those that fail later only the begin is known."""
    header = events.batch.header
    call = header["kind"] == KIND_CALL
    found: list[ConnectionRecord] = []
    for side, types in (("client", ("connect",)), ("server", ("accept", "accept4"))):
        rows = events.rows_of(*types)
        rows = rows[call[rows] & ((side == "client") | (header["result"][rows] >= 0))]
        if len(rows):
            found += _of_side(events.batch.select(rows), side)
    return found


def _of_side(batch: Batch, side: str) -> list[ConnectionRecord]:
    header = batch.header
    sockets = batch.structs(SOCKET, TUPLE_STRUCT)
    if side == "client":
        family, port, remote = named_addresses(batch)
        failed = (header["result"] < 0) & (header["result"] != -errno.EINPROGRESS)
    else:
        family, port, remote = sockets["family"], sockets["local_port"], sockets["remote"]
        failed = np.zeros(len(batch), np.bool_)
    kinds = protocols(sockets)
    # Port 0 is how the C library asks for a route; nothing is connected.
    wanted = np.flatnonzero(np.isin(family, (socket.AF_INET, socket.AF_INET6)) & (port != 0))
    if not len(wanted):
        return []
    halves = np.ascontiguousarray(remote[wanted]).view(np.uint64)
    columns = [header["pid"], header["start_ns"], family, port, kinds, failed]
    first, inverse = distinct(*(column[wanted] for column in columns), halves[:, 0], halves[:, 1])
    records: list[ConnectionRecord] = []
    for at, count in zip(first.tolist(), np.bincount(inverse).tolist(), strict=True):
        row = int(wanted[at])
        width = 4 if family[row] == socket.AF_INET else 16
        records.append(
            ConnectionRecord(
                int(header["pid"][row]),
                int(header["start_ns"][row]),
                remote[row, :width].tobytes(),
                int(port[row]),
                PROTOCOLS[int(kinds[row])],
                side,
                bool(failed[row]),
                count,
            )
        )
    return records


def named_addresses(
    batch: Batch,
) -> tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint8]]:
    """Family, port and address bytes (records, 16) of the struct sockaddr of each record; 0 without one."""
    length, offset = batch.length[:, ADDRESS], batch.offset[:, ADDRESS].astype(np.int64)
    raw = np.zeros((len(batch), 24), np.uint8)
    for size in (8, 24):
        rows = np.flatnonzero(length >= size)
        raw[rows, :size] = batch.data[offset[rows, None] + np.arange(size)]
    family = raw[:, :2].copy().view("<u2")[:, 0]
    port = raw[:, 2:4].copy().view(">u2")[:, 0].astype(np.uint16)
    short = (family == socket.AF_INET)[:, None]
    address = np.where(short, np.pad(raw[:, 4:8], ((0, 0), (0, 12))), raw[:, 8:24])
    return family, port, address
