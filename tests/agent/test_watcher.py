"""The watching thread: consumers, system calls of rules, failures; and names of addresses."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from agent.addressnames import AddressNames, rule_host_names
from agent.events import Events
from agent.probe import program
from agent.probe.program import Probe, ProbeError
from agent.processes import ProcessTable
from agent.watcher import Watcher, rule_calls
from security.activerules import ActiveRules
from security.columns import EventBatch

RULES = """
- rule: Names a call
  desc: d
  condition: evt.type in (openat, fchmodat) and fd.sip.name = name.example
  output: o
  priority: NOTICE
"""


class Pipeline:
    """Rules, and a count of the batches that came to them."""

    def __init__(self, folder: Path, text: str = RULES) -> None:
        self.rules = ActiveRules()
        self.batches_count = 0
        self.load(folder, text)

    def load(self, folder: Path, text: str) -> None:
        path = folder / "rules.yaml"
        path.write_text(text)
        self.rules.reload([str(path)])
        assert not self.rules.problems

    def process(self, batch: EventBatch) -> object:
        self.batches_count += 1
        if self.batches_count == 1:
            raise RuntimeError("the first batch fails")
        return None


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_calls_and_names_of_the_rules(tmp_path: Path) -> None:
    engine = Pipeline(tmp_path).rules.engine
    assert rule_calls(engine) == {"openat", "fchmodat", "fchmodat2"}
    assert rule_host_names(engine) == {"name.example"}
    assert rule_calls(None) == rule_host_names(None) == frozenset()


def test_a_host_that_cannot_be_watched_says_so_in_one_line() -> None:
    def load() -> Probe:
        raise ProbeError("the probe needs root")

    registry = CollectorRegistry()
    watcher = Watcher(None, registry, load=load)
    with pytest.raises(ProbeError, match=r"^the probe needs root$"):
        watcher.start()
    assert not watcher.running
    assert registry.get_sample_value("vedette_agent_watching") == 0
    with pytest.raises(ProbeError, match="no such system call: nonsense"):
        watcher.set_calls(["nonsense"])


def test_names_of_addresses_are_resolved_by_a_thread() -> None:
    asked = threading.Event()

    def resolve(name: str) -> list[str]:
        asked.set()
        if name == "unknown.example":
            raise OSError("no such name")
        return ["192.0.2.1", "2001:db8::1"]

    names = AddressNames(resolve)
    assert names.name_of("192.0.2.1") is None
    names.follow(frozenset(("name.example", "unknown.example")))
    assert asked.wait(10)
    assert until(lambda: names.name_of("2001:db8::1") == "name.example")
    names.stop()


@pytest.mark.root
def test_consumers_and_rules_get_events_and_failures_cost_one_batch(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    seen: list[int] = []

    def failing(events: Events, table: ProcessTable) -> None:
        raise ValueError("this consumer always fails")

    def counting(events: Events, table: ProcessTable) -> None:
        seen.append(len(events.rows_of("openat")))

    pipeline, registry = Pipeline(tmp_path), CollectorRegistry()
    watcher = Watcher(pipeline, registry, consumers=(failing, counting), load=program.load)
    try:
        watcher.start()
    except ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    try:
        for _ in range(2):
            os.system("cat /etc/hostname > /dev/null")
            time.sleep(0.1)
        assert until(lambda: sum(seen) > 0 and pipeline.batches_count > 1)
        value = registry.get_sample_value
        assert (value("vedette_agent_watch_failures_total", {"stage": "consumer"}) or 0) >= 1
        assert value("vedette_agent_watch_failures_total", {"stage": "rules"}) == 1
        assert (value("vedette_agent_events_total", {"call": "openat"}) or 0) > 0
        assert value("vedette_agent_watching") == 1
        pipeline.load(tmp_path, RULES.replace("openat, fchmodat", "unlink"))
        assert until(lambda: watcher._enabled == frozenset(("unlink",)))
    finally:
        watcher.stop()
    assert not watcher.running
    assert (registry.get_sample_value("vedette_agent_events_total", {"call": "openat"}) or 0) > 0
