"""Which packages have kernels: the one list that `vedette warm` and the server share."""

from __future__ import annotations

import time

from tsdb.kernels.compile import import_kernel_modules, registered

PACKAGES_WITH_KERNELS = ("tsdb", "promql", "ingest", "agent")


def import_all_kernels() -> None:
    """Register the kernels of every package, compiling none."""
    import_kernel_modules(PACKAGES_WITH_KERNELS)


_PAUSE_S = 0.004


def load_behind_queries(group: str) -> float:
    """Load the kernels of a group one by one, with pauses; seconds it took.

    numba loads one kernel at a time under a lock that is not fair: without the pauses the first query waits
    until all are loaded (2 s), with them for its own.
    """
    started = time.monotonic()
    for kernel in registered(group):
        if not kernel.ready:
            kernel.compile()
            time.sleep(_PAUSE_S)
    return time.monotonic() - started
