"""Slow, obvious native histograms: one object each, buckets in dicts. Twin of promql/kernels/histogram*.py.

Semantics: prometheus-surface.md section 4. Floats are added in Prometheus's order, so results agree to the
bit where the kernels claim it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

CUSTOM = -53
UNKNOWN, RESET, NOT_RESET, GAUGE = range(4)


class IncompatibleBuckets(Exception):
    """Exponential buckets met custom ones."""


def kahan(x: float, total: float, comp: float) -> tuple[float, float]:
    """One step of a compensated sum."""
    new = total + x
    if math.isinf(new):
        return new, 0.0
    if abs(total) >= abs(x):
        return new, comp + ((total - new) + x)
    return new, comp + ((x - new) + total)


def divide(left: float, right: float) -> float:
    """IEEE division."""
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left) or math.isnan(right):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _fraction(position: int, schema: int) -> float:
    """Mantissa of the bound number `position` of 2^schema in one doubling."""
    if schema == 0:
        return 0.5
    left = _fraction(position // 2, schema - 1)
    if position % 2 == 0:
        return left
    return left * (1.414213562373095 if schema == 1 else 2.0 ** (2.0**-schema))


def exponential_bound(index: int, schema: int) -> float:
    """Upper bound of a positive bucket."""
    if schema < 0:
        exponent = index * 2**-schema
        return 1.7976931348623157e308 if exponent == 1024 else _ldexp(1.0, exponent)
    part = _fraction(index % 2**schema, schema)
    exponent = index // 2**schema + 1
    return 1.7976931348623157e308 if (part, exponent) == (0.5, 1025) else _ldexp(part, exponent)


def _ldexp(mantissa: float, exponent: int) -> float:
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.inf


@dataclass
class Bucket:
    """Observations between two bounds."""

    lower: float
    upper: float
    count: float


@dataclass
class FloatHistogram:
    """`positive` and `negative` map bucket index to count; entries may be zero, as written."""

    schema: int = 0
    hint: int = UNKNOWN
    zero_threshold: float = 0.0
    zero_count: float = 0.0
    count: float = 0.0
    sum: float = 0.0
    positive: dict[int, float] = field(default_factory=dict)
    negative: dict[int, float] = field(default_factory=dict)
    custom: tuple[float, ...] = ()

    @property
    def is_custom(self) -> bool:
        return self.schema == CUSTOM

    def copy(self) -> FloatHistogram:
        return dataclasses.replace(self, positive=dict(self.positive), negative=dict(self.negative))

    def bound(self, index: int) -> float:
        """Upper bound of a positive bucket."""
        if not self.is_custom:
            return exponential_bound(index, self.schema)
        if index < 0:
            return -math.inf
        return self.custom[index] if index < len(self.custom) else math.inf

    def positive_buckets(self) -> Iterator[Bucket]:
        """Upwards from zero."""
        for index in sorted(self.positive):
            yield Bucket(self.bound(index - 1), self.bound(index), self.positive[index])

    def negative_buckets(self) -> Iterator[Bucket]:
        """Downwards from zero."""
        for index in sorted(self.negative):
            yield Bucket(-self.bound(index), -self.bound(index - 1), self.negative[index])

    def buckets(self) -> list[Bucket]:
        """All, in ascending order; the zero bucket where it has observations."""
        width = self.zero_threshold
        out = list(self.negative_buckets())[::-1]
        for b in out:
            if -width < b.upper < 0:
                b.upper = -width
        if self.zero_count > 0:
            out.append(Bucket(-width, width, self.zero_count))
        for b in self.positive_buckets():
            if 0 < b.lower < width:
                b.lower = width
            out.append(b)
        return out

    def compact(self) -> FloatHistogram:
        """Drop empty buckets."""
        self.positive = {i: c for i, c in self.positive.items() if c != 0}
        self.negative = {i: c for i, c in self.negative.items() if c != 0}
        return self

    def scale(self, factor: float, divide_by: bool = False) -> FloatHistogram:
        """Multiply, or divide, in place."""
        apply = divide if divide_by else (lambda a, b: a * b)
        self.zero_count = apply(self.zero_count, factor)
        self.count = apply(self.count, factor)
        self.sum = apply(self.sum, factor)
        if divide_by and factor == 0:
            self.positive, self.negative = {}, {}
            return self
        self.positive = {i: apply(c, factor) for i, c in self.positive.items()}
        self.negative = {i: apply(c, factor) for i, c in self.negative.items()}
        if factor < 0:
            self.hint = GAUGE
        return self

    def reduce(self, schema: int) -> FloatHistogram:
        """Lower the resolution in place."""
        steps = self.schema - schema
        for side in (self.positive, self.negative):
            merged: dict[int, float] = {}
            for index in sorted(side):
                target = ((index - 1) >> steps) + 1
                merged[target] = merged[target] + side[index] if target in merged else side[index]
            side.clear()
            side.update(merged)
        self.schema = schema
        return self

    def equals(self, other: FloatHistogram) -> bool:
        """Same data, bit for bit; hints do not matter."""

        def bits(h: FloatHistogram) -> tuple[object, ...]:
            sides = [tuple(sorted((i, c.hex()) for i, c in s.items())) for s in (h.positive, h.negative)]
            numbers = (h.count.hex(), h.sum.hex(), h.zero_count.hex())
            return (h.schema, h.zero_threshold, *numbers, *sides, h.custom if h.is_custom else ())

        return bits(self) == bits(other)

    def has_overflow(self) -> bool:
        """Whether any number is infinite."""
        numbers = (self.zero_count, self.count, self.sum, *self.positive.values(), *self.negative.values())
        return any(math.isinf(number) for number in numbers)


def adjust_hint(left: int, right: int) -> int:
    """Hint of a sum."""
    if left == right:
        return left
    return GAUGE if GAUGE in (left, right) else UNKNOWN


def zero_count_for(
    h: FloatHistogram, threshold: float, comp: FloatHistogram | None
) -> tuple[float, float, float]:
    """(count, compensation, threshold) of a zero bucket that reaches at least to `threshold`, widened to the
    border of the populated bucket that it would cut."""
    if threshold == h.zero_threshold:
        return h.zero_count, comp.zero_count if comp else 0.0, threshold
    while True:
        total, c = h.zero_count, comp.zero_count if comp else 0.0
        again = False
        for side in ("positive", "negative"):
            for index in sorted(getattr(h, side)):
                if h.bound(index - 1) >= threshold:
                    break
                count = getattr(h, side)[index]
                total, c = kahan(count, total, c)
                if comp:
                    total, c = kahan(getattr(comp, side)[index], total, c)
                if h.bound(index) > threshold:
                    if count != 0:
                        threshold = h.bound(index)
                        again = side == "negative"
                    break
        if not again:
            return total, c, threshold


def _swallow(h: FloatHistogram, comp: FloatHistogram | None) -> None:
    """Remove buckets inside the zero bucket, and empty ones."""
    for side in ("positive", "negative"):
        values = getattr(h, side)
        extra = getattr(comp, side) if comp else {}
        for index in sorted(values):
            inside = h.bound(index - 1) < h.zero_threshold
            if inside or (values[index] == 0 and extra.get(index, 0.0) == 0):
                del values[index]
                extra.pop(index, None)


def _reconcile_zero(
    h: FloatHistogram, other: FloatHistogram, comp: FloatHistogram | None
) -> tuple[float, float]:
    """Widen `h`'s zero bucket to hold both; returns what the other's zero bucket then counts."""
    count, c, threshold = other.zero_count, 0.0, other.zero_threshold
    while threshold != h.zero_threshold:
        if h.zero_threshold > threshold:
            count, c, threshold = zero_count_for(other, h.zero_threshold, None)
        if threshold > h.zero_threshold:
            h.zero_count, zero_comp, h.zero_threshold = zero_count_for(h, threshold, comp)
            if comp:
                comp.zero_count = zero_comp
            _swallow(h, comp)
    return count, c


def add(h: FloatHistogram, other: FloatHistogram, sign: int = 1) -> tuple[bool, bool]:
    """h += sign * other, in place. Returns (hints collide, bounds reconciled)."""
    if h.is_custom != other.is_custom:
        raise IncompatibleBuckets
    collision = {h.hint, other.hint} == {RESET, NOT_RESET}
    h.hint = adjust_hint(h.hint, other.hint)
    other = other.copy()
    if not h.is_custom:
        count, _ = _reconcile_zero(h, other, None)
        h.zero_count += sign * count
    h.count += sign * other.count
    h.sum += sign * other.sum
    if h.is_custom:
        if h.custom == other.custom:
            _add_side(h.positive, other.positive, sign)
            return collision, False
        bounds = tuple(b for b in h.custom if b in other.custom)
        merged: dict[int, float] = {}
        for source, direction in ((h, 1), (other, sign)):
            for index in sorted(source.positive):
                target = _target(source.bound(index), bounds)
                merged[target] = merged.get(target, 0.0) + direction * source.positive[index]
        h.positive = {i: c for i, c in sorted(merged.items()) if c != 0}
        h.custom = bounds
        return collision, True
    schema = min(h.schema, other.schema)
    h.reduce(schema)
    other.reduce(schema)
    for mine, theirs in ((h.positive, other.positive), (h.negative, other.negative)):
        _add_side(mine, {i: c for i, c in theirs.items() if h.bound(i) > h.zero_threshold}, sign)
    return collision, False


def _add_side(mine: dict[int, float], theirs: dict[int, float], sign: int) -> None:
    for index, count in theirs.items():
        mine[index] = mine[index] + sign * count if index in mine else sign * count


def _target(upper: float, bounds: Sequence[float]) -> int:
    return next((i for i, bound in enumerate(bounds) if bound >= upper), len(bounds))


def _reduce_compensated(h: FloatHistogram, comp: FloatHistogram, schema: int) -> None:
    steps = h.schema - schema
    for values, extras in ((h.positive, comp.positive), (h.negative, comp.negative)):
        merged: dict[int, tuple[float, float]] = {}
        for index in sorted(values):
            target = ((index - 1) >> steps) + 1
            if target not in merged:
                merged[target] = values[index], extras[index]
            else:
                merged[target] = kahan(extras[index], *kahan(values[index], *merged[target]))
        for side, at in ((values, 0), (extras, 1)):
            side.clear()
            side.update({i: pair[at] for i, pair in merged.items()})
    h.schema = comp.schema = schema


def kahan_add(h: FloatHistogram, other: FloatHistogram, comp: FloatHistogram) -> tuple[bool, bool]:
    """h += other with compensation terms in `comp`, which has h's buckets. Returns as `add`."""
    if h.is_custom != other.is_custom:
        raise IncompatibleBuckets
    collision = {h.hint, other.hint} == {RESET, NOT_RESET}
    h.hint = adjust_hint(h.hint, other.hint)
    other = other.copy()
    if not h.is_custom:
        count, c = _reconcile_zero(h, other, comp)
        h.zero_count, comp.zero_count = kahan(count, h.zero_count, comp.zero_count)
        h.zero_count, comp.zero_count = kahan(c, h.zero_count, comp.zero_count)
    h.count, comp.count = kahan(other.count, h.count, comp.count)
    h.sum, comp.sum = kahan(other.sum, h.sum, comp.sum)
    extra = FloatHistogram(other.schema)
    extra.positive, extra.negative = dict.fromkeys(other.positive, 0.0), dict.fromkeys(other.negative, 0.0)
    if h.is_custom and h.custom != other.custom:
        bounds = tuple(b for b in h.custom if b in other.custom)
        merged: dict[int, tuple[float, float]] = {}
        for source, extras in ((h, comp), (other, None)):
            for index in sorted(source.positive):
                target = _target(source.bound(index), bounds)
                pair = kahan(source.positive[index], *merged.get(target, (0.0, 0.0)))
                merged[target] = kahan(extras.positive[index], *pair) if extras else pair
        kept = {i: pair for i, pair in sorted(merged.items()) if pair != (0.0, 0.0)}
        h.positive = {i: pair[0] for i, pair in kept.items()}
        comp.positive = {i: pair[1] for i, pair in kept.items()}
        h.custom = comp.custom = bounds
        return collision, True
    if not h.is_custom:
        schema = min(h.schema, other.schema)
        if schema < h.schema:
            _reduce_compensated(h, comp, schema)
        if schema < other.schema:
            _reduce_compensated(other, extra, schema)
    for side in ("positive", "negative"):
        mine, mine_extra = getattr(h, side), getattr(comp, side)
        for index, value in getattr(other, side).items():
            value_extra = getattr(extra, side)[index]
            if not h.is_custom and h.bound(index) <= h.zero_threshold:
                continue
            if index not in mine:
                mine[index], mine_extra[index] = value, value_extra
                continue
            pair = kahan(value, mine[index], mine_extra[index])
            mine[index], mine_extra[index] = kahan(value_extra, *pair) if value_extra != 0 else pair
    return collision, False


def compensation(h: FloatHistogram) -> FloatHistogram:
    """Zeros in the layout of `h`."""
    return FloatHistogram(
        h.schema,
        h.hint,
        h.zero_threshold,
        positive=dict.fromkeys(h.positive, 0.0),
        negative=dict.fromkeys(h.negative, 0.0),
        custom=h.custom,
    )


@dataclass
class Combined:
    """Result of a sum or average and what was noticed on the way."""

    histogram: FloatHistogram | None
    incompatible: bool = False
    collision: bool = False
    reconciled: bool = False


def combine(samples: Sequence[FloatHistogram], average: bool) -> Combined:
    """sum_over_time and avg_over_time of histograms (also the aggregations, before compaction)."""
    hints = {h.hint for h in samples}
    out = Combined(None, collision={RESET, NOT_RESET} <= hints)
    total = samples[0].copy()
    comp = compensation(total)
    incremental = False
    try:
        for n, sample in enumerate(samples[1:], start=2):
            if not incremental:
                before = total.copy(), comp.copy()
                out.reconciled |= kahan_add(total, sample, comp)[1]
                if not average or not total.has_overflow():
                    continue
                total, comp = before
                incremental = True
                total.scale(n - 1.0, True)
                comp.scale(n - 1.0, True)
            share = (n - 1.0) / n
            comp.scale(share)
            total.scale(share)
            out.reconciled |= kahan_add(total, sample.copy().scale(float(n), True), comp)[1]
    except IncompatibleBuckets:
        out.incompatible = True
        return out
    if average and not incremental:
        total.scale(float(len(samples)), True)
        comp.scale(float(len(samples)), True)
    total.zero_count += comp.zero_count
    total.count += comp.count
    total.sum += comp.sum
    _add_side(total.positive, comp.positive, 1)
    _add_side(total.negative, comp.negative, 1)
    out.histogram = total
    return out


def detect_reset(h: FloatHistogram, previous: FloatHistogram) -> bool:
    """Whether a counter histogram was reset between `previous` and `h`."""
    if h.hint in (RESET, NOT_RESET):
        return h.hint == RESET
    if h.count < previous.count:
        return True
    if h.is_custom:
        if not previous.is_custom:
            return True
        if h.custom != previous.custom:
            bounds = tuple(b for b in h.custom if b in previous.custom)
            rolled: list[list[float]] = []
            for source in (h, previous):
                counts = [0.0] * (len(bounds) + 1)
                for index in sorted(source.positive):
                    counts[_target(source.bound(index), bounds)] += source.positive[index]
                rolled.append(counts)
            return any(now < before for now, before in zip(*rolled, strict=True))
    if h.schema > previous.schema or h.zero_threshold < previous.zero_threshold:
        return True
    before, _, threshold = zero_count_for(previous, h.zero_threshold, None)
    if threshold != h.zero_threshold or h.zero_count < before:
        return True
    old = previous.copy()
    if not h.is_custom:
        old.reduce(h.schema)
    for mine, theirs in ((h.positive, old.positive), (h.negative, old.negative)):
        for index, count in theirs.items():
            outside = h.is_custom or h.bound(index) > h.zero_threshold
            if outside and (mine[index] < count if index in mine else count != 0):
                return True
    return False
