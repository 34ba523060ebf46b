"""Slow, obvious twins of the window kernels: one window, one series, plain Python floats.

Written from prometheus-surface.md 2.6 to 2.9; order of operations as Prometheus has it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

Sample = tuple[int, float]
Window = Sequence[Sample]


def kahan(x: float, total: float, comp: float) -> tuple[float, float]:
    """One step of Neumaier's sum."""
    new = total + x
    if math.isinf(new):
        comp = 0.0
    elif abs(total) >= abs(x):
        comp += (total - new) + x
    else:
        comp += (x - new) + total
    return new, comp


def divide(x: float, y: float) -> float:
    """IEEE division, which Python refuses for zero."""
    if y != 0:
        return x / y
    if x == 0 or math.isnan(x):
        return math.nan
    return math.copysign(math.inf, x) * math.copysign(1.0, y)


def samples_in(samples: Window, end_ms: int, range_ms: int) -> list[Sample]:
    """The samples of (end - range, end]."""
    return [s for s in samples if end_ms - range_ms < s[0] <= end_ms]


def extrapolated(window: Window, end_ms: int, range_ms: int, counter: bool, rate: bool) -> float | None:
    """rate, increase, delta."""
    if len(window) < 2:
        return None
    values = [v for _, v in window]
    result = values[-1] - values[0]
    if counter:
        for before, after in itertools.pairwise(values):
            if after < before:
                result += before
    to_start = (window[0][0] - (end_ms - range_ms)) / 1000.0
    to_end = (end_ms - window[-1][0]) / 1000.0
    sampled = (window[-1][0] - window[0][0]) / 1000.0
    average = sampled / (len(window) - 1)
    if to_start >= average * 1.1:
        to_start = average / 2
    if counter and result > 0 and values[0] >= 0:
        to_start = min(to_start, sampled * (values[0] / result))
    if to_end >= average * 1.1:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    if rate:
        factor /= range_ms / 1000.0
    return result * factor


def last_two(window: Window, rate: bool) -> float | None:
    """irate, idelta."""
    if len(window) < 2:
        return None
    (t0, v0), (t1, v1) = window[-2:]
    result = v1 if rate and v1 < v0 else v1 - v0
    return result / ((t1 - t0) / 1000.0) if rate else result


def changes(window: Window) -> float | None:
    """changes: NaN to NaN is none."""
    if not window:
        return None
    pairs = itertools.pairwise(window)
    return float(sum(b != a and not (math.isnan(a) and math.isnan(b)) for (_, a), (_, b) in pairs))


def resets(window: Window) -> float | None:
    """resets: decreases."""
    if not window:
        return None
    return float(sum(b < a for (_, a), (_, b) in itertools.pairwise(window)))


def total(window: Window) -> float | None:
    """sum_over_time."""
    if not window:
        return None
    value, comp = 0.0, 0.0
    for _, v in window:
        value, comp = kahan(v, value, comp)
    return value if math.isinf(value) else value + comp


def mean(window: Window) -> float | None:
    """avg_over_time, incremental once the sum overflows."""
    if not window:
        return None
    value, comp, average, incremental = window[0][1], 0.0, 0.0, False
    count = 1.0
    for i, (_, v) in enumerate(window[1:]):
        count = float(i + 2)
        if not incremental:
            new, new_comp = kahan(v, value, comp)
            if not math.isinf(new):
                value, comp = new, new_comp
                continue
            incremental = True
            average = value / (count - 1)
            comp /= count - 1
        q = (count - 1) / count
        average, comp = kahan(v / count, q * average, q * comp)
    return average + comp if incremental else value / count + comp / count


def extreme(window: Window, largest: bool) -> float | None:
    """min_over_time, max_over_time."""
    if not window:
        return None
    best = window[0][1]
    for _, v in window:
        if math.isnan(best) or (v > best if largest else v < best):
            best = v
    return best


def extreme_time(window: Window, largest: bool) -> float | None:
    """ts_of_min_over_time, ts_of_max_over_time: the latest of equals."""
    if not window:
        return None
    at, best = window[0]
    for t, v in window:
        if math.isnan(best) or (v >= best if largest else v <= best):
            at, best = t, v
    return at / 1000.0


def variance(window: Window, deviation: bool) -> float | None:
    """stdvar_over_time, stddev_over_time."""
    if not window:
        return None
    count, mu, mu_c, m2, m2_c = 0.0, 0.0, 0.0, 0.0, 0.0
    for _, v in window:
        count += 1
        delta = v - (mu + mu_c)
        mu, mu_c = kahan(delta / count, mu, mu_c)
        m2, m2_c = kahan(delta * (v - (mu + mu_c)), m2, m2_c)
    result = (m2 + m2_c) / count
    if not deviation:
        return result
    return math.sqrt(result) if result >= 0 else math.nan


def quantile_of(q: float, values: Sequence[float]) -> float:
    """The q-quantile with NaN sorted first."""
    if math.isnan(q) or not values:
        return math.nan
    if q < 0 or q > 1:
        return -math.inf if q < 0 else math.inf
    ordered = sorted(values, key=lambda v: (not math.isnan(v), 0.0 if math.isnan(v) else v))
    rank = q * (len(ordered) - 1)
    lower = int(max(0.0, math.floor(rank)))
    upper = int(min(len(ordered) - 1.0, lower + 1.0))
    weight = rank - math.floor(rank)
    return ordered[lower] * (1 - weight) + ordered[upper] * weight


def quantile(window: Window, q: float) -> float | None:
    """quantile_over_time."""
    return quantile_of(q, [v for _, v in window]) if window else None


def median_deviation(window: Window) -> float | None:
    """mad_over_time."""
    if not window:
        return None
    values = [v for _, v in window]
    if any(map(math.isnan, values)):
        return math.nan
    median = quantile_of(0.5, values)
    return quantile_of(0.5, [abs(v - median) for v in values])


def regression(window: Window, origin_ms: int) -> tuple[float, float]:
    """Slope and intercept of the least squares line."""
    first = window[0][1]
    if all(v == first for _, v in window[1:]):
        return (math.nan, math.nan) if math.isinf(first) else (0.0, first)
    sums = [(0.0, 0.0)] * 4
    for t, y in window:
        x = (t - origin_ms) / 1e3
        sums = [kahan(z, *s) for z, s in zip((x, y, x * y, x * x), sums, strict=True)]
    sum_x, sum_y, sum_xy, sum_xx = (s + c for s, c in sums)
    n = float(len(window))
    slope = divide(sum_xy - sum_x * sum_y / n, sum_xx - sum_x * sum_x / n)
    return slope, sum_y / n - slope * sum_x / n


def deriv(window: Window) -> float | None:
    """deriv."""
    return regression(window, window[0][0])[0] if len(window) >= 2 else None


def predict(window: Window, now_ms: int, ahead_s: float) -> float | None:
    """predict_linear."""
    if len(window) < 2:
        return None
    slope, intercept = regression(window, now_ms)
    return slope * ahead_s + intercept


def smooth(window: Window, level: float, trend: float) -> float | None:
    """double_exponential_smoothing."""
    if len(window) < 2:
        return None
    s0, s1 = 0.0, window[0][1]
    slope = window[1][1] - window[0][1]
    for i in range(1, len(window)):
        if i > 1:
            slope = trend * (s1 - s0) + (1 - trend) * slope
        s0, s1 = s1, level * window[i][1] + (1 - level) * (s1 + slope)
    return s1


def latest(samples: Window, at_ms: int, lookback_ms: int) -> float | None:
    """Instant selector without stale markers."""
    found = samples_in(samples, at_ms, lookback_ms)
    return found[-1][1] if found else None


WindowTwin = Callable[[Window], float | None]
OVER_WINDOW: dict[str, WindowTwin] = {
    "irate": lambda w: last_two(w, True),
    "idelta": lambda w: last_two(w, False),
    "changes": changes,
    "resets": resets,
    "sum_over_time": total,
    "avg_over_time": mean,
    "min_over_time": lambda w: extreme(w, False),
    "max_over_time": lambda w: extreme(w, True),
    "ts_of_min_over_time": lambda w: extreme_time(w, False),
    "ts_of_max_over_time": lambda w: extreme_time(w, True),
    "stddev_over_time": lambda w: variance(w, True),
    "stdvar_over_time": lambda w: variance(w, False),
    "mad_over_time": median_deviation,
    "deriv": deriv,
    "count_over_time": lambda w: float(len(w)) if w else None,
    "present_over_time": lambda w: 1.0 if w else None,
    "last_over_time": lambda w: w[-1][1] if w else None,
    "first_over_time": lambda w: w[0][1] if w else None,
    "ts_of_last_over_time": lambda w: w[-1][0] / 1000.0 if w else None,
    "ts_of_first_over_time": lambda w: w[0][0] / 1000.0 if w else None,
}
"""Twins of functions that need nothing but the window's samples."""
