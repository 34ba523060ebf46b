"""The quick part of the differential fuzz; `make fuzz` runs the long one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import promql.operators
from promql.builder import ParserOptions
from promql.operators.operator import Operator
from promql.parser import parse
from tests.fuzz.coverage import EVERYTHING, contents
from tests.fuzz.differ import QUERIES_PER_STORE, Difference, Fuzz, close
from tests.twins import TWINS
from tsdb.kernels.compile import Kernel, import_kernel_modules, registered

CASES_PER_SEED = 500
SEEDS = (11, 12, 13)


@dataclass
class Runs:
    """Outcome of the random queries: by seed, and the kernels and operators that worked for them."""

    differences: dict[int, list[Difference]]
    skipped: dict[int, int]
    kernels: set[str]
    operators: set[type[Operator]]


OWN_TESTS = {
    "MeasuredRange": "tests/web/test_explain.py",
    "MeasuredRowwise": "tests/web/test_explain.py",
    "MeasuredVector": "tests/web/test_explain.py",
}
"""Operators that no query without `explain` is planned with, and the tests that hold their results."""


def operator_classes() -> list[type[Operator]]:
    """Every class of promql.operators, abstract ones too; tests define more."""
    for module in pkgutil.iter_modules(promql.operators.__path__):
        importlib.import_module(f"promql.operators.{module.name}")
    found: list[type[Operator]] = []
    pending: list[type[Operator]] = [Operator]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        if kind.__module__.startswith("promql."):
            found.append(kind)
    return found


def noting(method: Callable[..., Any], seen: set[type[Operator]]) -> Callable[..., Any]:
    def noted(operator: Operator, *args: Any) -> Any:
        seen.add(type(operator))
        return method(operator, *args)

    return noted


@pytest.fixture(scope="module")
def runs() -> Runs:
    """All seeds once, with the kernels and operators noted that are called meanwhile."""
    found = Runs({}, {}, set(), set())
    call = Kernel.__call__

    def noted(kernel: Kernel[..., Any], *args: Any, **kwargs: Any) -> Any:
        found.kernels.add(kernel.name)
        return call(kernel, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernel, "__call__", noted)
        for kind in operator_classes():
            for method in {"load", "batches", "values", "_announce"} & set(vars(kind)):
                patch.setattr(kind, method, noting(vars(kind)[method], found.operators))
        for seed in SEEDS:
            fuzz = Fuzz(seed)
            found.differences[seed] = [d for n in range(CASES_PER_SEED) if (d := fuzz.run(n)) is not None]
            found.skipped[seed] = sum(fuzz.skipped.values())
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_engine_and_slow_interpreter_agree_on_random_queries(runs: Runs, seed: int) -> None:
    differences = runs.differences[seed]
    repeat = f"python -m tests.fuzz.run --seed {seed} --count {CASES_PER_SEED}"
    assert not differences, "\n".join([*map(str, differences[:5]), f"repeat with: {repeat}"])
    assert runs.skipped[seed] < CASES_PER_SEED // 10


def test_every_kernel_is_compared_with_a_slow_twin(runs: Runs) -> None:
    import_kernel_modules(("promql",))
    every = {kernel.name for kernel in registered() if kernel.name.startswith("promql.")}
    assert every - runs.kernels <= set(TWINS)


def test_every_operator_is_compared_with_the_slow_interpreter(runs: Runs) -> None:
    every = {kind.__name__ for kind in operator_classes() if not inspect.isabstract(kind)}
    reached = {kind.__name__ for kind in runs.operators}
    assert every - reached <= set(OWN_TESTS) <= every
    assert not reached & set(OWN_TESTS)
    assert all((Path(__file__).parents[2] / file).is_file() for file in OWN_TESTS.values())


def test_label_sets_are_used_again_by_other_queries() -> None:
    fuzz = Fuzz(SEEDS[0])
    for number in range(QUERIES_PER_STORE):
        fuzz.run(number)
    assert fuzz.querier is not None
    assert fuzz.querier.used_again > QUERIES_PER_STORE // 2


def test_a_wrong_engine_would_be_noticed() -> None:
    fuzz = Fuzz(11)
    case = next(c for c in map(fuzz.case, range(200)) if c.query.startswith("sum"))
    series, _ = fuzz.content(case.number)
    for row in series:
        row.samples = [type(s)(s.t_ms + 40_000, s.value) for s in row.samples]
    assert any(fuzz.run(n) is not None for n in range(case.number, case.number + 25))


def test_cases_depend_on_seed_and_number_only() -> None:
    assert Fuzz(5).case(77) == Fuzz(5).case(77)
    assert Fuzz(5).case(77) != Fuzz(6).case(77)


def test_every_function_operator_and_form_is_generated() -> None:
    fuzz = Fuzz(1)
    missing = set(EVERYTHING)
    for number in range(20_000):
        missing -= contents(parse(fuzz.case(number).query, ParserOptions.everything()))
        if not missing:
            break
    assert not missing


@pytest.mark.parametrize(
    ("x", "y", "want"),
    [
        (1.0, 1.0 + 1e-13, True),
        (1.0, 1.0 + 1e-9, False),
        (0.0, 1e-11, True),
        (float("nan"), float("nan"), True),
        (float("inf"), float("-inf"), False),
        (1.0, float("nan"), False),
    ],
)
def test_tolerance_is_relative_with_a_floor(x: float, y: float, want: bool) -> None:
    assert close(x, y) is want
