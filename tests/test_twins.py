"""Every kernel has a slow twin: the table is whole, and a test that does not do what it says fails."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from tests.callrecorder import declared, not_called, recorded, resolved
from tests.reference import rowtouch
from tests.twins import TWINS, Twin
from tsdb.kernels.compile import import_kernel_modules, registered
from tsdb.kernels.rowtouch import touch_rows

ROOT = Path(__file__).parents[1]


def packages_with_kernels() -> list[str]:
    return sorted(path.parent.parent.name for path in ROOT.glob("*/kernels/__init__.py"))


def test_every_kernel_outside_of_promql_is_declared() -> None:
    """Those of promql are in tests/fuzz/test_fuzz.py, which knows which of them random queries reach."""
    packages = packages_with_kernels()
    assert set(packages) >= {"agent", "ingest", "promql", "tsdb"}
    import_kernel_modules(packages)
    every = {kernel.name for kernel in registered()}
    assert set(TWINS) <= every, "declared, but there is no such kernel"
    assert {name for name in every if not name.startswith("promql.")} <= set(TWINS), "kernels without a twin"


@pytest.mark.parametrize("test", sorted({twin.test for twin in TWINS.values()}))
def test_a_declared_test_exists_and_so_does_what_it_compares_with(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert name.partition("[")[0] in functions
    for twin in TWINS.values():
        assert twin.test != test or callable(resolved(twin.reference))


def test_a_test_that_calls_neither_its_kernel_nor_its_reference_is_found() -> None:
    reference = "tests.reference.rowtouch.touched"
    table = {touch_rows.name: Twin("", reference)}
    refs, rows = np.zeros(1, dtype=np.uint32), np.zeros((1, 16), dtype=np.uint64)
    with recorded({reference}) as calls:
        assert not_called(table, calls) == [f"kernel {touch_rows.name}", f"reference {reference}"]
        touch_rows(refs, rows)
        assert not_called(table, calls) == [f"reference {reference}"]
        rowtouch.touched([0], rows.tolist())
        assert not_called(table, calls) == []
    with recorded({reference}) as calls:
        assert not_called(table, calls) != []


def test_a_declaration_holds_for_all_parameters_or_for_the_one_it_names() -> None:
    decoder = "ingest.kernels.remotewrite.decode_v1"
    test = TWINS[decoder].test
    assert test.endswith("[1]")
    assert set(declared(test)) == {decoder}
    assert decoder not in declared(test.replace("[1]", "[2]"))
    plain = TWINS["tsdb.kernels.xor.encode_xor_chunk"].test
    assert set(declared(f"{plain}[any]")) == set(declared(plain)) != set()
