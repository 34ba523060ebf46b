"""Which packages have kernels: the one list that `vedette warm` and the server share."""

from __future__ import annotations

import time
from collections.abc import Callable

from cli.kernelmemory import drop_bitcode
from promql.parser import prepare as prepare_parser
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


def load_for_first_query() -> None:
    """Load the parser and the kernels of FIRST_QUERY_MODULES, before all others of the read path.

    A first query that had to wait for the others took 2.2 s (2026-11-28, busy machine).
    """
    prepare_parser()
    for kernel in registered():
        if kernel.name.rpartition(".")[0] in FIRST_QUERY_MODULES:
            kernel.compile()
        drop_bitcode(kernel)


def load_rest(group: str, stopping: Callable[[], bool]) -> float:
    """Load the other kernels of a group one by one, with pauses for queries; seconds it took.

    Ends early when `stopping()`: with a cold cache all of them take minutes, and a server that is told to
    stop does not wait for them.
    """
    started = time.monotonic()
    for kernel in registered(group):
        if stopping():
            break
        if not kernel.ready:
            kernel.compile()
            drop_bitcode(kernel)
            time.sleep(_PAUSE_S)
    return time.monotonic() - started
