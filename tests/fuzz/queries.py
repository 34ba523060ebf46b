"""Random queries for the differential fuzz. A function joins by being in the function table."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from promql.ast import ValueType
from promql.functions import FUNCTIONS, Function
from promql.operators.window import ANCHORED_FUNCTIONS, SMOOTHED_FUNCTIONS
from tests.fuzz.spelling import QUOTED_SHARE, Condition, Speller, quoted

NAMES = (
    *("c_total", "c_total", "g", "g", "g2", "d_bucket", "h", "h", "x", "nothing", "target_info"),
    *("disk.io", "größe", "lat.h"),
)
LABELS = ("a", "b", "c", "le", "job", "missing", "label.x", 'ü "q"', "no.such")
CONDITIONS: tuple[Condition, ...] = (
    *(("a", '="1"'), ("a", '!="1"'), ("b", '=~"x|y"'), ("b", '!~"x"'), ("c", '=""'), ("c", '!=""')),
    *(("a", '=~"[12]"'), ("le", '="+Inf"'), ("label.x", '="p"'), ("label.x", '!~"q|"'), ('ü "q"', '=""')),
)
DURATIONS = ("30s", "1m", "90s", "2m", "5m", "10m1s", "30s + 1m", "2 * step() + 40s", "max_of(1m, step())")
OFFSETS = ("1m", "-30s", "3m7s", "(1m - 20s)", "(30s + step())")
EXTENSIONS = {"anchored": ANCHORED_FUNCTIONS, "smoothed": SMOOTHED_FUNCTIONS}
OF_COUNTERS = ("rate", "increase", "irate", "resets", "start_timestamp")
"""What start timestamps have a part in: asked more often than other functions."""
GROUPINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *(("", ()), ("", ()), ("by", ("a",)), ("by", ("a", "b")), ("without", ("a",)), ("by", ("le",))),
    *(("without", ("b", "c")), ("by", ("label.x",)), ("without", ("label.x", "b"))),
)
MATCHINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *(("", ()), ("", ()), ("on", ("a",)), ("on", ("a", "b")), ("ignoring", ("b",)), ("ignoring", ("le",))),
    *(("on", ("a", "label.x")), ("ignoring", ("label.x",))),
)
_SPECIAL = frozenset(
    {"label_replace", "label_join", "histogram_quantiles", "absent", "absent_over_time", "info"}
)


class QueryMaker:
    """Writes one query after the other from a seeded generator."""

    def __init__(self, rng: Random, depth_max: int = 4, quoted_share: float = QUOTED_SHARE) -> None:
        self.rng = rng
        self.speller = Speller(rng, quoted_share)
        self.depth_max = depth_max
        self._vector_functions = [f for f in FUNCTIONS.values() if f.return_type is ValueType.VECTOR]

    def query(self) -> str:
        """The text of a query whose result is a vector or a scalar."""
        return self.scalar(2) if self.rng.random() < 0.03 else self.vector(0)

    def selector(self, modifiers: bool = True) -> str:
        """An instant selector without or with modifiers."""
        rng = self.rng
        name = rng.choice(NAMES)
        conditions = []
        while rng.random() < 0.3:
            conditions.append(rng.choice(CONDITIONS))
        text = self.speller.selector(name, conditions)
        if not modifiers:
            return text
        return text + (" smoothed" if rng.random() < 0.03 else "") + self._modifiers()

    def _modifiers(self) -> str:
        rng = self.rng
        out = ""
        if rng.random() < 0.08:
            out += rng.choice([" @ 300", " @ start()", " @ end()", " @ 421.5"])
        if rng.random() < 0.12:
            out += f" offset {rng.choice(OFFSETS)}"
        return out

    def range(self, depth: int, extensions: Sequence[str] = ()) -> str:
        """A range vector, of a selector now and then with one of the extensions."""
        rng = self.rng
        if depth < self.depth_max and rng.random() < 0.25:
            step = rng.choice(["", "15s", "30s", "1m", "7s", "2 * 9s"])
            return f"({self.vector(depth + 2)})[{rng.choice(DURATIONS)}:{step}]{self._modifiers()}"
        extension = f" {rng.choice(extensions)}" if extensions and rng.random() < 0.2 else ""
        return f"{self.selector(False)}[{rng.choice(DURATIONS)}]{extension}{self._modifiers()}"

    def scalar(self, depth: int) -> str:
        """A scalar."""
        rng = self.rng
        drawn = rng.random()
        if depth < self.depth_max and drawn < 0.1:
            return f"scalar({self.vector(depth + 1)})"
        if drawn < 0.18:
            return rng.choice(["time()", "pi()", "start()", "end()", "step()", "range()"])
        if depth < self.depth_max and drawn < 0.2:
            name = rng.choice(["min_of", "max_of"])
            return f"{name}({self.scalar(depth + 1)}, {self.scalar(depth + 1)})"
        if depth < self.depth_max and drawn < 0.25:
            return f"({self.scalar(depth + 1)} {rng.choice('+-*/%^')} {self.scalar(depth + 1)})"
        if depth < self.depth_max and drawn < 0.27:
            op = rng.choice(["==", "!=", ">", "<", ">=", "<="])
            return f"({self.scalar(depth + 1)} {op} bool {self.scalar(depth + 1)})"
        if depth < self.depth_max and drawn < 0.29:
            return f"-({self.scalar(depth + 1)})"
        return rng.choice(["0", "1", "2", "0.5", "-1.5", "3", "100", "0.9"])

    def vector(self, depth: int) -> str:
        """An instant vector."""
        rng = self.rng
        if depth >= self.depth_max or rng.random() < 0.12:
            return self.selector()
        return rng.choices(
            [self._call, self._aggregation, self._binary, self._unary], weights=[50, 22, 25, 3]
        )[0](depth)

    def _unary(self, depth: int) -> str:
        return f"-({self.vector(depth + 1)})"

    def _call(self, depth: int) -> str:
        function = self.rng.choice(self._vector_functions)
        if self.rng.random() < 0.15:
            function = FUNCTIONS[self.rng.choice(OF_COUNTERS)]
        if function.name in _SPECIAL:
            return self._special(function.name, depth)
        return f"{function.name}({', '.join(self._arguments(function, depth))})"

    def _arguments(self, function: Function, depth: int) -> list[str]:
        rng = self.rng
        out = []
        count = function.args_min
        most = function.args_max
        if function.variadic:
            count = rng.randint(count, (count + 2) if most is None else most)
        for i in range(count):
            kind = function.arg_type(i)
            if kind is ValueType.SCALAR:
                unit = function.name in (
                    "quantile_over_time",
                    "histogram_quantile",
                    "double_exponential_smoothing",
                )
                out.append(rng.choice(["0.1", "0.5", "0.9", "0.99"]) if unit else self.scalar(depth + 1))
            elif kind is ValueType.MATRIX:
                out.append(
                    self.range(depth + 1, [e for e, names in EXTENSIONS.items() if function.name in names])
                )
            elif kind is ValueType.STRING:
                out.append(quoted(rng.choice(LABELS)))
            else:
                out.append(self.vector(depth + 1))
        return out

    def _special(self, name: str, depth: int) -> str:
        rng = self.rng
        inner = self.vector(depth + 1)
        if name == "label_replace":
            target = quoted(rng.choice(["a", "new", "__name__", "b", "label.x", "new.x"]))
            source = quoted(rng.choice(["a", "a", "a", "label.x"]))
            value = quoted(rng.choice(["$1", "v-$1", ""]))
            return f'label_replace({inner}, {target}, {value}, {source}, "(.*)")'
        if name == "label_join":
            target = quoted(rng.choice(["new", "a", 'ü "q"']))
            return f'label_join({inner}, {target}, "-", "a", {quoted(rng.choice(["b", "b", "label.x"]))})'
        if name == "histogram_quantiles":
            return f"histogram_quantiles({inner}, {quoted(rng.choice(['q', 'q.x']))}, 0.5, 0.9)"
        if name == "info":
            second = rng.choice(
                [
                    *("", "", ', {version=~".+"}', ', {c=~".*"}', ', {__name__="build_info"}'),
                    *(', {__name__!~"x"}', ', {"service.version"=~".+"}', ', {"build_info"}'),
                ]
            )
            return f"info({self.selector() if rng.random() < 0.5 else inner}{second})"
        if name == "absent":
            return f"absent({self.selector() if rng.random() < 0.7 else inner})"
        return f"absent_over_time({self.range(depth + 1)})"

    def _aggregation(self, depth: int) -> str:
        rng = self.rng
        op = rng.choice(
            ["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar"] * 2
            + ["topk", "bottomk", "quantile", "count_values", "limitk", "limit_ratio"]
        )
        word, names = rng.choice(GROUPINGS)
        grouping = f" {word} {self.speller.labels(names)}" if word else ""
        inner = self.vector(depth + 1)
        if op in ("topk", "bottomk", "limitk"):
            return f"{op}{grouping} ({rng.choice(['1', '2', '3'])}, {inner})"
        if op == "limit_ratio":
            return f"limit_ratio{grouping} ({rng.choice(['0.5', '-0.5', '0.1', '1', '1.5', '-2'])}, {inner})"
        if op == "quantile":
            return f"quantile{grouping} ({rng.choice(['0.3', '0.5', '1'])}, {inner})"
        if op == "count_values":
            return f"count_values{grouping} ({quoted(rng.choice(['v', 'v', 'v.x']))}, {inner})"
        return f"{op}{grouping} ({inner})"

    def _binary(self, depth: int) -> str:
        rng = self.rng
        drawn = rng.random()
        arithmetic = rng.choice(["+", "-", "*", "/", "%", "^", "atan2"])
        comparison = rng.choice(["==", "!=", ">", "<", ">=", "<="])
        op = arithmetic if rng.random() < 0.6 else comparison + rng.choice(["", " bool"])
        left = self.vector(depth + 1)
        if drawn < 0.35:
            if rng.random() < 0.1:
                op = rng.choice(["</", ">/"])
                return f"({left}) {op} {self.scalar(depth + 1)}"
            if rng.random() < 0.3:
                return f"{self.scalar(depth + 1)} {op} ({left})"
            return f"({left}) {op} {self.scalar(depth + 1)}"
        right = self.vector(depth + 1)
        word, names = rng.choice(MATCHINGS)
        matching = f"{word} {self.speller.labels(names)}" if word else ""
        if drawn < 0.6:
            return f"({left}) {rng.choice(['and', 'or', 'unless'])} {matching} ({right})"
        if matching and rng.random() < 0.4:
            included = rng.choice([(), (), ("c",), ("c",), ("label.x",)])
            if set(included) & set(names):
                included = ()  # `on` and `group_left` of the same label are refused
            matching += f" {rng.choice(['group_left', 'group_right'])} {self.speller.labels(included)}"
        if rng.random() < 0.1:
            fills = ["fill (0)", "fill_left (1)", "fill_right (-2.5)", "fill_left (3) fill_right (NaN)"]
            matching += f" {rng.choice(fills)}"
        if rng.random() < 0.4:
            right = left
        return f"({left}) {op} {matching} ({right})"
