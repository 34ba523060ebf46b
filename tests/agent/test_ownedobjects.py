"""The memory that the agent's objects hold inside a server's process."""

from __future__ import annotations

import sys
import threading

import numpy as np
from prometheus_client import CollectorRegistry

from agent.budget import BudgetKeeper
from agent.config import AgentConfig
from agent.ownedobjects import REFRESH_SECONDS, OwnedObjects, reachable_bytes
from agent.service import AgentService
from tests.ingest.fakestore import FakeStore


class Holder:
    def __init__(self, **held: object) -> None:
        self.__dict__.update(held)


def test_data_of_arrays_strings_and_tuples_is_counted_once() -> None:
    array = np.zeros(1_000_000, np.uint8)
    text = "x" * 500_000
    root = Holder(array=array, view=array[10:], again=array, nested={"a": [(text, text)]})
    root.__dict__["itself"] = root
    counted = reachable_bytes([root, root])
    assert 1_500_000 < counted < 1_510_000


def test_what_belongs_to_others_or_to_the_process_is_not() -> None:
    others = Holder(large=np.zeros(5_000_000, np.uint8))

    def function() -> object:
        return others

    root = Holder(
        others=others, function=function, module=sys, kind=Holder, thread=threading.current_thread()
    )
    assert reachable_bytes([root], [others]) < 10_000
    assert reachable_bytes([root]) > 5_000_000


def test_counting_again_waits_for_a_minute() -> None:
    now, held = [0.0], [np.zeros(100_000, np.uint8)]
    objects = OwnedObjects(lambda: held, (), lambda: now[0])
    first = objects.recent_bytes()
    held.append(np.zeros(200_000, np.uint8))
    now[0] = REFRESH_SECONDS - 1
    assert objects.recent_bytes() == first
    now[0] = REFRESH_SECONDS
    assert objects.recent_bytes() - first > 199_000


async def test_the_governor_inside_a_server_sees_the_memory_of_the_agent_alone() -> None:
    ballast = np.zeros(100 << 20, np.uint8)
    off = {"enabled": False}
    config = AgentConfig.model_validate({"statsd": {"udp": ""}, "processes": off, "connections": off})
    store = FakeStore()
    store.ballast = ballast  # type: ignore[attr-defined]
    service = AgentService(store, CollectorRegistry(), config)
    await service.start()
    try:
        (keeper,) = (part for _, part in service._running if isinstance(part, BudgetKeeper))
        usage = keeper._measure()
    finally:
        await service.stop()
    assert usage.resident_bytes is not None
    assert 1_000 < usage.resident_bytes < 100 << 20
    assert len(ballast) == 100 << 20
