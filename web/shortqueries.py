"""Queries that are known to be short, which the event loop answers itself.

Handing a query to a pool and its answer back wakes two threads, which takes as long as a small query. So a
query that took little the last time, over about as many samples, is evaluated where it arrives. The engine
raises NotAtOnceError as soon as it would have to wait, or finds much more to do than the last time
(promql.budget); the pool then begins anew. What is new, or was long, goes to the pool.
"""

from __future__ import annotations

import time
from typing import NamedTuple

SHORT_S = 0.003
"""Longest evaluation that makes a query short, rendering included: see `Stopwatch`."""

WAITING_WEIGHT = 0.2
"""What a second on the clock counts beside a second of the processor."""

WORK_MAX = 1 << 18
"""Samples and cells of a short query. What they take differs by a factor of a hundred: SHORT_S tells."""

GROWTH = 2
GROWTH_FLOOR = 1_000
"""A query may have so many times the work it had, or this much more."""

GROWING_MAX = 32_768
"""Work up to which it may: a millisecond or two of most kernels. Beyond it an eighth more has to do."""

KNOWN_MAX = 4_096
TEXT_MAX = 4_096
"""Queries remembered, and the characters of one."""


class QueryKey(NamedTuple):
    """Queries that cost about the same: the text, and the number of steps. Of labels: the path and the
    selectors."""

    text: str
    steps: int


class Stopwatch:
    """Time of one piece of work in the calling thread: what it took of the processor, since a thread that
    others keep waiting did no more work for that; a fifth of the time on the clock where that is more, so
    that work which waits for a disk is not short."""

    def __init__(self) -> None:
        self._processor_s = time.thread_time()
        self._clock_s = time.perf_counter()

    def seconds(self) -> float:
        """Since the watch was made; ask in the thread that made it."""
        waited_s = (time.perf_counter() - self._clock_s) * WAITING_WEIGHT
        return max(time.thread_time() - self._processor_s, waited_s)


class ShortQueries:
    """Loop thread only."""

    def __init__(self) -> None:
        self._work: dict[QueryKey, int] = {}

    def limit(self, key: QueryKey) -> int:
        """Samples and cells that the query may have at once; 0 for one that is not known to be short."""
        work = self._work.get(key)
        if work is None:
            return 0
        grown = max(GROWTH * work, work + GROWTH_FLOOR)
        return grown if grown <= GROWING_MAX else min(WORK_MAX, max(GROWING_MAX, work + work // 8))

    def learn(self, key: QueryKey, took_s: float, work: int) -> None:
        """A query was answered, in so many seconds of a `Stopwatch`."""
        self._work.pop(key, None)
        if took_s > SHORT_S or work > WORK_MAX or len(key.text) > TEXT_MAX:
            return
        self._work[key] = work
        if len(self._work) > KNOWN_MAX:
            del self._work[next(iter(self._work))]

    def forget(self, key: QueryKey) -> None:
        """The query had to wait, or failed."""
        self._work.pop(key, None)
