"""Which packages have kernels: the one list that `vedette warm` and the server share."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable

from cli.kernelmemory import drop_bitcode
from promql.parser import prepare as prepare_parser
from promql.plan import function_builders
from tsdb.kernels.compile import import_kernel_modules, registered

PACKAGES_WITH_KERNELS = ("tsdb", "promql", "ingest", "agent")


def import_all_kernels() -> None:
    """Register the kernels of every package, compiling none."""
    import_kernel_modules(PACKAGES_WITH_KERNELS)


FIRST_QUERY_MODULES = (
    *("tsdb.kernels.headread", "tsdb.kernels.labels"),
    *("promql.kernels.scan", "promql.kernels.window", "promql.kernels.aggregate", "promql.kernels.render"),
)
"""What nearly every first query needs."""
_PAUSE_S = 0.004
_QUERY_WAIT_S = 0.1
"""How long the next kernel waits for queries that run: they would share the interpreter with its loading."""
_SWITCH_S = 0.0005
"""Loading gives the interpreter away this often (5 ms otherwise, for which a query would wait)."""


def load_for_first_query(stopping: Callable[[], bool]) -> None:
    """Load parser, operators, and kernels of FIRST_QUERY_MODULES, before all others of the read path. Ends
    early when `stopping()`.

    A first query that had to wait for the others took 2.2 s (2026-11-28, busy machine).
    """
    prepare_parser()
    function_builders()
    for kernel in registered():
        if stopping():
            break
        if kernel.name.rpartition(".")[0] in FIRST_QUERY_MODULES:
            kernel.compile()
        drop_bitcode(kernel)


def load_rest(group: str, stopping: Callable[[], bool], running: Callable[[], int] = lambda: 0) -> float:
    """Load the other kernels of a group one by one, with pauses while queries are `running`; seconds it took.

    Ends early when `stopping()`: with a cold cache all of them take minutes, and a server that is told to
    stop does not wait for them.
    """
    started = time.monotonic()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        # For np.unique, in the rarer operators; most queries use tsdb.distinct.
        importlib.import_module("numpy.ma")
        for kernel in registered(group):
            if stopping():
                break
            if not kernel.ready:
                _pause(_QUERY_WAIT_S, lambda: not running())
                kernel.compile()
                drop_bitcode(kernel)
                time.sleep(_PAUSE_S)
    finally:
        sys.setswitchinterval(interval_s)
    return time.monotonic() - started


def _pause(seconds: float, over: Callable[[], bool]) -> None:
    """Wait until it is over, at most so long."""
    until = time.monotonic() + seconds
    while not over() and time.monotonic() < until:
        time.sleep(_PAUSE_S)
