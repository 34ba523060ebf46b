"""One case of the differential fuzz: the same query by the engine and by the slow interpreter."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

from promql import prepared
from promql.ast import ValueType
from promql.builder import ParserOptions
from promql.engine import Engine
from promql.engineerrors import ExecutionError
from promql.histogramvalue import histogram_at
from promql.limits import LEVELS_AT_ONCE_MAX
from promql.matrix import ABSENT_BITS, Matrix
from promql.memory import MemoryStore
from promql.options import EngineOptions
from promql.parser import parse
from promql.result import QueryResult
from tests.fuzz.coverage import contents
from tests.fuzz.data import END_MS, as_reference, fill_store, make_series
from tests.fuzz.keptlabels import KeptLabels
from tests.fuzz.queries import QueryMaker
from tests.reference.histograms import FloatHistogram
from tests.reference.interpreter import Interpreter
from tests.reference.promqlvalues import Cell, EvaluationError, Options, Series, Times, Unspecified
from tsdb.labels import Labels

RELATIVE = 1e-12
NEAR_ZERO = 1e-10
"""Differences below this are the rest of a cancellation, whose relative error means nothing."""

QUERIES_PER_STORE = 25
FEW_LEVELS = 2
"""Of a tree that is evaluated in stages for the sake of the comparison."""
FEATURES = frozenset(
    {"promql-experimental-functions", "promql-extended-range-selectors", "promql-binop-fill-modifiers"}
)
DELAYED = frozenset({"promql-delayed-name-removal"})
STARTS = frozenset({"use-start-timestamps"})

Result = dict[Labels, list[Cell]]


@dataclass(frozen=True)
class Case:
    """What to evaluate; a case is made anew from (seed, number)."""

    seed: int
    number: int
    query: str
    times: Times
    delayed: bool
    starts: bool
    """Whether start timestamps are known."""


@dataclass(frozen=True)
class Difference:
    """Why the two do not agree."""

    case: Case
    text: str

    def __str__(self) -> str:
        case = self.case
        grid = f"{case.times.start_ms} + {case.times.steps} * {case.times.step_ms} ms"
        grid += f", delayed={case.delayed}, starts={case.starts}"
        return f"case {case.seed}:{case.number} {case.query!r} at {grid}\n  {self.text}"


class Fuzz:
    """Makes and runs cases; stores are made anew every QUERIES_PER_STORE cases. With `old_names` no query has
    names that Prometheus before 3.0 cannot read."""

    def __init__(self, seed: int, old_names: bool = False) -> None:
        self.seed = seed
        self._old_names = old_names
        self._engines = {
            (delayed, starts): Engine(
                EngineOptions(features=FEATURES | of_names | of_starts, threads=1, timeout_s=300)
            )
            for delayed, of_names in ((False, frozenset()), (True, DELAYED))
            for starts, of_starts in ((False, frozenset()), (True, STARTS))
        }
        self.skipped: Counter[str] = Counter()
        """Cases without a comparison, by reason (reasons.md)."""
        self._held: tuple[int, list[Series], MemoryStore] | None = None
        self.querier: KeptLabels | None = None
        """Over the store of the last case."""

    def content(self, number: int) -> tuple[list[Series], MemoryStore]:
        """The store of a case."""
        batch = number // QUERIES_PER_STORE
        if self._held is None or self._held[0] != batch:
            series = make_series(Random(f"{self.seed}:{batch}:data"))
            self._held = batch, series, fill_store(series)
        return self._held[1:]

    def case(self, number: int) -> Case:
        """The case of a number."""
        rng = Random(f"{self.seed}:{number}:query")
        query = _query_of_old_names(rng) if self._old_names else QueryMaker(rng).query()
        if rng.random() < 0.5:
            times = Times(rng.randint(0, END_MS // 1000) * 1000, 0, 1)
        else:
            start = rng.randint(0, END_MS // 2000) * 1000
            times = Times(start, rng.choice([7_000, 15_000, 60_000]), rng.randint(2, 9))
        return Case(self.seed, number, query, times, rng.random() < 0.5, rng.random() < 0.5)

    def run(self, number: int) -> Difference | None:
        """Evaluate one case both ways."""
        return self.compare(self.case(number))

    def compare(self, case: Case) -> Difference | None:
        """Evaluate a case on the store of its number."""
        series, store = self.content(case.number)
        try:
            expected = self.expected(case, series)
        except Unspecified as reason:
            self.skipped[str(reason)] += 1
            return None
        got = self.got(case, store)
        if isinstance(expected, str) or isinstance(got, str):
            if isinstance(expected, str) and isinstance(got, str):
                return None
            return Difference(case, f"interpreter: {_brief(expected)}\n  engine: {_brief(got)}")
        problem = differing(expected, got)
        return Difference(case, problem) if problem else None

    def expected(self, case: Case, series: list[Series]) -> Result | str:
        """The interpreter's answer, or its error; raises Unspecified."""
        expr = parse(case.query, ParserOptions.everything())
        interpreter = Interpreter(series, Options(delayed_names=case.delayed, start_timestamps=case.starts))
        try:
            return {row.labels: row.cells for row in interpreter.evaluate(expr, case.times)}
        except EvaluationError as error:
            return f"error: {error}"

    def got(self, case: Case, store: MemoryStore) -> Result | str:
        """The engine's answer, or its error."""
        engine = self._engines[case.delayed, case.starts]
        if self.querier is None or self.querier.store is not store:
            self.querier = KeptLabels(store)
        querier: Any = self.querier  # as a Querier, most of whose methods it passes on
        # Counting puts operators between the others, which must not change a thing.
        stats = "all" if case.number % 5 == 0 else ""
        # So does evaluation in stages, which only deep queries need.
        levels = FEW_LEVELS if case.number % 4 == 0 else LEVELS_AT_ONCE_MAX
        try:
            with patch.object(prepared, "LEVELS_AT_ONCE_MAX", levels):
                return rows_of_result(self._evaluated(engine, querier, case, stats))
        except ExecutionError as error:
            return f"error: {error}"

    @staticmethod
    def _evaluated(engine: Engine, querier: Any, case: Case, stats: str) -> QueryResult:
        times = case.times
        if times.steps == 1:
            return engine.instant(querier, case.query, times.start_ms, stats=stats)
        end = times.all()[-1]
        return engine.range(querier, case.query, times.start_ms, end, times.step_ms, stats=stats)


def _query_of_old_names(rng: Random) -> str:
    """The first without UTF-8 names and names in quotes."""
    while True:
        query = QueryMaker(rng, quoted_share=0.0).query()
        if not any("utf-8" in item for item in contents(parse(query, ParserOptions.everything()))):
            return query


def rows_of_result(found: QueryResult) -> Result:
    """An engine's result in the interpreter's form."""
    if found.type is ValueType.SCALAR and isinstance(found.value, float):
        return {Labels(): [found.value]}
    matrix = found.value
    assert isinstance(matrix, Matrix)
    out: Result = {}
    for i, labels in enumerate(matrix.labels.rows()):
        cells: list[Cell] = []
        for k in range(matrix.values.shape[1]):
            cell: Cell = None
            if matrix.values.view("u8")[i, k] != ABSENT_BITS:
                cell = float(matrix.values[i, k])
            elif matrix.histograms is not None and matrix.histograms.index[i, k] >= 0:
                cell = as_reference(histogram_at(matrix.histograms.pool, int(matrix.histograms.index[i, k])))
            cells.append(cell)
        out[labels] = cells
    return out


def _brief(result: Result | str) -> str:
    return result if isinstance(result, str) else f"{len(result)} series"


def differing(expected: Result, got: Result) -> str:
    """A description of the first difference; empty if there is none."""
    if set(expected) != set(got):
        missing, extra = set(expected) - set(got), set(got) - set(expected)
        return f"engine misses {sorted(map(str, missing))}, has extra {sorted(map(str, extra))}"
    for labels, cells in expected.items():
        for k, (want, have) in enumerate(zip(cells, got[labels], strict=True)):
            if not same_cell(want, have):
                return f"{labels} step {k}: interpreter {want}, engine {have}"
    return ""


def same_cell(want: Cell, have: Cell) -> bool:
    """Equal within the fuzz's tolerance."""
    if isinstance(want, float) and isinstance(have, float):
        return close(want, have)
    if isinstance(want, FloatHistogram) and isinstance(have, FloatHistogram):
        return same_histogram(want.copy().compact(), have.copy().compact())
    return want is None and have is None


def close(x: float, y: float) -> bool:
    """Equal, or nearly."""
    if math.isnan(x) or math.isnan(y):
        return math.isnan(x) and math.isnan(y)
    if x == y:
        return True
    if math.isinf(x) or math.isinf(y):
        return False
    return abs(x - y) <= max(RELATIVE * max(abs(x), abs(y)), NEAR_ZERO)


def same_histogram(x: FloatHistogram, y: FloatHistogram) -> bool:
    """Same layout and nearly the same counts; a bucket may be missing where the other's is nearly empty."""
    layout = (x.schema, x.hint, x.zero_threshold, x.custom) == (y.schema, y.hint, y.zero_threshold, y.custom)
    numbers = [(x.count, y.count), (x.sum, y.sum), (x.zero_count, y.zero_count)]
    for mine, theirs in ((x.positive, y.positive), (x.negative, y.negative)):
        numbers += [(mine.get(i, 0.0), theirs.get(i, 0.0)) for i in {*mine, *theirs}]
    return layout and all(close(a, b) for a, b in numbers)
