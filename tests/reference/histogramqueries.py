"""Slow twins of quantile, fraction, variance, trimming and text, for classic and native histograms."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from promql.numberformat import format_g
from tests.reference.histograms import Bucket, FloatHistogram, divide, kahan

RESULT_IS_NAN, SKEWED, EXCLUDED = 1, 2, 4


def _merge_equal(buckets: Sequence[tuple[float, float]]) -> list[list[float]]:
    out: list[list[float]] = []
    for bound, count in sorted(buckets, key=lambda b: b[0]):
        if out and out[-1][0] == bound:
            out[-1][1] += count
        else:
            out.append([bound, count])
    return out


def almost_equal(left: float, right: float, tolerance: float = 1e-12) -> bool:
    """Equal within a relative tolerance."""
    if left == right or (math.isnan(left) and math.isnan(right)):
        return True
    total, difference = abs(left) + abs(right), abs(left - right)
    if left == 0 or right == 0 or total < 2.0**-1022:
        return difference < tolerance * 2.0**-1022
    return difference / min(total, 1.7976931348623157e308) < tolerance


def classic_quantile(q: float, buckets: Sequence[tuple[float, float]]) -> tuple[float, bool]:
    """(quantile, whether counts had to be raised) of cumulative (bound, count) pairs."""
    if math.isnan(q):
        return math.nan, False
    if q < 0 or q > 1:
        return math.copysign(math.inf, q), False
    merged = _merge_equal(buckets)
    if merged[-1][0] != math.inf:
        return math.nan, False
    forced = False
    previous = merged[0][1]
    for pair in merged[1:]:
        if almost_equal(previous, pair[1]):
            pair[1] = previous
        elif pair[1] < previous:
            pair[1] = previous
            forced = True
        else:
            previous = pair[1]
    if len(merged) < 2 or merged[-1][1] == 0:
        return math.nan, forced
    rank = q * merged[-1][1]
    # A binary search, which NaN counts lead astray as they do in Prometheus.
    at = bisect.bisect_left([count >= rank for _, count in merged[:-1]], True)
    if at == len(merged) - 1:
        return merged[-2][0], forced
    if at == 0 and merged[0][0] <= 0:
        return merged[0][0], forced
    start, before = (merged[at - 1][0], merged[at - 1][1]) if at else (0.0, 0.0)
    end, count = merged[at]
    return start + (end - start) * divide(rank - before, count - before), forced


def classic_fraction(lower: float, upper: float, buckets: Sequence[tuple[float, float]]) -> float:
    """The fraction of observations between two values."""
    merged = _merge_equal(buckets)
    total = merged[-1][1]
    if merged[-1][0] != math.inf or total == 0 or math.isnan(lower) or math.isnan(upper):
        return math.nan
    if lower >= upper:
        return 0.0
    single: list[Bucket] = []
    start = -math.inf if merged[0][0] <= 0 else 0.0
    for bound, count in merged:
        single.append(Bucket(start, bound, count))
        start = bound

    def rank(v: float) -> float:
        before = 0.0
        for b in single:
            if b.lower >= v:
                return min(before, total)
            if b.lower < v < b.upper:
                if b.lower == -math.inf:
                    return min(b.count, total)
                return min(before + (b.count - before) * (v - b.lower) / (b.upper - b.lower), total)
            before = b.count
        return total

    return divide(rank(upper) - rank(lower), total)


def _one_signed(h: FloatHistogram, b: Bucket) -> Bucket:
    if h.positive and not h.negative:
        return Bucket(0.0, b.upper, b.count)
    if h.negative and not h.positive:
        return Bucket(b.lower, 0.0, b.count)
    return b


def quantile(q: float, h: FloatHistogram) -> tuple[float, int]:
    """histogram_quantile of a native histogram, and what to annotate."""
    if math.isnan(q):
        return math.nan, 0
    if q < 0 or q > 1:
        return math.copysign(math.inf, q), 0
    if h.count == 0:
        return math.nan, 0
    upwards = math.isnan(h.sum) or q < 0.5
    rank = q * h.count if upwards else (1 - q) * h.count
    buckets = h.buckets() if upwards else h.buckets()[::-1]
    b, seen, rest = Bucket(0.0, 0.0, 0.0), 0.0, iter(buckets)
    for b in rest:
        if b.count:
            seen += b.count
            if seen >= rank:
                break
    if h.is_custom:
        if b.lower == -math.inf:
            if b.upper <= 0:
                return b.upper, 0
            b.lower = 0.0
        elif b.upper == math.inf:
            return b.lower, 0
    elif b.lower < 0 < b.upper:
        b = _one_signed(h, b)
    seen = min(seen, h.count)
    if seen < rank:
        return (math.nan, RESULT_IS_NAN) if math.isnan(h.sum) else (b.upper, 0)
    rank = rank - (seen - b.count) if upwards else seen - rank
    flags = 0
    if math.isnan(h.sum):
        for beyond in rest:
            seen += beyond.count
        flags = SKEWED if seen < h.count else 0
    share = divide(rank, b.count)
    if h.is_custom or b.lower <= 0 <= b.upper:
        return b.lower + (b.upper - b.lower) * share, flags
    low, high = math.log2(abs(b.lower)), math.log2(abs(b.upper))
    if b.lower > 0:
        return 2.0 ** (low + (high - low) * share), flags
    return -(2.0 ** (high + (low - high) * (1 - share))), flags


def fraction(lower: float, upper: float, h: FloatHistogram) -> tuple[float, int]:
    """histogram_fraction of a native histogram, and what to annotate."""
    if h.count == 0 or math.isnan(lower) or math.isnan(upper):
        return math.nan, 0
    if lower >= upper:
        return 0.0, 0

    def rank(v: float) -> float | None:
        before = 0.0
        for b in h.buckets():
            around_zero = b.lower <= 0 <= b.upper
            if around_zero:
                b = _one_signed(h, b)
            if b.lower >= v:
                return before
            if b.lower < v < b.upper:
                if h.is_custom or around_zero:
                    if b.lower == -math.inf:
                        return b.count
                    return before + b.count * (v - b.lower) / (b.upper - b.lower)
                low, high, mid = (math.log2(abs(x)) for x in (b.lower, b.upper, v))
                share = divide(mid - low, high - low) if v > 0 else 1 - divide(mid - high, low - high)
                return before + b.count * share
            before += b.count
        return None

    total, flags = h.count, 0
    if math.isnan(h.sum):
        total = 0.0
        for b in h.buckets():
            total += b.count
        flags = EXCLUDED if total < h.count else 0
    ranks = [min(total, r) if (r := rank(v)) is not None else total for v in (lower, upper)]
    return divide(ranks[1] - ranks[0], h.count), flags


def variance(h: FloatHistogram) -> float:
    """histogram_stdvar."""
    mean = divide(h.sum, h.count)
    total, comp = 0.0, 0.0
    for b in h.buckets():
        if b.count == 0:
            continue
        if h.is_custom:
            middle = (b.upper + b.lower) / 2
        elif b.lower <= 0 <= b.upper:
            middle = 0.0
        else:
            middle = math.copysign(math.sqrt(b.upper * b.lower), b.upper)
        delta = middle - mean
        total, comp = kahan(b.count * delta * delta, total, comp)
    return divide(total + comp, h.count)


def _middle(lower: float, upper: float, positive: bool, linear: bool) -> float:
    if math.isinf(lower):
        if math.isinf(upper):
            return 0.0
        return upper / 2 if upper > 0 else upper
    if math.isinf(upper):
        return lower
    if linear:
        return (lower + upper) / 2
    return math.sqrt(abs(lower * upper)) * (1 if positive else -1)


def _part(b: Bucket, x: float, keep_below: bool, positive: bool, linear: bool) -> tuple[float, float]:
    """(count, middle) of the kept part of the bucket that `x` cuts."""
    if b.lower == -math.inf:
        if keep_below:
            if x > 0 and 0 < b.upper < math.inf:
                return b.count * x / b.upper, x / 2
            if b.upper <= 0:
                return b.count, x
        elif x >= 0 and x < b.upper < math.inf:
            return b.count * (1 - x / b.upper), (x + b.upper) / 2
        return 0.0, 0.0
    if b.upper == math.inf:
        return (0.0, 0.0) if keep_below else (b.count, x)
    if linear:
        share = (x - b.lower) / (b.upper - b.lower)
    else:
        low, high, mid = (math.log2(v) if v else -math.inf for v in (abs(b.lower), abs(b.upper), abs(x)))
        share = (mid - low) / (high - low) if positive else 1 - (mid - high) / (low - high)
    below = b.count * share
    if keep_below:
        return below, _middle(b.lower, x, positive, linear)
    return b.count - below, _middle(x, b.upper, positive, linear)


def trim(h: FloatHistogram, x: float, keep_below: bool) -> FloatHistogram:
    """`h </ x` (keep_below) and `h >/ x`."""
    out = h.copy()
    count, total, trimmed = 0.0, 0.0, False
    for side, positive, buckets in (
        (out.positive, True, list(h.positive_buckets())),
        (out.negative, False, list(h.negative_buckets())),
    ):
        for index, b in zip(sorted(side), buckets, strict=True):
            if b.count == 0:
                continue
            if b.upper <= x if keep_below else b.lower >= x:
                kept, middle = b.count, _middle(b.lower, b.upper, positive, h.is_custom)
            elif b.lower < x if keep_below else b.upper > x:
                kept, middle = _part(b, x, keep_below, positive, h.is_custom)
            else:
                kept, middle = 0.0, 0.0
                trimmed = True
            trimmed |= kept != b.count
            side[index] = kept
            count += kept
            total += middle * kept
    if h.zero_count > 0:
        has_positive = any(c != 0 for c in h.positive.values())
        has_negative = any(c != 0 for c in h.negative.values())
        low = 0.0 if has_positive and not has_negative else -h.zero_threshold
        high = 0.0 if has_negative and not has_positive else h.zero_threshold
        if x <= low:
            kept, middle = (0.0, 0.0) if keep_below else (h.zero_count, (low + high) / 2)
        elif x >= high:
            kept, middle = (h.zero_count, (low + high) / 2) if keep_below else (0.0, 0.0)
        elif keep_below:
            kept, middle = h.zero_count * ((x - low) / (high - low)), (low + x) / 2
        else:
            kept, middle = h.zero_count * ((high - x) / (high - low)), (x + high) / 2
        trimmed |= kept != h.zero_count
        out.zero_count = kept
        total += middle * kept
        count += kept
    if not trimmed:
        return h.copy()
    out.count, out.sum = count, total
    return out.compact()


def text(h: FloatHistogram) -> str:
    """As count_values names it."""
    parts = [f"count:{format_g(h.count)}", f"sum:{format_g(h.sum)}"]
    custom = h.is_custom
    parts.extend(
        f"[{format_g(b.lower)},{format_g(b.upper)}):{format_g(b.count)}"
        for b in list(h.negative_buckets())[::-1]
        if b.count
    )
    if h.zero_count:
        width = format_g(h.zero_threshold)
        parts.append(f"[{format_g(-h.zero_threshold)},{width}]:{format_g(h.zero_count)}")
    first = h.bound(0)
    for b in h.positive_buckets():
        if b.count:
            bracket = "[" if custom and b.upper == first else "("
            parts.append(f"{bracket}{format_g(b.lower)},{format_g(b.upper)}]:{format_g(b.count)}")
    return "{" + ", ".join(parts) + "}"
