"""Functions of the slow PromQL interpreter: of one sample, and of a window of samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tests.reference import histogramqueries as queries
from tests.reference.histograms import (
    GAUGE,
    FloatHistogram,
    IncompatibleBuckets,
    add,
    combine,
    detect_reset,
    divide,
    kahan,
)
from tests.reference.promqlvalues import (
    EDGE_WIDTH,
    LAST_DIGIT_COUNTS,
    Cell,
    EvaluationError,
    Sample,
    Unspecified,
    kahan_sum,
    logarithm,
    mean,
    quantile,
    safe,
    variance_over_time,
)


def _sign(x: float) -> float:
    return math.copysign(1.0, x) if x > 0 or x < 0 else x


def _to_whole(function: Callable[[float], int]) -> Callable[[float], float]:
    def apply(x: float) -> float:
        if math.isinf(x) or math.isnan(x):
            return x
        if round(x) and x != round(x) and math.isclose(x, round(x), rel_tol=1e-15):
            raise Unspecified("whole number or the one before its last digit")
        return math.copysign(float(function(x)), x)

    return apply


def _atanh(x: float) -> float:
    return math.copysign(math.inf, x) if abs(x) == 1 else math.atanh(x)


def _sinh(x: float) -> float:
    return safe(math.sinh)(x) if x >= -700 else -safe(math.sinh)(-x)


def _periodic(function: Callable[[float], float]) -> Callable[[float], float]:
    def apply(x: float) -> float:
        if math.isfinite(x):
            found, beside = function(x), function(math.nextafter(x, math.inf))
            if abs(x) > LAST_DIGIT_COUNTS or (abs(x) > 100 and abs(beside - found) > 2e-13 * abs(found)):
                raise Unspecified("remainder or angle of a large number")
        return safe(function)(x)

    return apply


def _bounded(function: Callable[[float], float]) -> Callable[[float], float]:
    def apply(x: float) -> float:
        if abs(abs(x) - 1) < EDGE_WIDTH:
            raise Unspecified("argument at the edge of a function's domain")
        return safe(function)(x)

    return apply


MATH: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": _to_whole(math.ceil),
    "floor": _to_whole(math.floor),
    "exp": safe(math.exp),
    "ln": logarithm(math.log),
    "log2": logarithm(math.log2),
    "log10": logarithm(math.log10),
    "sqrt": safe(math.sqrt),
    "sgn": _sign,
    "deg": lambda x: x * 180 / math.pi,
    "rad": lambda x: x * math.pi / 180,
    "sinh": _sinh,
    "atanh": _bounded(_atanh),
    **{name: _bounded(getattr(math, name)) for name in ("asin", "acos", "acosh")},
    **{name: _periodic(getattr(math, name)) for name in ("sin", "cos", "tan")},
    **{name: safe(getattr(math, name)) for name in ("atan", "cosh", "tanh", "asinh")},
}


YEAR_ONE_S = -6.2135e10
"""Python's datetime begins there."""


def _date(function: Callable[[datetime], int]) -> Callable[[float], float]:
    def apply(x: float) -> float:
        if not YEAR_ONE_S < x < 1e11:
            raise Unspecified("date of a number that is no time")
        return float(function(datetime.fromtimestamp(math.trunc(x), UTC)))

    return apply


def _days_in_month(day: datetime) -> int:
    following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
    return (following - datetime(day.year, day.month, 1, tzinfo=UTC)).days


DATES: dict[str, Callable[[float], float]] = {
    "day_of_month": _date(lambda d: d.day),
    "day_of_week": _date(lambda d: d.isoweekday() % 7),
    "day_of_year": _date(lambda d: d.timetuple().tm_yday),
    "days_in_month": _date(_days_in_month),
    "hour": _date(lambda d: d.hour),
    "minute": _date(lambda d: d.minute),
    "month": _date(lambda d: d.month),
    "year": _date(lambda d: d.year),
}

HISTOGRAM_NUMBERS: dict[str, Callable[[FloatHistogram], float]] = {
    "histogram_count": lambda h: h.count,
    "histogram_sum": lambda h: h.sum,
    "histogram_avg": lambda h: divide(h.sum, h.count),
    "histogram_stddev": lambda h: safe(math.sqrt)(queries.variance(h)),
    "histogram_stdvar": queries.variance,
}


def _floats(window: Sequence[Sample]) -> list[float]:
    return [s.value for s in window if isinstance(s.value, float)]


def _histograms(window: Sequence[Sample]) -> list[FloatHistogram]:
    return [s.value for s in window if isinstance(s.value, FloatHistogram)]


def extreme(values: Sequence[float], sign: int) -> float:
    """Largest (sign 1) or smallest; NaN only if all are."""
    best = values[0]
    for value in values:
        if math.isnan(best) or sign * value > sign * best:
            best = value
    return best


def _regression(window: Sequence[Sample], origin_ms: int) -> tuple[float, float]:
    """(slope, value at the origin) of a least squares line."""
    floats = _floats(window)
    times = [s.t_ms for s in window if isinstance(s.value, float)]
    if all(value == floats[0] for value in floats):
        return (math.nan, math.nan) if math.isinf(floats[0]) else (0.0, floats[0])
    sums = [(0.0, 0.0)] * 4
    for t, y in zip(times, floats, strict=True):
        x = (t - origin_ms) / 1e3
        sums = [kahan(term, *held) for term, held in zip((x, y, x * y, x * x), sums, strict=True)]
    n = float(len(floats))
    sx, sy, sxy, sxx = (total + comp for total, comp in sums)
    slope = divide(sxy - sx * sy / n, sxx - sx * sx / n)
    return slope, sy / n - slope * sx / n


def _rate(name: str, window: Sequence[Sample], lo_ms: int, hi_ms: int) -> Cell:
    floats, histograms = _floats(window), _histograms(window)
    if len(window) < 2 or (floats and histograms):
        return None
    counter = name != "delta"
    result: float | FloatHistogram
    if floats:
        result = floats[-1] - floats[0]
        first = floats[0]
        if counter:
            for before, now in itertools.pairwise(floats):
                if now < before:
                    result += before
        total = result
    else:
        increase = _histogram_increase(histograms, counter)
        if increase is None:
            return None
        result, first, total = increase, histograms[0].count, increase.count
    first_ms, last_ms = window[0].t_ms, window[-1].t_ms
    to_start, to_end = (first_ms - lo_ms) / 1000, (hi_ms - last_ms) / 1000
    sampled = (last_ms - first_ms) / 1000
    average = sampled / (len(window) - 1)
    if to_start >= average * 1.1:
        to_start = average / 2
    if counter and total > 0 and first >= 0:
        to_start = min(to_start, sampled * (first / total))
    if to_end >= average * 1.1:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    if name == "rate":
        factor /= (hi_ms - lo_ms) / 1000
    return result * factor if isinstance(result, float) else result.scale(factor)


def _histogram_increase(samples: Sequence[FloatHistogram], counter: bool) -> FloatHistogram | None:
    first, last = samples[0], samples[-1]
    nulled = counter and detect_reset(samples[1], first)
    if nulled:
        first = FloatHistogram(samples[1].schema, custom=samples[1].custom)
    considered = [first, *samples[1:-1], last] if counter else [first, last]
    if len({h.is_custom for h in considered}) > 1:
        return None
    total = last.copy()
    schema = min(h.schema for h in considered)
    if not total.is_custom:
        total.reduce(schema)
    try:
        add(total, first, -1)
        if counter:
            for at in range(2 if nulled else 1, len(samples)):
                if detect_reset(samples[at], samples[at - 1]):
                    add(total, samples[at - 1])
    except IncompatibleBuckets:
        return None
    total.hint = GAUGE
    return total.compact()


def _last_two(name: str, window: Sequence[Sample]) -> Cell:
    if len(window) < 2:
        return None
    (a, b) = window[-2:]
    seconds = (b.t_ms - a.t_ms) / 1000
    if isinstance(a.value, float) and isinstance(b.value, float):
        if name == "idelta":
            return b.value - a.value
        return (b.value if b.value < a.value else b.value - a.value) / seconds
    if isinstance(a.value, FloatHistogram) and isinstance(b.value, FloatHistogram):
        result = b.value.copy()
        if name == "idelta" or not detect_reset(b.value, a.value):
            try:
                add(result, a.value, -1)
            except IncompatibleBuckets:
                return None
        result.hint = GAUGE
        result.compact()
        return result if name == "idelta" else result.scale(seconds, True)
    return None


def _transitions(window: Sequence[Sample], resets: bool) -> float:
    count = 0
    for before, now in itertools.pairwise(window):
        a, b = before.value, now.value
        if isinstance(a, float) and isinstance(b, float):
            if resets:
                count += b < a
            else:
                count += a != b and not (math.isnan(a) and math.isnan(b))
        elif isinstance(a, FloatHistogram) and isinstance(b, FloatHistogram):
            count += detect_reset(b, a) if resets else not b.equals(a)
        else:
            count += 1
    return float(count)


def _sum_or_mean(window: Sequence[Sample], average: bool) -> Cell:
    floats, histograms = _floats(window), _histograms(window)
    if floats and histograms:
        return None
    if floats:
        return mean(floats) if average else kahan_sum(floats)
    return combine(histograms, average).histogram


def _smooth(values: Sequence[float], sf: float, tf: float) -> Cell:
    if not 0 < sf < 1 or not 0 < tf < 1:
        raise EvaluationError("invalid factor")
    if len(values) < 2:
        return None
    level, trend, before = values[0], values[1] - values[0], 0.0
    for i, value in enumerate(values[1:]):
        if i > 0:
            trend = tf * (level - before) + (1 - tf) * trend
        before, level = level, sf * value + (1 - sf) * (level + trend)
    return level


def _time_of(window: Sequence[Sample], sign: int) -> Cell:
    floats = [(s.t_ms, s.value) for s in window if isinstance(s.value, float)]
    if not floats:
        return None
    best_ms, best = floats[0]
    nearest = extreme([value for _, value in floats], sign)
    if any(value != nearest and math.isclose(value, nearest, rel_tol=1e-12) for _, value in floats):
        raise Unspecified("the greatest of values that differ in the last digit")
    for t, value in floats:
        if math.isnan(best) or sign * value >= sign * best:
            best_ms, best = t, value
    return best_ms / 1000


def over_window(
    name: str, window: Sequence[Sample], lo_ms: int, hi_ms: int, eval_ms: int, args: Sequence[float]
) -> Cell:
    """A range function at one step: `window` holds the samples of (lo, hi], at least one."""
    floats = _floats(window)
    if name in ("rate", "increase", "delta"):
        return _rate(name, window, lo_ms, hi_ms)
    if name in ("irate", "idelta"):
        return _last_two(name, window)
    if name in ("changes", "resets"):
        return _transitions(window, name == "resets")
    if name in ("sum_over_time", "avg_over_time"):
        return _sum_or_mean(window, name == "avg_over_time")
    if name == "count_over_time":
        return float(len(window))
    if name in ("present_over_time", "absent_over_time"):
        return 1.0
    if name in ("last_over_time", "first_over_time"):
        value = window[-1 if name == "last_over_time" else 0].value
        assert isinstance(value, float | FloatHistogram)
        return value
    if name in ("ts_of_last_over_time", "ts_of_first_over_time"):
        return window[-1 if name == "ts_of_last_over_time" else 0].t_ms / 1000
    if not floats:
        return None
    if name in ("min_over_time", "max_over_time"):
        return extreme(floats, 1 if name == "max_over_time" else -1)
    if name in ("ts_of_min_over_time", "ts_of_max_over_time"):
        return _time_of(window, 1 if name == "ts_of_max_over_time" else -1)
    if name == "stdvar_over_time":
        return variance_over_time(floats)
    if name == "stddev_over_time":
        return safe(math.sqrt)(variance_over_time(floats))
    if name == "quantile_over_time":
        return quantile(args[0], floats)
    if name == "mad_over_time":
        if any(math.isnan(value) for value in floats):
            return math.nan
        middle = quantile(0.5, floats)
        return quantile(0.5, [abs(value - middle) for value in floats])
    if name == "double_exponential_smoothing":
        return _smooth(floats, args[0], args[1])
    if len(floats) < 2:
        return None
    if name == "deriv":
        first_ms = next(s.t_ms for s in window if isinstance(s.value, float))
        return _regression(window, first_ms)[0]
    assert name == "predict_linear", name
    slope, value = _regression(window, eval_ms)
    return slope * args[0] + value
