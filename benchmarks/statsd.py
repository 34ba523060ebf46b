"""Throughput of the StatsD listener: the aggregator alone, then a UDP socket with a paced sender.

Run: `python -m benchmarks.statsd`. Prints lines a second and what was lost; the figures of
docs/agent-metrics.md come from here.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import uvloop
from prometheus_client import CollectorRegistry

from ingest.gathered import Gathered
from ingest.statsd.aggregate import Aggregator
from ingest.statsd.listener import StatsdListener, StatsdOptions
from tsdb.columns import AppendResult, U32Array, WriteBatch
from tsdb.labels import Labels

SERIES_COUNT = 1000
LINES_PER_DATAGRAM = 15
DATAGRAM_COUNT = 2000
NEW_SERIES_COUNT = 19_500
ROUNDS = 20
PAUSE_SECONDS = 0.004
"""After every hundred datagrams; without it the sender outruns any receiver."""


class NoStore:
    """Takes everything and keeps nothing."""

    def refs(self, rows: Sequence[Labels]) -> U32Array:
        return np.arange(len(rows), dtype=np.uint32)

    def append(self, batch: WriteBatch, *, atomic: bool = False, now_ms: int | None = None) -> AppendResult:
        count = 0 if batch.samples is None else len(batch.samples.refs)
        durable: Future[None] = Future()
        durable.set_result(None)
        return AppendResult(np.zeros(count, np.uint8), np.zeros(0, np.uint8), count, durable)


def datagrams(seed: int = 1) -> list[bytes]:
    """Random lines over 1,000 series of four types with three tags."""
    rng = random.Random(seed)
    kinds = ("c", "g", "ms", "h")
    spellings = []
    for n in range(SERIES_COUNT):
        kind = kinds[n % 4]
        spellings.append(f"app.m{n % 20}.{kind}:%d|{kind}|#service:s{n % 50},route:/r{n},code:200".encode())
    return [
        b"\n".join(rng.choice(spellings) % rng.randrange(1000) for _ in range(LINES_PER_DATAGRAM))
        for _ in range(DATAGRAM_COUNT)
    ]


def measure_aggregator(sent: Sequence[bytes]) -> None:
    """Lines a second of processor time, first with new spellings, then with known ones."""
    aggregator = Aggregator()
    for name in ("first", "again", "again"):
        start = time.thread_time()
        for datagram in sent:
            aggregator.receive(datagram)
        rate = len(sent) * LINES_PER_DATAGRAM / (time.thread_time() - start)
        print(f"aggregator, {name}: {rate:12,.0f} lines/s")
    start = time.thread_time()
    aggregator = Aggregator()
    for n in range(NEW_SERIES_COUNT):
        aggregator.receive(b"x:1|c|#n:%d" % n)
    print(f"new series:         {NEW_SERIES_COUNT / (time.thread_time() - start):12,.0f} lines/s")
    start = time.thread_time()
    aggregator.gather(Gathered(), 0.0)
    print(f"gather {NEW_SERIES_COUNT} series: {1e3 * (time.thread_time() - start):.1f} ms")


async def measure_socket(sent: Sequence[bytes]) -> None:
    """Lines a second through a UDP socket, processor time and losses."""
    registry = CollectorRegistry()
    listener = StatsdListener(NoStore(), registry, StatsdOptions(udp_port=0, flush_interval_seconds=1.0))
    await listener.start()
    address = listener.udp_address
    assert address is not None
    cpu, start = time.process_time(), time.monotonic()
    sender = os.fork()
    if sender == 0:
        _send(sent, address)
        os._exit(0)
    await asyncio.to_thread(os.waitpid, sender, 0)
    elapsed = time.monotonic() - start
    await listener.stop()
    used = time.process_time() - cpu
    packets = registry.get_sample_value("statsd_exporter_udp_packets_total") or 0.0
    lost = registry.get_sample_value("vedette_statsd_dropped_datagrams_total") or 0.0
    lines = packets * LINES_PER_DATAGRAM
    print(f"UDP socket: {lines / elapsed:,.0f} lines/s, {used / elapsed:.0%} of a core, {lost:.0f} lost")


def _send(sent: Sequence[bytes], address: tuple[str, int]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(ROUNDS):
            for n, datagram in enumerate(sent):
                if n % 100 == 0:
                    time.sleep(PAUSE_SECONDS)
                sock.sendto(datagram, address)


if __name__ == "__main__":
    measure_aggregator(datagrams())
    uvloop.run(measure_socket(datagrams()))
