"""How much memory objects hold: what is reachable from some and does not belong to others.

Inside `vedette serve` the process's memory says nothing about the agent: the store is in it too.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

import numpy as np
from prometheus_client import CollectorRegistry

OBJECTS_LIMIT = 3_000_000
"""Objects that one count looks at; what is beyond is not counted, and the budget is long exceeded then."""
REFRESH_SECONDS = 60.0
_SHARED = (
    *(types.ModuleType, type, types.FunctionType, types.BuiltinFunctionType, types.CodeType),
    *(types.FrameType, types.CoroutineType, types.GeneratorType, types.TracebackType),
    *(asyncio.AbstractEventLoop, asyncio.Future, threading.Thread, Executor),
    *(logging.Logger, CollectorRegistry),
)
"""Kinds of objects through which one would get to the whole process."""


def reachable_bytes(roots: Iterable[object], foreign: Sequence[object] = ()) -> int:
    """Bytes of the objects reachable from `roots`, without those reachable through `foreign` only.

    As `sys.getsizeof` counts them: arrays with their data, memory of C libraries not. About 1 us an object,
    during which the interpreter switches threads as always.
    """
    seen = {id(each) for each in foreign}
    waiting = [root for root in roots if id(root) not in seen]
    seen.update(map(id, waiting))
    total = 0
    while waiting and len(seen) < OBJECTS_LIMIT:
        found = waiting.pop()
        total += sys.getsizeof(found, 0)
        others = gc.get_referents(found)
        if isinstance(found, np.ndarray) and found.base is not None:
            # A view has no data of its own, and does not tell the collector whose it shows.
            others.append(found.base)
        for other in others:
            if id(other) not in seen and not isinstance(other, _SHARED):
                seen.add(id(other))
                waiting.append(other)
    return total


class OwnedObjects:
    """The size of some objects, counted anew when the last count is a minute old. One thread."""

    def __init__(
        self,
        roots: Callable[[], Iterable[object]],
        foreign: Sequence[object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._roots = roots
        self._foreign = foreign
        self._monotonic = monotonic
        self._bytes = 0
        self._counted_at = float("-inf")

    def recent_bytes(self) -> int:
        """Bytes at most a minute ago."""
        now = self._monotonic()
        if now - self._counted_at >= REFRESH_SECONDS:
            self._bytes = reachable_bytes(self._roots(), self._foreign)
            self._counted_at = self._monotonic()
        return self._bytes
