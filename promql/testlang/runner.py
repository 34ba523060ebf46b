"""Runs test files: every eval with the repetitions that Prometheus makes.

An instant query is also evaluated pinned with `@` at other times, and each of these as the middle step of a
range query. Semantics: prometheus-surface.md 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from promql.engineerrors import ExecutionError, PreparationError
from promql.errors import ParseError
from promql.matrix import Matrix
from promql.memory import MemoryStore
from promql.options import EngineOptions
from promql.result import QueryResult, RangeVectors
from promql.testlang import compare
from promql.testlang.atmodifier import pinned_variants
from promql.testlang.commands import Clear, Eval, Load
from promql.testlang.compare import Mismatch
from promql.testlang.loading import load
from promql.testlang.reader import read_test_file
from promql.testlang.results import Row, rows_of
from tsdb.select import Querier

MINUTE_MS = 60_000

TEST_FEATURES = frozenset(
    {
        "promql-experimental-functions",
        "promql-extended-range-selectors",
        "promql-binop-fill-modifiers",
        "promql-delayed-name-removal",
        "use-start-timestamps",
    }
)
TEST_OPTIONS = EngineOptions(
    samples_max=10_000,
    timeout_s=100.0,
    lookback_ms=5 * MINUTE_MS,
    subquery_step_ms=MINUTE_MS,
    features=TEST_FEATURES,
)
"""The engine of test files."""

_DEPENDS_ON_RANGE = re.compile(r"(start|end|range|step)\(\)")
_QUERY_ERRORS = (ParseError, PreparationError, ExecutionError)


class QueryEngine(Protocol):
    """What the runner asks of an engine."""

    def instant(self, querier: Querier, text: str, time_ms: int) -> QueryResult:
        """Evaluate at one time."""
        ...

    def range(self, querier: Querier, text: str, start_ms: int, end_ms: int, step_ms: int) -> QueryResult:
        """Evaluate at several times."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one eval; `problem` is empty where it passed."""

    command: Eval
    problem: str

    @property
    def passed(self) -> bool:
        """Whether all repetitions met the expectations."""
        return not self.problem


class TestRun:
    """Runs the commands of one file against one engine and a store in memory."""

    __test__ = False

    def __init__(self, engine: QueryEngine, new_store: Callable[[], MemoryStore] = MemoryStore) -> None:
        self._engine = engine
        self._new_store = new_store
        self._store = new_store()

    def run(self, text: str) -> Iterator[Outcome]:
        """Outcomes of a file's evals, in order. Raises TestFileError for a file that cannot be read."""
        for command in read_test_file(text):
            if isinstance(command, Clear):
                self._store = self._new_store()
            elif isinstance(command, Load):
                load(self._store, command)
            else:
                yield self._outcome(command)

    def _outcome(self, command: Eval) -> Outcome:
        try:
            if command.is_range:
                self._run_range(command)
            else:
                self._run_instant(command)
        except Mismatch as mismatch:
            return Outcome(command, str(mismatch))
        except Exception as error:
            return Outcome(command, f"{type(error).__name__}: {error}")
        return Outcome(command, "")

    def _run_range(self, command: Eval) -> None:
        result = self._evaluate(
            command,
            lambda querier: self._engine.range(
                querier, command.text, command.start_ms, command.end_ms, command.step_ms
            ),
        )
        if result is not None:
            compare.check_matrix(command, _rows(result))

    def _run_instant(self, command: Eval) -> None:
        variants = [(command.text, command.at_ms), *pinned_variants(command.text, command.at_ms)]
        for text, time_ms in variants:
            try:
                self._run_variant(command, text, time_ms)
            except Mismatch as mismatch:
                if text == command.text and time_ms == command.at_ms:
                    raise
                raise Mismatch(f"as {text} at {time_ms} ms: {mismatch}") from None

    def _run_variant(self, command: Eval, text: str, time_ms: int) -> None:
        result = self._evaluate(command, lambda querier: self._engine.instant(querier, text, time_ms))
        if result is None:
            return
        value = result.value
        if isinstance(value, str):
            compare.check_string(command, value)
            return
        if isinstance(value, float):
            compare.check_scalar(command, value)
        elif isinstance(value, RangeVectors):
            compare.check_matrix(command, rows_of(value))
        else:
            compare.check_vector(command, rows_of(value))
        excluded = command.expects_range_vector or command.string is not None
        if not excluded and not _DEPENDS_ON_RANGE.search(text):
            self._run_as_range(command, text, time_ms, isinstance(value, float))

    def _run_as_range(self, command: Eval, text: str, time_ms: int, scalar: bool) -> None:
        """The instant as the middle step of three."""
        querier = self._store.querier()
        first, last = time_ms - MINUTE_MS, time_ms + MINUTE_MS
        try:
            result = self._engine.range(querier, text, first, last, MINUTE_MS)
        except _QUERY_ERRORS as error:
            raise Mismatch(f"in range mode: {type(error).__name__}: {error}") from None
        if command.ordered:
            return
        rows = _rows(result)
        try:
            compare.check_sorted(rows)
            middle = [row for row in (_point(row, time_ms) for row in rows) if row is not None]
            if scalar:
                compare.check_scalar(command, middle[0].floats[0][1])
            else:
                compare.check_vector(command, middle)
        except Mismatch as mismatch:
            raise Mismatch(f"in range mode: {mismatch}") from None

    def _evaluate(self, command: Eval, query: Callable[[Querier], QueryResult]) -> QueryResult | None:
        """The result after its annotations were checked; None where the query failed as it had to."""
        try:
            result = query(self._store.querier())
        except _QUERY_ERRORS as error:
            if not command.must_fail:
                raise Mismatch(f"error evaluating the query: {type(error).__name__}: {error}") from None
            compare.check_failure(command, str(error))
            return None
        if command.must_fail:
            raise Mismatch("expected an error but got none")
        compare.check_annotations(command, result.warnings, result.infos)
        return result


def _rows(result: QueryResult) -> list[Row]:
    if not isinstance(result.value, (Matrix, RangeVectors)):
        raise Mismatch(f"expected a matrix, got {result.value!r}")
    return rows_of(result.value)


def _point(row: Row, t_ms: int) -> Row | None:
    """The row with nothing but its point at a time."""
    floats = [point for point in row.floats if point[0] == t_ms]
    histograms = [point for point in row.histograms if point[0] == t_ms]
    return Row(row.labels, floats, histograms) if floats or histograms else None
