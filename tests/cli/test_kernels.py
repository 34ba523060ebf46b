"""Which kernels a server loads before it says ready, and which behind it."""

from __future__ import annotations

from cli.kernels import FIRST_QUERY_MODULES, import_all_kernels, load_rest
from tsdb.kernels.compile import registered


def test_every_module_of_the_first_query_has_kernels() -> None:
    import_all_kernels()
    found = {kernel.name.rpartition(".")[0] for kernel in registered()}
    assert set(FIRST_QUERY_MODULES) <= found


def test_loading_the_rest_ends_when_the_server_stops() -> None:
    import_all_kernels()
    before = sum(kernel.ready for kernel in registered("read"))
    answers = iter([False, False, True])
    load_rest("read", lambda: next(answers))
    assert sum(kernel.ready for kernel in registered("read")) <= before + 2
    assert next(answers, None) is None
