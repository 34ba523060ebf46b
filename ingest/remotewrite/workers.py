"""Threads that run what they are given, in order, and say nothing about it.

An executor's future a call, which nobody waits for here, its locks and its count of idle threads took a tenth
of the Python that a request runs through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Workers:
    """A fixed number of threads, started with the first call."""

    def __init__(self, count: int, name: str) -> None:
        """Threads are called `name`-0, `name`-1, ..."""
        self._queue: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._count, self._name = count, name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, work: Callable[[], object]) -> None:
        """Run `work`, which must not raise, in a thread. Raises RuntimeError once closed."""
        if self._closed:
            raise RuntimeError(f"{self._name}: no more work is taken")
        if not self._threads:
            self._start()
        self._queue.put(work)

    def _start(self) -> None:
        with self._lock:
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._run, name=f"{self._name}-{number}", daemon=True)
                    for number in range(self._count)
                ]
                for thread in self._threads:
                    thread.start()

    def _run(self) -> None:
        while True:
            work = self._queue.get()
            if work is None:
                return
            work()
            # A request's body must not stay until the next one comes.
            del work

    def close(self) -> None:
        """Finish what was taken, then end the threads. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._queue.put(None)
        for thread in self._threads:
            thread.join()
