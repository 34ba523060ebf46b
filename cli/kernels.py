"""Which packages have kernels: the one list that `vedette warm` and the server share."""

from __future__ import annotations

from tsdb.kernels.compile import import_kernel_modules

PACKAGES_WITH_KERNELS = ("tsdb", "promql", "ingest")


def import_all_kernels() -> None:
    """Register the kernels of every package, compiling none."""
    import_kernel_modules(PACKAGES_WITH_KERNELS)
