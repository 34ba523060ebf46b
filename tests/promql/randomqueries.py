"""Random queries and data from one seed: the whole language but for what has no fixed answer.

Data has resets, gaps, stale markers, NaN and infinities. Queries avoid limitk, limit_ratio and topk ties over
infinities only where their choice depends on the order of series.
"""

from __future__ import annotations

import math
import random

from promql.memory import MemoryStore
from tsdb.labels import Labels

METRICS = ("a_total", "b_total", "gauge", "sparse")
RANGES = ("1m", "90s", "5m", "17s")
OVER_TIME = (
    *("rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets", "sum_over_time"),
    *("avg_over_time", "min_over_time", "max_over_time", "count_over_time", "last_over_time"),
    *("stddev_over_time", "stdvar_over_time", "present_over_time", "first_over_time", "mad_over_time"),
    *("ts_of_max_over_time", "ts_of_min_over_time", "ts_of_last_over_time", "absent_over_time"),
)
OF_VECTOR = (
    *("abs", "ceil", "floor", "sgn", "exp", "ln", "sqrt", "round", "timestamp", "hour", "day_of_year"),
    *("days_in_month", "absent", "sort", "deg", "atan"),
)
AGGREGATIONS = ("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar")
OPERATORS = ("+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=")


def random_store(seed: int) -> MemoryStore:
    """Up to 40 minutes of samples about every 15 s."""
    rng = random.Random(seed)
    store = MemoryStore()
    for name in METRICS:
        for i in range(rng.randint(1, 3)):
            labels = Labels.from_dict({"__name__": name, "i": str(i), "job": rng.choice("xy")})
            t, value = rng.randint(0, 60_000), 0.0
            while t < 2_400_000:
                roll = rng.random()
                if roll < 0.02:
                    store.add_stale(labels, t)
                elif roll < 0.04 and name == "gauge":
                    store.add_float(labels, t, rng.choice([math.nan, math.inf, -math.inf, 1e308, -0.0]))
                else:
                    if name.endswith("_total"):
                        value = 0.0 if roll < 0.08 else value + rng.randint(0, 30)
                    else:
                        value = rng.choice([rng.uniform(-10, 10), float(rng.randint(-5, 5))])
                    store.add_float(labels, t, value)
                t += rng.choice([15_000] * 6 + [14_999, 15_001, 700_000 if name == "sparse" else 90_000])
    return store


class QueryMaker:
    """Makes random queries from one generator."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def vector(self, depth: int) -> str:
        """An instant-vector expression."""
        rng = self._rng
        if depth <= 0 or rng.random() < 0.12:
            return self._selector() + self._modifier()
        kind = rng.randrange(9)
        if kind == 0:
            return f"{rng.choice(OF_VECTOR)}({self.vector(depth - 1)})"
        if kind <= 2:
            return f"{rng.choice(OVER_TIME)}({self._range(depth - 1)})"
        if kind <= 4:
            return self._aggregation(depth - 1)
        if kind == 5:
            return self._binary(depth - 1)
        if kind == 6:
            return self._set(depth - 1)
        if kind == 7:
            return self._special(depth - 1)
        return f"-{self.vector(depth - 1)}" if rng.random() < 0.3 else f"({self.vector(depth - 1)})"

    def _selector(self) -> str:
        rng = self._rng
        name = rng.choice(METRICS)
        matcher = rng.choice(["", "", '{i="0"}', '{job!="x"}', '{i=~"[01]"}', '{none="1"}'])
        return name + matcher

    def _modifier(self) -> str:
        rng = self._rng
        text = ""
        if rng.random() < 0.15:
            text += f" offset {rng.choice(['30s', '5m', '-45s'])}"
        if rng.random() < 0.1:
            text += f" @ {rng.randint(0, 2400)}"
        return text

    def _range(self, depth: int) -> str:
        rng = self._rng
        if depth > 0 and rng.random() < 0.35:
            step = rng.choice(["", "15s", "1m", "7s"])
            return f"({self.vector(depth - 1)})[{rng.choice(RANGES)}:{step}]{self._modifier()}"
        return f"{self._selector()}[{rng.choice(RANGES)}]{self._modifier()}"

    def _aggregation(self, depth: int) -> str:
        rng = self._rng
        group = rng.choice(["", " by (job)", " by (i, job)", " without (i)", " by (none)"])
        if rng.random() < 0.2:
            return f"quantile{group} ({rng.choice(['0.5', '0.9', '-1', '1'])}, {self.vector(depth)})"
        return f"{rng.choice(AGGREGATIONS)}{group} ({self.vector(depth)})"

    def _binary(self, depth: int) -> str:
        rng = self._rng
        op = rng.choice(OPERATORS)
        word = " bool" if op in ("==", ">", "<=") and rng.random() < 0.4 else ""
        if rng.random() < 0.5:
            number = rng.choice(["2", "0", "-1.5", "time()", "scalar(gauge{i='0'})"])
            sides = [f"({self.vector(depth)})", number]
            rng.shuffle(sides)
            return f"{sides[0]} {op}{word} {sides[1]}"
        match = rng.choice(["", " on (i, job)", " ignoring (none)", " on (i, job) group_left ()"])
        return f"({self.vector(depth)}) {op}{word}{match} ({self.vector(depth)})"

    def _set(self, depth: int) -> str:
        rng = self._rng
        match = rng.choice(["", " on (i)", " ignoring (job)"])
        op = rng.choice(["and", "or", "unless"])
        return f"({self.vector(depth)}) {op}{match} ({self.vector(depth)})"

    def _special(self, depth: int) -> str:
        rng = self._rng
        inner = self.vector(depth)
        return rng.choice(
            [
                f'label_replace({inner}, "z", "$1", "i", "(.*)")',
                f'label_join({inner}, "z", "-", "job", "i")',
                f"clamp({inner}, -3, 20)",
                f"topk(2, {inner})",
                f'count_values("v", {inner})',
                f"vector(scalar({inner}))",
                f"quantile_over_time(0.7, {self._range(depth)})",
                f"predict_linear({self._range(depth)}, 60)",
                f"double_exponential_smoothing({self._range(depth)}, 0.4, 0.6)",
            ]
        )


def random_query(seed: int, depth: int = 3) -> str:
    """One query."""
    return QueryMaker(random.Random(seed)).vector(depth)
