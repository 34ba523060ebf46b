"""Which kernels a server loads before it says ready, and which behind it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from cli import kernels
from cli.kernels import FIRST_QUERY_MODULES, import_all_kernels, load_rest
from tsdb.kernels.compile import registered


def test_every_module_of_the_first_query_has_kernels() -> None:
    import_all_kernels()
    found = {kernel.name.rpartition(".")[0] for kernel in registered()}
    assert set(FIRST_QUERY_MODULES) <= found


def test_loading_the_rest_ends_when_the_server_stops() -> None:
    import_all_kernels()
    before = sum(kernel.ready for kernel in registered("read"))
    answers: Iterator[bool] = iter([False, False, True])
    interval_s = sys.getswitchinterval()
    load_rest("read", lambda: next(answers))
    assert sum(kernel.ready for kernel in registered("read")) <= before + 2
    assert next(answers, None) is None
    assert sys.getswitchinterval() == interval_s


def test_loading_the_rest_waits_for_queries_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    asked: list[int] = []

    class Late:
        ready = False

        def compile(self) -> None:
            loaded.append(len(asked))

    def running() -> int:
        asked.append(1)
        return 1 if len(asked) < 4 or len(asked) > 5 else 0

    monkeypatch.setattr(kernels, "registered", lambda group: [Late(), Late()])
    monkeypatch.setattr(kernels, "drop_bitcode", lambda kernel: None)
    load_rest("read", lambda: False, running)
    assert loaded[0] == 4
    assert loaded[1] >= 5
    assert len(loaded) == 2
