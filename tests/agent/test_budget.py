"""The budget governor over simulated loads: it saves before the budget is exceeded, and settles."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from agent import budget
from agent.budget import (
    CALM_SECONDS,
    CALM_SECONDS_MAX,
    GRACE_SECONDS,
    TICK_SECONDS,
    WINDOW_SECONDS,
    Budget,
    BudgetKeeper,
    Governor,
    GovernorMetrics,
    Step,
    Usage,
    process_usage,
    threads_usage,
)

MIB = 1 << 20


class Host:
    """A clock, steps that save a part of the load each, and a governor with a budget of 2 %, 100 MiB."""

    def __init__(self, savings: list[float]) -> None:
        self.now = 0.0
        self.cpu_seconds = 0.0
        self.engaged = [False] * len(savings)
        self.savings = savings
        self.history: list[int] = []
        steps = [
            Step(f"step {n}", lambda n=n: self.set(n, True), lambda n=n: self.set(n, False))  # type: ignore[misc]
            for n in range(len(savings))
        ]
        self.registry = CollectorRegistry()
        limits = Budget(2.0, 100 * MIB)
        metrics = GovernorMetrics(self.registry, limits, steps)
        self.governor = Governor(limits, steps, metrics, clock=lambda: self.now)

    def set(self, number: int, engaged: bool) -> None:
        assert self.engaged[number] != engaged
        self.engaged[number] = engaged

    def percent(self, load: float) -> float:
        for saving, engaged in zip(self.savings, self.engaged, strict=True):
            load *= 1 - saving if engaged else 1
        return load

    def run(self, load: float, seconds: float, memory_mib: Callable[[int], float] = lambda level: 50) -> None:
        """A load in percent of a core for some time."""
        for _ in range(int(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            self.cpu_seconds += self.percent(load) / 100 * TICK_SECONDS
            resident = int(memory_mib(self.governor.level) * MIB)
            self.governor.tick(Usage(self.cpu_seconds, resident))
            self.history.append(self.governor.level)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"vedette_agent_budget_{name}", labels)


def test_an_ordinary_load_changes_nothing() -> None:
    host = Host([0.5, 0.5])
    host.run(1.7, 3600)
    assert set(host.history) == {0}
    assert host.metric("cpu_percent_limit") == 2.0
    assert round(host.metric("cpu_percent") or 0, 2) == 1.7


def test_the_start_is_not_judged() -> None:
    host = Host([0.5])
    host.run(100.0, GRACE_SECONDS - WINDOW_SECONDS)
    assert host.governor.level == 0


def test_a_load_beyond_the_budget_engages_as_many_steps_as_it_takes_and_recovers() -> None:
    host = Host([0.3, 0.3, 0.5, 0.5])
    host.run(1.0, 120)
    host.run(3.0, 600)
    assert host.governor.level == 2
    assert host.engaged == [True, True, False, False]
    assert host.percent(3.0) < 2.0 * 0.9
    assert (host.metric("level"), host.metric("step_engaged", step="step 1")) == (2.0, 1.0)
    assert host.metric("changes_total", direction="engaged") == 2
    host.run(0.2, 600)
    assert host.governor.level == 0
    assert host.metric("changes_total", direction="released") == 2
    assert host.metric("step_engaged", step="step 1") == 0.0


def test_a_change_is_one_line_with_fields_that_the_log_can_show(caplog: pytest.LogCaptureFixture) -> None:
    host = Host([0.5])
    with caplog.at_level("WARNING", "vedette.agent"):
        host.run(3.0, 300)
    (record,) = caplog.records
    assert record.message == "agent does less to stay within its budget"
    assert (record.__dict__["step"], record.__dict__["engaged_steps"]) == ("step 0", 1)
    # Keys that the log format has a meaning of its own for.
    assert not {"level", "time", "source", "component"} & record.__dict__.keys()


def test_an_extreme_load_is_answered_at_every_tick() -> None:
    host = Host([0.1] * 4)
    host.run(0.5, 120)
    host.run(90.0, 60)
    assert host.governor.level == 4


def test_a_load_that_comes_back_is_released_ever_more_slowly() -> None:
    """Idle without the step, too much with it: the governor must not flap."""
    host = Host([0.9])
    host.run(4.0, 12 * 3600)
    changes = [
        host.history.index(1),
        *(n for n, (a, b) in enumerate(itertools.pairwise(host.history), 1) if a > b),
    ]
    waits = [(b - a) * TICK_SECONDS for a, b in itertools.pairwise(changes)]
    assert waits[0] >= CALM_SECONDS
    assert waits[-1] >= CALM_SECONDS_MAX
    assert len(changes) < 20


def test_memory_engages_steps_and_is_released_when_it_falls() -> None:
    host = Host([0.0, 0.0])
    host.run(0.1, 300, lambda level: 95 if level < 2 else 85)
    assert host.governor.level == 2
    host.run(0.1, 3000, lambda level: 80)
    assert host.governor.level == 2
    host.run(0.1, 3000, lambda level: 60)
    assert host.governor.level == 0


def test_stopping_does_again_what_was_left_out() -> None:
    host = Host([0.1, 0.1])
    host.run(9.0, 600)
    assert host.engaged == [True, True]
    host.governor.release_all()
    assert host.engaged == [False, False]


@settings(max_examples=60, deadline=None)
@given(
    savings=st.lists(st.floats(0.05, 0.9), min_size=1, max_size=6),
    loads=st.lists(st.tuples(st.floats(0, 60), st.integers(10, 2000)), min_size=1, max_size=8),
)
def test_any_load_is_held_as_far_as_the_steps_go(
    savings: list[float], loads: list[tuple[float, int]]
) -> None:
    host = Host(savings)
    host.run(0.1, 120)
    for load, seconds in loads:
        host.run(load, seconds)
        assert 0 <= host.governor.level <= len(savings)
        assert sum(host.engaged) == host.governor.level
        assert host.engaged == sorted(host.engaged, reverse=True)
    last = loads[-1][0]
    host.run(last, (len(savings) + 1) * 3 * WINDOW_SECONDS)
    worst = host.percent(last)
    assert worst < 2.0 or host.governor.level == len(savings) or host.history[-1] != host.history[-20]
    host.run(0.0, 8 * CALM_SECONDS_MAX)
    assert host.governor.level == 0


def test_the_real_process_and_its_threads_are_measured() -> None:
    before, of_threads = process_usage(), threads_usage(("MainThread",))
    sum(n * n for n in range(2_000_000))
    after, of_threads_after = process_usage(), threads_usage(("MainThread",))
    assert after.cpu_seconds > before.cpu_seconds
    assert of_threads_after.cpu_seconds > of_threads.cpu_seconds
    assert (before.resident_bytes or 0) > 10 * MIB
    assert of_threads.resident_bytes is None
    assert threads_usage(("no such thread",)).cpu_seconds == 0


async def test_a_real_load_is_answered_and_the_work_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processor time in a real thread; only the waits are shortened, by two hundred."""
    for name in ("TICK_SECONDS", "WINDOW_SECONDS", "GRACE_SECONDS", "CALM_SECONDS"):
        monkeypatch.setattr(budget, name, getattr(budget, name) / 200)
    wanted, allowed, ended = threading.Event(), threading.Event(), threading.Event()
    allowed.set()

    def burn() -> None:
        while not ended.is_set():
            if wanted.is_set() and allowed.is_set():
                sum(n * n for n in range(2000))
            else:
                time.sleep(0.005)

    worker = threading.Thread(target=burn, name="burner")
    steps = [Step("burning", allowed.clear, allowed.set)]
    limits = Budget(20.0, 1 << 40)
    governor = Governor(limits, steps, GovernorMetrics(None, limits, steps))
    keeper = BudgetKeeper(governor, lambda: threads_usage(("burner",)))
    worker.start()
    await keeper.start()
    try:
        wanted.set()
        async with asyncio.timeout(30):
            while governor.level == 0:
                await asyncio.sleep(0.01)
        assert not allowed.is_set()
        wanted.clear()
        async with asyncio.timeout(30):
            while governor.level == 1:
                await asyncio.sleep(0.01)
        assert allowed.is_set()
    finally:
        ended.set()
        worker.join()
        await keeper.stop()
