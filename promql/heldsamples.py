"""Samples that Prometheus holds in memory at a time, worked out from what each part of a query yields.

Prometheus evaluates a tree node by node, each over all steps, and counts what lies in memory meanwhile:
the results of arguments while the next argument and the call are evaluated, the vectors of the step at hand,
the window of the series at hand, a subquery for as long as its function runs. This engine streams and holds
less, but `--query.max-samples` and `peakSamples` mean Prometheus's count (`currentSamples` in 3.x), so
operators report their cells here and the count follows from them. All sums only grow, so a query can be
refused as soon as they say so.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from promql.ast import AggregateExpr, Call, Expr, NumberLiteral, UnaryExpr, ValueType, VectorSelector
from promql.engineerrors import TooManySamples
from promql.functions import FUNCTIONS
from promql.optimize import unwrap

I64Array = npt.NDArray[np.int64]

LEAF, SAME, EVAL, AGGREGATE, WINDOW, TIMESTAMP, REPEAT, RANGE, SUBQUERY = range(9)
"""How a node counts: `peak_and_rest` has the rules."""

GROWTH_UNSEEN_MAX = 1_000_000
"""Samples that a deep query may take before it is looked at again."""

_NONE: I64Array = np.zeros(0, dtype=np.int64)


def kind_of(expr: Expr) -> int:
    """How Prometheus evaluates a node of a type other than a range vector."""
    if isinstance(expr, VectorSelector):
        return LEAF
    if isinstance(expr, UnaryExpr):
        return SAME
    if isinstance(expr, AggregateExpr):
        return EVAL if expr.op == "count_values" else AGGREGATE
    if isinstance(expr, Call):
        if expr.function in ("label_replace", "label_join"):
            return SAME
        if expr.function in ("timestamp", "start_timestamp") and isinstance(
            unwrap(expr.args[0]), VectorSelector
        ):
            return TIMESTAMP
        if ValueType.MATRIX in FUNCTIONS[expr.function].arg_types:
            return WINDOW
    return EVAL


class HeldNode:
    """One node of the tree: the samples it yields, a native histogram as its size in units of 16 bytes."""

    def __init__(
        self, ledger: HeldSamples, kind: int, start: int, steps: int, parent: HeldNode | None
    ) -> None:
        self.kind = kind
        self.start = start
        """Where its text begins: arguments are evaluated in that order."""
        self.children: list[HeldNode] = []
        self.total = 0
        above = parent.kind if parent is not None else LEAF
        inherits = parent is not None and above in (SAME, REPEAT) and parent.by_step
        self.by_step: bool = kind in (EVAL, TIMESTAMP) or above == EVAL or inherits
        self.steps = steps
        self.weights: I64Array = np.zeros(steps, dtype=np.int64) if self.by_step else _NONE
        """By step, where `by_step`."""
        self.present: I64Array = np.zeros(steps, dtype=np.int64) if self.by_step else _NONE
        """The same with a histogram as one."""
        self.rows: I64Array = _NONE
        """By series of a WINDOW: results, samples of the last and of the fullest window."""
        self.last: I64Array = _NONE
        self.most: I64Array = _NONE
        self.by_window = False
        """Whether each window that is not empty is a result until the end: absent_over_time."""
        self._ledger = ledger
        if parent is not None:
            parent.children.append(self)

    def announce(self, rows: int) -> None:
        """Make room for the series of a WINDOW."""
        if len(self.rows) != rows:
            self.rows, self.last, self.most = (np.zeros(rows, dtype=np.int64) for _ in range(3))

    def add(self, total: int) -> None:
        """More samples of the result. Raises TooManySamples."""
        self._ledger.add(self, total)

    def add_steps(self, weights: I64Array, present: I64Array) -> None:
        """More samples of the result, by step. Raises TooManySamples."""
        if self.by_step:
            with self._ledger.lock:
                self.weights += weights
                self.present += present
        self._ledger.add(self, int(weights.sum()))

    def gathered(self) -> I64Array:
        """i64[K]: samples in the vector of each step."""
        node = self
        # In a subquery without steps nothing is planned below.
        while node.kind == SAME and node.children:
            node = node.children[0]
        if node.kind == REPEAT and node.children:
            return np.full(node.steps, node.children[0].present.sum())
        return node.present

    def size(self) -> int:
        """Samples of the whole result."""
        node, times = self, 1
        while node.kind in (SAME, SUBQUERY, REPEAT) and node.children:
            if node.kind == REPEAT:
                times *= node.steps
            node = node.children[0]
        if node.kind == RANGE:
            return int(node.last.sum()) * times
        if node.kind == WINDOW:
            return int(node.rows.sum()) * times
        return node.total * times

    def peak_and_rest(self, base: int) -> tuple[int, int]:
        """The most held while this node is evaluated upon `base`, and what is held afterwards. Trees may be
        deep, so there is no recursion."""
        running = [_Running(self, base)]
        while True:
            top = running[-1]
            child = next(top.arguments, None)
            if child is not None:
                running.append(_Running(child, top.held))
                continue
            peak, held = top.node._end(top)
            running.pop()
            if not running:
                return peak, held
            above = running[-1]
            above.peak = max(above.peak, peak)
            above.subquery += held - above.held if top.node.kind == SUBQUERY else 0
            above.held = held

    def _end(self, run: _Running) -> tuple[int, int]:
        """(peak, rest) once the arguments are evaluated."""
        peak, held = run.peak, run.held
        if self.kind in (SAME, SUBQUERY):
            return peak, held
        size = self.size()
        if self.kind in (EVAL, TIMESTAMP):
            if self.kind == TIMESTAMP:
                held, gathered = run.base, self.present
            else:
                gathered = sum((child.gathered() for child in self.children), np.zeros_like(self.present))
            at_step = np.cumsum(self.weights) + gathered
            peak = max(peak, held + int(at_step.max(initial=0)))
        elif self.kind == WINDOW:
            done = np.cumsum(self.rows)
            peak = max(
                peak,
                held + int((done + self.last).max(initial=0)),
                held + int((done - self.rows + self.most).max(initial=0)),
            )
            # What the scalar arguments took is not given back before the node above ends.
            return max(peak, held + size), held + size - run.subquery
        rest = run.base + size
        return max(peak, rest), rest


class _Running:
    """A node whose arguments are being evaluated: what has been held at most, and is held now, of which so
    much by subqueries."""

    def __init__(self, node: HeldNode, base: int) -> None:
        self.node = node
        self.base = self.peak = self.held = base
        self.subquery = 0
        order = sorted(node.children, key=lambda child: (child.kind != SUBQUERY, child.start))
        self.arguments = iter(order)


class HeldSamples:
    """The nodes of one query. Any thread of it may add."""

    def __init__(self, samples_max: int) -> None:
        self.lock = threading.Lock()
        self.root: HeldNode | None = None
        self._samples_max = samples_max
        self._sum = 0
        self._peak = 0
        """The last that was worked out, when `_sum` was `_sum_then`."""
        self._sum_then = 0
        self._windows_since: dict[int, int] = {}
        """Samples of the windows that have changed since then, by id of the node."""
        self._nodes = 0
        self._adds = 0
        """Since then."""

    def open(self, expr: Expr, kind: int, steps: int, parent: HeldNode | None) -> HeldNode:
        """A node for an expression below `parent`, the root without one."""
        node = HeldNode(self, kind, expr.pos.start, steps, parent)
        self._nodes += 1
        node.by_window = isinstance(expr, Call) and expr.function == "absent_over_time"
        # The number of topk or quantile is read, not evaluated.
        if isinstance(expr, NumberLiteral) and (parent is None or parent.kind != AGGREGATE):
            node.weights[:] = node.present[:] = 1
            node.total = steps
            self._sum += steps
        if parent is None and self.root is None:
            self.root = node
        return node

    def add(self, node: HeldNode, count: int) -> None:
        """Count samples of a node. Raises TooManySamples."""
        with self.lock:
            node.total += count
            self._sum += count
            if node.kind == WINDOW:
                self._windows_since[id(node)] = int(node.most.max(initial=0)) + int(node.rows.sum())
            self._adds += 1
            # What is held has grown by at most twice what the results have, with the gathered vectors of a
            # step. A tree of many nodes must not be looked through at each of them; at the end it is.
            grown = 2 * (self._sum - self._sum_then) + sum(self._windows_since.values())
            due = 16 * self._adds >= self._nodes or grown > GROWTH_UNSEEN_MAX
            suspicious = due and self._peak + grown > self._samples_max
        if suspicious:
            self.check()

    def peak(self) -> int:
        """The most that was held so far."""
        if self.root is None:
            return 0
        with self.lock:
            self._sum_then = self._sum
            self._windows_since.clear()
            self._adds = 0
        self._peak = self.root.peak_and_rest(0)[0]
        return self._peak

    def check(self) -> None:
        """Raise TooManySamples where more than the limit is held at a time."""
        if self.peak() > self._samples_max:
            raise TooManySamples
