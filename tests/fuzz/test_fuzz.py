"""The quick part of the differential fuzz; `make fuzz` runs the long one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from promql.functions import FUNCTIONS
from tests.fuzz.differ import Difference, Fuzz, close
from tests.fuzz.queries import NOT_INTERPRETED
from tests.twins import TWINS
from tsdb.kernels.compile import Kernel, import_kernel_modules, registered

CASES_PER_SEED = 350
SEEDS = (11, 12, 13)


@dataclass
class Runs:
    """Outcome of the random queries: by seed, and the kernels that they called."""

    differences: dict[int, list[Difference]]
    skipped: dict[int, int]
    kernels: set[str]


@pytest.fixture(scope="module")
def runs() -> Runs:
    """All seeds once, with the kernels noted that are called meanwhile."""
    found = Runs({}, {}, set())
    call = Kernel.__call__

    def noted(kernel: Kernel[..., Any], *args: Any, **kwargs: Any) -> Any:
        found.kernels.add(kernel.name)
        return call(kernel, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernel, "__call__", noted)
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


def test_every_function_is_interpreted_or_named_as_not() -> None:
    assert set(FUNCTIONS) >= NOT_INTERPRETED
    text = "\n".join(Fuzz(1).case(n).query for n in range(6000))
    missing = [name for name in FUNCTIONS if name not in NOT_INTERPRETED and f"{name}(" not in text]
    assert missing == []


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
