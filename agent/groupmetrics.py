"""Metrics of process groups and of their connections as one set: they share names and one scan of `/proc`."""

from __future__ import annotations

import time

from agent.callcounts import CallCounts, measured_calls
from agent.connectionedges import ConnectionEdges
from agent.eventcounts import CALLS, EventCounts
from agent.groupconfig import ConnectionsConfig, ProcessesConfig
from agent.hostcollector import Source
from agent.jvmmetrics import JvmSource
from agent.peers import PeerNames
from agent.processgroups import GroupNames
from agent.processmetrics import ProcessGroupSource
from agent.processscan import ProcessScan
from agent.runtimes.lookup import ContainerLookup
from agent.socketowners import SocketOwners
from agent.watcher import Consumer, CostConsumer


class GroupMetrics:
    """The sources for a `HostCollector` and the consumers for a `Watcher`, empty where turned off."""

    def __init__(
        self, processes: ProcessesConfig, connections: ConnectionsConfig, containers: ContainerLookup
    ) -> None:
        names = GroupNames([entry.rule() for entry in processes.groups])
        scan = ProcessScan(names)
        self.sources: list[Source] = []
        self.consumers: list[Consumer] = []
        self.calls: set[str] = set()
        """System calls to enable for the consumers."""
        self.cost_consumers: list[CostConsumer] = []
        self.measured: frozenset[str] = frozenset()
        """System calls to measure for them."""
        if processes.enabled:
            # First, because it runs the scan that the others read.
            self.sources.append(ProcessGroupSource(scan, containers.names_of, processes.limit))
            self.sources.append(JvmSource(scan, containers.names_of))
            counts = EventCounts(names, containers.names_of, processes.limit)
            self.sources.append(counts)
            self.consumers.append(counts.consume)
            self.calls.update(CALLS)
            if processes.calls.enabled:
                costs = CallCounts(names, containers.names_of, processes.calls.limit)
                self.sources.append(costs)
                self.cost_consumers.append(costs.consume)
                self.measured = measured_calls(processes.calls.data)
        if connections.enabled:
            peers = PeerNames(containers, time.monotonic)
            edges = ConnectionEdges(names, peers, SocketOwners(scan), connections.limit)
            self.sources.append(edges)
            self.consumers.append(edges.consume)
            self.calls.update(("connect", "accept", "accept4"))
