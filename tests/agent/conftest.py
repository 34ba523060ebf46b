"""One loaded probe for all tests that need it, and the helpers to read what it saw."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent.kernels.btf import type_starts
from agent.kernels.ring import scan, split
from agent.probe import program
from agent.probe.ringbuffer import Batch, RingReader, concatenate


@pytest.fixture(scope="session", autouse=True)
def kernels() -> None:
    """Loaded before the first test, so that no deadline of a property test counts a compilation."""
    for kernel in (scan, split, type_starts):
        kernel.compile()


class Watcher:
    """A probe and its ring."""

    def __init__(self, probe: program.Probe) -> None:
        self.probe = probe
        self.ring = RingReader(probe.ring_descriptor, probe.ring_bytes)

    def watch(self, *calls: str) -> None:
        """Report these calls, of which nothing is in the ring yet."""
        self.probe.enable(calls)
        self.drain()

    def drain(self) -> Batch | None:
        """All records of the ring."""
        batches = []
        while (batch := self.ring.read()) is not None:
            batches.append(batch)
        return concatenate(batches) if batches else None

    def of(self, pid: int) -> Batch:
        """Records of a process, in order."""
        batch = self.drain()
        assert batch is not None, "the ring is empty"
        return batch.select((batch.header["pid"] == pid).nonzero()[0])


@pytest.fixture(scope="session")
def watcher() -> Iterator[Watcher]:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    try:
        probe = program.load()
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    watcher = Watcher(probe)
    yield watcher
    watcher.ring.close()
    probe.close()
