"""The longest stretch of work between two looks at a query's cancel flag, for every function and aggregation
over inputs that are hard on it.

A client that goes away, and a timeout, end a query at its next look; so the stretch is how long it goes on.
It is measured in CPU time of the thread, over a store in memory: `python -m benchmarks.stretches [WORD ...]`
(the queries that contain a word) prints those of more than 20 ms, with where they begin and end.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from cli.kernels import import_all_kernels
from promql.budget import QueryBudget
from promql.engine import Engine
from promql.engineerrors import ExecutionError, PreparationError, QueryTimeout
from promql.functions import AGGREGATORS, FUNCTIONS, MATRIX, SCALAR, STRING, VECTOR
from promql.histogramvalue import Histogram, histogram_batch
from promql.operators.rangeresult import rows_between
from promql.operators.samples import keep_histograms
from promql.options import EngineOptions
from promql.parser import ParseError
from tsdb.kernels.compile import warm
from tsdb.labels import Labels, Matcher
from tsdb.select import SampleBatch, SelectHints
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

I64Array = npt.NDArray[np.int64]

SHOWN_MS = 20.0
NO_HINTS = SelectHints()
INTERVAL_MS = 15_000
FEATURES = frozenset(
    {
        *("promql-experimental-functions", "promql-extended-range-selectors"),
        *("promql-binop-fill-modifiers", "promql-duration-expr"),
    }
)
END_MS = 200_000 * INTERVAL_MS


class Metric:
    """Some series of one name with equally many samples each."""

    def __init__(self, name: str, rows: int, samples: int, symbols: SymbolTable, histograms: bool) -> None:
        self.samples = samples
        sets = [
            {"__name__": name, "host": f"h{row // 10}", "le": str(2.0 ** (row % 10)), "job": f"j{row % 7}"}
            for row in range(rows)
        ]
        self.labels = SeriesLabels.from_labels([Labels.from_dict(labels) for labels in sets], symbols)
        times = END_MS - np.arange(samples - 1, -1, -1, dtype=np.int64) * INTERVAL_MS - 7
        t_ms = np.tile(times, rows)
        offsets = np.arange(rows + 1, dtype=np.int64) * samples
        rng = np.random.default_rng(1)
        if not histograms:
            values = rng.random((rows, samples)).cumsum(axis=1).reshape(-1)
            self.batch = SampleBatch(offsets, t_ms, values)
            return
        rise = [
            Histogram(
                schema=3,
                count=24.0 * (i + 1),
                sum=float(i),
                zero_threshold=1e-9,
                positive=tuple((bucket, 1.0 + i) for bucket in range(-12, 12)),
            )
            for i in range(samples)
        ]
        # One row of histograms made, and all the others are like it.
        one = histogram_batch([[(int(t), h, 0) for t, h in zip(times, rise, strict=True)]])
        pool = keep_histograms(one, np.tile(np.arange(samples), rows))
        kept = {field: getattr(pool, field) for field in pool.__dataclass_fields__}
        kept.update(row_offsets=offsets, t_ms=t_ms)
        none = np.empty(0)
        zero = np.zeros(rows + 1, dtype=np.int64)
        self.batch = SampleBatch(zero, none.astype(np.int64), none, None, type(pool)(**kept))


class Store:
    """Implements `tsdb.select.Querier` over columns: the name alone decides."""

    def __init__(self) -> None:
        self.symbols = SymbolTable()
        shapes = {
            "wide": (20, 200_000, False),
            "mid": (2_000, 2_000, False),
            "many": (100_000, 20, False),
            "one": (1, 200_000, False),
            "hist": (60, 1_000, True),
            "hwide": (1, 50_000, True),
            "hmany": (20_000, 8, True),
        }
        self.metrics = {
            name: Metric(name, rows, samples, self.symbols, histograms)
            for name, (rows, samples, histograms) in shapes.items()
        }

    def select(self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints = NO_HINTS) -> Any:
        """The whole metric."""
        name = next((matcher.value for matcher in matchers if matcher.name == "__name__"), "one")
        return _Selection(self.metrics.get(name, self.metrics["one"]), mint, maxt)

    def close(self) -> None:
        """Nothing to let go of."""


class _Selection:
    def __init__(self, metric: Metric, mint: int, maxt: int) -> None:
        self._batch, self._samples = metric.batch, metric.samples
        self.labels = metric.labels

    def sample_bounds(self) -> I64Array:
        return np.full(len(self.labels), self._samples, dtype=np.int64)

    def work_bounds(self) -> I64Array:
        return self.sample_bounds() * (1 if self._batch.histograms is None else 32)

    def read(self, lo: int, hi: int) -> SampleBatch:
        return rows_between(self._batch, lo, hi)


class Watch:
    """Remembers each thread's longest stretch of CPU time between two looks."""

    def __init__(self) -> None:
        self._at: dict[int, tuple[float, str]] = {}
        self.longest: list[tuple[float, str, str]] = []
        self._lock = threading.Lock()

    def look(self, what: str = "") -> None:
        """The calling thread looks at its flag, or begins or ends a task."""
        now, me = time.thread_time(), threading.get_ident()
        where = what or _caller()
        before = self._at.get(me)
        if before is not None and now - before[0] > SHOWN_MS / 1000:
            with self._lock:
                self.longest.append((now - before[0], before[1], where))
        self._at[me] = (time.thread_time(), where)

    def end(self) -> list[tuple[float, str, str]]:
        """Stretches so far, the longest first; and begin anew."""
        found, self.longest = sorted(self.longest, reverse=True), []
        self._at = {}
        return found


def _caller() -> str:
    frames = [
        f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
        for frame in traceback.extract_stack(limit=7)
        if not frame.filename.endswith("stretches.py")
    ]
    return " ".join(frames[-3:])


class WatchedPool(ThreadPoolExecutor):
    """A pool whose tasks tell when they begin and end."""

    watch: Watch

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """As the base class."""

        def task() -> Any:
            self.watch.look("task begins")
            try:
                return function(*args, **kwargs)
            finally:
                self.watch.look("task ends")

        return super().submit(task)


_ALIKE = frozenset(
    {
        *("ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "deg", "rad", "cos", "tan", "asin"),
        *("acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "month", "minute", "year"),
        *("day_of_week", "day_of_year", "days_in_month", "hour", "clamp_min", "clamp_max", "sort_desc"),
    }
)
"""Functions like another that is asked: left out."""

_NO_VECTORS = frozenset({"info", "start", "end", "range", "step", "min_of", "max_of", "pi", "time"})


def _calls() -> Iterator[str]:
    """Each function over what is hard on it, as texts with {v} (vector) and {m} (range vector)."""
    strings = {"label_replace": ('"x"', '"$1"', '"host"', '"(.*)"'), "label_join": ('"x"', '"-"', '"host"')}
    for function in FUNCTIONS.values():
        if function.name in _ALIKE or function.name in _NO_VECTORS:
            continue
        texts = iter(strings.get(function.name, ('"host"',)))
        shown = {SCALAR: "0.5", VECTOR: "{v}", MATRIX: "{m}", STRING: ""}
        args = [shown[kind] or next(texts, '"host"') for kind in function.arg_types]
        yield f"{function.name}({', '.join(args)})"
    for aggregator in AGGREGATORS.values():
        param = {None: "", SCALAR: "0.5, ", STRING: '"v", '}[aggregator.param]
        if aggregator.name in ("topk", "bottomk", "limitk"):
            param = "50, "
        yield f"{aggregator.name}({param}{{v}})"
        yield f"{aggregator.name} by (host) ({param}{{v}})"


VECTORS = ("mid", "many", "hist", "hmany", "rate(hist[10m])")
RANGES = (
    *("wide[30d]", "mid[5h]", "many[5m]", "one[1d]", "one[1h:20ms]", "mid[50m:1s]", "many[3m:10s]"),
    *("hist[2h]", "hwide[8d]", "hmany[2m]", "hist[10m:500ms]", "rate(hist[5m])[10m:500ms]"),
)
JOINS = (
    *("mid + on (host, le) mid", "many * many", "many + on (host) group_left () sum by (host) (many)"),
    *("many and many", "many or mid", "many unless many", "hist + hist", "hmany - hmany", "hmany == hmany"),
    *("hist * 3", "hist </ 3", "mid > bool 3", "-many", "many ^ 2", "many and on (host) mid"),
    "quantile_over_time(0.9, wide[30d]) + on (host, le) quantile_over_time(0.5, wide[30d])",
    *("mid == mid", "many >= bool many", "mid + fill(0) on (host, le) many", "many % many", "mid", "hist"),
    *("absent_over_time(many[5m])", "scalar(many)", "mid[5h]", "hist[2h]", "hwide[8d]", "many[5m]"),
    *("wide[30d]", "one[1h:1ms]", "mid[50m:1s]", "hmany[2m]", "many @ end()", "vector(time())[1h:1ms]"),
    *("rate(many[5m] anchored)", "rate(mid[5h] smoothed)", "mid smoothed", "rate(hist[2h] anchored)"),
    *("rate(hwide[8d] smoothed)", "hist smoothed", "rate(wide[30d] anchored)", "increase(one[1d] smoothed)"),
    *('histogram_quantiles(hist, "q", 0.1, 0.5, 0.9)', 'sort_by_label(many, "host")', "info(many)"),
    *(
        "sum(rate(hist[10m]))",
        "histogram_quantile(0.9, sum by (le) (mid))",
        'label_join(many, "x", "-", "host", "job")',
    ),
    *("sum by (host, le) (many)", "count by (le) (rate(mid[5h:10s]))", "max_over_time(rate(mid[5m])[1h:1s])"),
)


def queries() -> Iterator[tuple[str, int, int]]:
    """(text, steps, step in ms)."""
    for call in _calls():
        if "{m}" in call:
            for source in RANGES:
                yield call.replace("{m}", source), 1, 0
                yield call.replace("{m}", source), 120, 60_000
            yield call.replace("{m}", "mid[1h]"), 5_000, 5_000
            yield call.replace("{m}", "hist[10m]"), 5_000, 2_000
        else:
            for source in VECTORS:
                text = call.replace("{v}", source)
                yield text, 1, 0
                yield text, 100 if "many" in source else 1_000, 15_000
    for text in JOINS:
        yield text, 1, 0
        yield text, 100, 30_000


def main() -> None:
    """Print the stretches."""
    words = sys.argv[1:]
    watch = Watch()
    import_all_kernels()
    warm()
    check = QueryBudget.check

    def looked(self: QueryBudget) -> None:
        watch.look()
        check(self)

    QueryBudget.check = looked  # type: ignore[method-assign]
    engine = Engine(EngineOptions(features=FEATURES, threads=2, timeout_s=8, samples_max=400_000_000))
    pool = WatchedPool(2)
    pool.watch = watch
    engine._pool = pool
    store = Store()
    over = 0
    for text, steps, step_ms in queries():
        if words and not any(word in text for word in words):
            continue
        watch.look("begin")
        start_ms, began = END_MS - (steps - 1) * step_ms, time.perf_counter()
        try:
            if steps == 1:
                engine.instant(store, text, END_MS)  # type: ignore[arg-type]
            else:
                engine.range(store, text, start_ms, END_MS, step_ms)  # type: ignore[arg-type]
            answer = ""
        except (ExecutionError, PreparationError, QueryTimeout, ParseError) as error:
            answer = f" {type(error).__name__}: {error}"[:150]
        watch.look("end")
        found = watch.end()
        took = time.perf_counter() - began
        if found or (answer and "Timeout" not in answer):
            over += bool(found)
            print(f"{text}  steps={steps} took {took:.1f} s{answer}")
            for seconds, first, last in found[:2]:
                print(f"   {seconds * 1000:7.1f} ms  {first}  ->  {last}", flush=True)
    print(f"{over} queries with stretches of more than {SHOWN_MS:.0f} ms")


if __name__ == "__main__":
    main()
