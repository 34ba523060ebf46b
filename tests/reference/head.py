"""Slow, obvious twin of the head: a dict of samples per series and Prometheus's rules in plain Python."""

from __future__ import annotations

from dataclasses import dataclass, field

from tsdb.columns import Rejected

HOUR_MS = 3600_000
FUTURE_MS = 600_000


@dataclass
class ReferenceSeries:
    last: tuple[int, int] | None = None
    samples: dict[int, int] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)


class ReferenceHead:
    """Samples are (series key, t_ms, value bits)."""

    def __init__(self, late_window_ms: int) -> None:
        self.window = late_window_ms
        self.series: dict[int, ReferenceSeries] = {}
        self.max_time: int | None = None
        self.min_valid: int | None = None

    def append(self, rows: list[tuple[int, int, int]], now_ms: int, atomic: bool) -> list[int]:
        """Codes of `tsdb.columns.Rejected`; stores what is accepted, or nothing if atomic and one is not."""
        newest = self.max_time if self.max_time is not None else min(rows[0][1], now_ms)
        min_valid = newest - HOUR_MS
        if self.min_valid is not None:
            min_valid = max(min_valid, self.min_valid)
        lasts = {key: self.series[key].last for key in {row[0] for row in rows}}
        codes, kinds = [], []
        for key, t, bits in rows:
            code, late = self._judge(lasts[key], t, bits, newest, min_valid, now_ms)
            codes.append(int(code))
            kinds.append(late)
            if code is Rejected.NO and not late and (lasts[key] is None or lasts[key][0] != t):
                lasts[key] = (t, bits)
        if atomic and any(codes):
            return codes
        for (key, t, bits), code, late in zip(rows, codes, kinds, strict=True):
            if code:
                continue
            series = self.series[key]
            if late:
                series.late.setdefault(t, bits)
            else:
                series.samples[t] = bits
                series.last = lasts[key]
            newest = t if self.max_time is None else max(self.max_time, t)
            # The first time there is stands for no sample at all, there as here.
            self.max_time = newest if newest > -(2**63) else None
        return codes

    def _judge(
        self, last: tuple[int, int] | None, t: int, bits: int, newest: int, min_valid: int, now_ms: int
    ) -> tuple[Rejected, bool]:
        if t > now_ms + FUTURE_MS:
            return Rejected.OUT_OF_BOUNDS, False
        if t >= min_valid:
            if last is None or t > last[0]:
                return Rejected.NO, False
            if t == last[0]:
                return (Rejected.NO if bits == last[1] else Rejected.DUPLICATE), False
        if self.window:
            return (Rejected.NO, True) if t >= newest - self.window else (Rejected.TOO_OLD, False)
        return (Rejected.OUT_OF_BOUNDS if t < min_valid else Rejected.OUT_OF_ORDER), False

    def read(self, key: int, mint: int, maxt: int) -> list[tuple[int, int]]:
        """Samples of a series, in-order ones before late ones of the same time."""
        series = self.series[key]
        merged = {**series.late, **series.samples}
        return sorted((t, bits) for t, bits in merged.items() if mint <= t <= maxt)

    def truncate(self, oldest: int) -> None:
        """Drop older samples."""
        self.min_valid = oldest if self.min_valid is None else max(self.min_valid, oldest)
        for series in self.series.values():
            series.samples = {t: v for t, v in series.samples.items() if t >= oldest}
            series.late = {t: v for t, v in series.late.items() if t >= oldest}


def chunk_lengths(slot: int, times: list[int], range_ms: int) -> list[int]:
    """Samples of each chunk of a series that has the head's slot, in order; the last is open or a tail."""
    first = 10 + slot * 0x9E3779B1 % 2**32 * 111 // 2**32
    lengths, limit, begun = [0], first, times[0]
    for t in times:
        leaves = t // range_ms != begun // range_ms
        if lengths[-1] == limit or leaves or t - begun >= 2**32:
            limit = first if leaves else 120
            lengths.append(0)
        begun = begun if lengths[-1] else t
        lengths[-1] += 1
    return lengths
