"""The watch path as a thread: steps the observer, hands each batch to consumers and to the rule pipeline.

While a consumer is slow the ring fills; from then on the kernel program counts what it loses by CPU and call.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy.typing as npt
from prometheus_client import CollectorRegistry

from agent.addressnames import AddressNames, rule_host_names
from agent.events import Events
from agent.fields.source import SyscallSource
from agent.fields.view import ContainerInfos
from agent.observer import Observer
from agent.probe import program
from agent.probe.layout import ACTIONS
from agent.probe.program import Probe, ProbeError
from agent.probe.ringbuffer import RingError
from agent.processes import ProcessTable
from agent.watchmetrics import WatchMetrics
from security.activerules import ActiveRules
from security.columns import EventBatch
from security.engine import RuleEngine
from security.fields import syscalls
from tsdb.kernels import compile as kernels

STOP_SECONDS_LIMIT = 10.0
NICENESS = -5
"""Of the watching thread alone: what it watches must not be able to starve it."""
RETRY_SECONDS = (1.0, 5.0, 30.0, 60.0)
"""Pauses before a watch path that failed is loaded again; the last one from then on."""

Consumer = Callable[[Events, ProcessTable], None]
"""Gets each batch in the watching thread, the table being as after the batch. It must be quick."""

CostConsumer = Callable[[npt.NDArray[Any], ProcessTable], None]
"""Gets once a second what measured calls cost, `callcosts.COST`, in the watching thread."""

log = logging.getLogger("vedette.agent")


class RulePipeline(Protocol):
    """What the watcher needs of `security.pipeline.Pipeline`."""

    @property
    def rules(self) -> ActiveRules:
        """The rules in force; a reload swaps the engine in it."""
        ...

    def process(self, batch: EventBatch) -> object:
        """Match a batch and deliver what matched; does not block for long."""
        ...


def rule_calls(engine: RuleEngine | None) -> frozenset[str]:
    """The system calls that an engine's enabled rules look at, those of all fields when a rule takes any."""
    if engine is None:
        return frozenset()
    types = engine.rules.event_types("syscall")
    wanted = frozenset(ACTIONS) if types is None else types
    if "fchmodat" in wanted:
        wanted |= {"fchmodat2"}
    if "umount" in wanted:
        wanted |= {"umount2"}
    return wanted & syscalls.numbers(platform.machine()).keys()


class Watcher:
    """Watches the host. `start` and `stop` by one thread, the other methods by any.

    `pipeline` None means that only consumers get the events. `container_info` gives what the runtime says of
    a container, by its whole id; it must not wait.
    """

    def __init__(
        self,
        pipeline: RulePipeline | None,
        registry: CollectorRegistry | None,
        *,
        consumers: Sequence[Consumer] = (),
        calls: Iterable[str] = (),
        cost_consumers: Sequence[CostConsumer] = (),
        measured: Iterable[str] = (),
        container_info: ContainerInfos = lambda identity: None,
        load: Callable[[], Probe] = program.load,
    ) -> None:
        self._pipeline = pipeline
        self._consumers = tuple(consumers)
        self._wanted = frozenset(calls)
        self._cost_consumers, self._measured = tuple(cost_consumers), frozenset(measured)
        self._measuring: frozenset[str] = frozenset()
        self._not_measured: frozenset[str] = frozenset()
        self._load = load
        self._metrics = WatchMetrics(registry)
        self._addresses = AddressNames()
        self._source = SyscallSource(
            platform.node(), container_info=container_info, address_names=self._addresses.name_of
        )
        self._engine: RuleEngine | None = None
        self._of_rules: frozenset[str] = frozenset()
        self._enabled: frozenset[str] | None = None
        self._left_out: frozenset[str] = frozenset()
        self._one_in, self._batches_count = 1, 0
        self._observer: Observer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def running(self) -> bool:
        """Whether events arrive."""
        return self._observer is not None

    def add_consumer(self, consumer: Consumer) -> None:
        """Give a consumer all later batches."""
        self._consumers = (*self._consumers, consumer)

    def set_calls(self, calls: Iterable[str]) -> None:
        """Report these system calls too, beside those of the rules and of the process table."""
        known = syscalls.numbers(platform.machine()).keys()
        unknown = sorted(set(calls) - known)
        if unknown:
            raise ProbeError(f"no such system call: {', '.join(unknown)}")
        self._wanted = frozenset(calls)

    def leave_out(self, calls: Iterable[str]) -> None:
        """Do not report these system calls, whoever wants them; those of the process table stay."""
        self._left_out = frozenset(calls)

    def leave_unmeasured(self, calls: Iterable[str]) -> None:
        """Do not measure these of the calls to measure."""
        self._not_measured = frozenset(calls)

    def sample_rules(self, one_in: int) -> None:
        """Let rules judge one batch of events in so many; 1 is all of them. Consumers get every batch."""
        self._one_in = one_in

    def start(self) -> None:
        """Load the probe and start the thread; takes about two seconds, not to be called on an event loop.

        Raises `ProbeError` with one line that says why this host cannot be watched.
        """
        if self._thread is not None:
            return
        self._stopping.clear()
        self._open()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread and take the probe out of the kernel."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join(STOP_SECONDS_LIMIT)
        self._thread = None
        self._addresses.stop()

    def _open(self) -> None:
        # Not in the watching thread: the ring would fill while a kernel is compiled.
        kernels.warm("watch")
        probe = self._load()
        observer = Observer(probe)
        for member in probe.missing:
            log.warning("This kernel lacks a member or tracepoint: its fields stay empty: %s", member)
        self._enabled = self._calls_now()
        observer.start(self._enabled)
        self._measuring = frozenset()
        self._observer = observer
        self._metrics.attach(observer)

    def _close(self) -> None:
        observer, self._observer = self._observer, None
        self._metrics.detach()
        if observer is not None:
            observer.close()

    def _calls_now(self) -> frozenset[str]:
        engine = None if self._pipeline is None else self._pipeline.rules.engine
        if engine is not self._engine:
            self._engine, self._of_rules = engine, rule_calls(engine)
            self._addresses.follow(rule_host_names(engine))
        return (self._wanted | self._of_rules) - self._left_out

    def _run(self) -> None:
        attempt = 0
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            while not self._stopping.is_set():
                try:
                    if self._observer is None:
                        self._open()
                    self._watch()
                    attempt = 0
                except Exception as error:
                    self._metrics.failed("probe")
                    pause = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
                    told = isinstance(error, (ProbeError, RingError, OSError))
                    log.error("Watching stopped, again in %.0f s: %s", pause, error, exc_info=not told)
                    self._close()
                    attempt += 1
                    self._stopping.wait(pause)
        finally:
            self._close()

    def _watch(self) -> None:
        observer = self._observer
        assert observer is not None
        while not self._stopping.is_set():
            self._follow_rules(observer)
            events = observer.step()
            self._metrics.stepped(observer)
            if events is not None:
                self._deliver(events, observer.table)
            if self._measured:
                self._deliver_costs(observer)
            self._stopping.wait(observer.pause_seconds)

    def _follow_rules(self, observer: Observer) -> None:
        """Enable other system calls after a reload of the rules or a call of `set_calls`."""
        calls = self._calls_now()
        if calls != self._enabled:
            observer.enable(calls)
            self._enabled = calls

    def _deliver_costs(self, observer: Observer) -> None:
        measuring = self._measured - self._not_measured
        if measuring != self._measuring:
            observer.probe.measure(measuring)
            self._measuring = measuring
        costs = observer.costs()
        if costs is None or not len(costs):
            return
        for consumer in self._cost_consumers:
            try:
                consumer(costs, observer.table)
            except Exception:
                self._fault("consumer")

    def _deliver(self, events: Events, table: ProcessTable) -> None:
        for consumer in self._consumers:
            try:
                consumer(events, table)
            except Exception:
                self._fault("consumer")
        if self._pipeline is None:
            return
        self._batches_count += 1
        if self._batches_count % self._one_in:
            self._metrics.sampled_out.inc(len(events))
            return
        try:
            self._pipeline.process(self._source.batch(events, table))
        except Exception:
            self._fault("rules")

    def _fault(self, stage: str) -> None:
        """A fault of one stage costs that batch there and nothing else."""
        if self._metrics.failed(stage):
            log.exception("A batch of events was lost in a stage: %s", stage)
