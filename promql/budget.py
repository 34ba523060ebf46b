"""What one query may use: samples, bytes, wall time; and the flag that stops it.

Checked before each large allocation and for each batch. The cancel flag is a one-byte array so that the web
layer, this budget and kernels share it without a lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from promql.engineerrors import MemoryLimitError, QueryCancelled, QueryTimeout
from tsdb.errors import NotAtOnceError


class CountingNeeded(Exception):
    """The query could hold more samples than it may: it has to be planned anew, with its samples counted."""


CancelFlag = npt.NDArray[np.uint8]


def new_cancel_flag() -> CancelFlag:
    """u8[1]: set element 0 to 1 to cancel the query."""
    return np.zeros(1, dtype=np.uint8)


class QueryBudget:
    """Limits and counters of one query. Any thread of the query may call.

    Samples held in memory at a time (--query.max-samples) are counted by `promql.heldsamples`, for queries
    whose selectors announce more than `expected_max` cells.
    """

    def __init__(
        self,
        expected_max: int,
        bytes_max: int,
        timeout_s: float,
        cancel: CancelFlag | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.expected_max = expected_max
        self.counting = False
        self.bytes_max = bytes_max
        self.cancel = cancel if cancel is not None else new_cancel_flag()
        self._clock = clock
        self._deadline_s = clock() + timeout_s
        self._lock = threading.Lock()
        self._expected = 0
        self._bytes = 0
        self.bytes_peak = 0
        self.samples_read = 0
        self.work = 0
        """Samples and cells that selectors have announced."""
        self.at_once = 0
        """The most of that for a query on a thread that must not wait; 0 for one that may."""

    def check(self) -> None:
        """Raise QueryCancelled or QueryTimeout when it is time to stop."""
        if self.cancel[0]:
            raise QueryCancelled
        if self._clock() > self._deadline_s:
            raise QueryTimeout

    def expect(self, count: int) -> None:
        """A selector announces this many cells. Raises CountingNeeded where so many could be too many samples
        and nobody counts them yet."""
        with self._lock:
            self._expected += count
            if not self.counting and self._expected > self.expected_max:
                raise CountingNeeded

    def begin(self, count: int) -> None:
        """So many samples and cells are to be worked through. Raises NotAtOnceError for too many at once."""
        with self._lock:
            self.work += count
            if 0 < self.at_once < self.work:
                raise NotAtOnceError(f"{self.work} samples and cells are more than {self.at_once}")

    def hold_bytes(self, count: int) -> None:
        """Count bytes before they are allocated; raises MemoryLimitError."""
        with self._lock:
            self._bytes += count
            self.bytes_peak = max(self.bytes_peak, self._bytes)
            if self._bytes > self.bytes_max:
                raise MemoryLimitError(self._bytes, self.bytes_max)

    def release_bytes(self, count: int) -> None:
        """Take back what `hold_bytes` counted."""
        with self._lock:
            self._bytes -= count

    def count_read(self, count: int) -> None:
        """Count samples that came from the store, for `stats`."""
        with self._lock:
            self.samples_read += count
