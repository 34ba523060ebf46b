"""Connections between services as a bounded set of edges: who connects to whom, how often, how much.

Edges come from the event stream, which sees every connection however short, and from the kernel's list of
open TCP sockets, which knows bytes, retransmissions and round trips of those that live for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from agent.connectionrecords import connections
from agent.counttable import CountTable
from agent.eventcounts import FOLDED
from agent.events import Events
from agent.peers import PeerNames
from agent.processes import ProcessTable
from agent.processgroups import Group, GroupNames
from agent.sockdiag import ESTABLISHED, LISTEN
from agent.socketowners import OwnedSocket, SocketOwners
from ingest.gathered import Gathered, counter, gauge

EDGES_LIMIT = 2000
LABELS = ("client", "server", "port", "protocol", "side")


class Edge(NamedTuple):
    """`side` is the end that the agent sees, `client` or `server`; `port` is the server's."""

    client: str
    server: str
    port: int
    protocol: str
    side: str


OTHER = Edge("other", "other", 0, "other", "other")
_OPENED, _FAILED, _SENT, _RECEIVED, _RETRANSMITS = range(5)
_COUNTERS = (
    counter("vedette_connection_opened_total", "Connections that succeeded or were begun.", *LABELS),
    counter("vedette_connection_failed_total", "Connections that failed at once.", *LABELS),
    counter("vedette_connection_sent_bytes_total", "Bytes that this side sent and the other has.", *LABELS),
    counter("vedette_connection_received_bytes_total", "Bytes that this side received.", *LABELS),
    counter("vedette_connection_retransmits_total", "Segments that this side sent again.", *LABELS),
)
_OPEN = gauge("vedette_connection_open", "Open TCP connections.", *LABELS)
_ROUND_TRIP = gauge(
    "vedette_connection_round_trip_seconds", "Smoothed round trip, mean of the open TCP connections.", *LABELS
)


class ConnectionEdges:
    """Consumer of a `Watcher` and source of a `HostCollector`; `consume` and `collect` may run at once."""

    name = "connections"

    def __init__(
        self,
        names: GroupNames,
        peers: PeerNames,
        owners: SocketOwners,
        limit: int = EDGES_LIMIT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = names
        self._peers = peers
        self._owners = owners
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._counts: CountTable[Edge] = CountTable(OTHER, limit, len(_COUNTERS))
        self._seen: dict[tuple[str, int], tuple[int, int, int]] = {}
        self.errors: dict[str, str] = {}

    def consume(self, events: Events, table: ProcessTable) -> None:
        """Count the connections of a batch; an edge is looked up once a batch, not once a connection."""
        found = connections(events)
        if not found:
            return
        with self._lock:
            now = self._monotonic()
            for record in found:
                process = table.get(record.pid, record.start_ns)
                if process is None:
                    continue
                group = self._names.group(process)
                edge = self._edge(group, record.remote, record.port, record.protocol, record.side)
                if edge is not None:
                    column = _FAILED if record.failed else _OPENED
                    self._counts.values[self._counts.row(edge, now), column] += record.times

    def collect(self, out: Gathered) -> None:
        """Read the open sockets and add the series of all edges."""
        now = self._monotonic()
        sockets = self._owners.sockets(now)
        self.errors = self._owners.errors
        with self._lock:
            live = self._account(sockets, now)
            self._counts.forget(now)
            rows = [(edge, values.copy()) for edge, values in self._counts.items()]
            folded = self._counts.folded_count
        out.add(FOLDED, folded, "connection")
        for edge, values in rows:
            labels = (edge.client, edge.server, str(edge.port), edge.protocol, edge.side)
            for family, value in zip(_COUNTERS, values.tolist(), strict=True):
                if value:
                    out.add(family, value, *labels)
            open_count, round_trips = live.get(edge, (0, 0.0))
            if open_count:
                out.add(_OPEN, open_count, *labels)
                out.add(_ROUND_TRIP, round_trips / open_count, *labels)

    def _edge(self, group: Group, remote: bytes, port: int, protocol: str, side: str) -> Edge | None:
        """None for the server's side of a connection whose client is on this host: that side tells it."""
        if side == "client":
            return Edge(self._peers.of_group(group), self._peers.server(remote, port), port, protocol, side)
        if self._peers.is_own(remote):
            return None
        return Edge(self._peers.client(remote), self._peers.of_group(group), port, protocol, side)

    def _account(self, sockets: Sequence[OwnedSocket], now: float) -> dict[Edge, tuple[int, float]]:
        """Add what sockets transferred since the last time.

        Returns by edge the number of open connections and the sum of their round trips in seconds.
        """
        listening = {(s.namespace, s.tcp.local_port): s.group for s in sockets if s.tcp.state == LISTEN}
        self._peers.listeners = {
            port: self._peers.of_group(group)
            for (namespace, port), group in listening.items()
            if not namespace and group is not None
        }
        live: dict[Edge, tuple[int, float]] = {}
        seen, self._seen = self._seen, {}
        for namespace, tcp, group, _ in sockets:
            if tcp.state == LISTEN or group is None:
                continue
            server = (namespace, tcp.local_port) in listening
            port = tcp.local_port if server else tcp.remote_port
            edge = self._edge(group, tcp.remote, port, "tcp", "server" if server else "client")
            if edge is None:
                continue
            totals = (tcp.sent_bytes, tcp.received_bytes, tcp.retransmits)
            before = seen.get((namespace, tcp.cookie), (0, 0, 0))
            self._seen[namespace, tcp.cookie] = totals
            row = self._counts.row(edge, now)
            self._counts.values[row, _SENT:] += np.maximum(np.subtract(totals, before), 0)
            if tcp.state == ESTABLISHED:
                count, round_trips = live.get(edge, (0, 0.0))
                live[edge] = (count + 1, round_trips + tcp.round_trip_seconds)
        return live
