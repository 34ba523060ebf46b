"""A look at the flag of the query that a thread works for, for code far below the operators.

Joining and cutting pools of histograms is called from everywhere and may take a second; carrying a query's
budget down to it would make it a parameter of half of the engine. A thread works for one query at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class _OfThread(threading.local):
    check: Callable[[], None] | None = None


_of_thread = _OfThread()


def look() -> None:
    """Raise what the query's `QueryBudget.check` raises; nothing in a thread without a query."""
    check = _of_thread.check
    if check is not None:
        check()


class looking:
    """Inside of it `look` of this thread is `check`. (A class: a generator would take twice as long.)"""

    __slots__ = ("_before", "_check")

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def __enter__(self) -> None:
        self._before, _of_thread.check = _of_thread.check, self._check

    def __exit__(self, *_: object) -> None:
        _of_thread.check = self._before
