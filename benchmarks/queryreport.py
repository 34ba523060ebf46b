"""The table of the query benchmark: each class against the bars of its size.

Bars: more than HEAVY_SAMPLES read: at most a fifth of Prometheus's time and half of VictoriaMetrics's. Else,
where the better peer needs more than SMALL_MS: at most its time. Else at most SMALL_BAR_MS. Memory (the rise
of resident memory while a class is asked for the first time, `benchmarks.querymemory`): at most half of
Prometheus's, where one of them rises by more than MEMORY_MIN_BYTES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.queries import QueryResult
from benchmarks.report import OURS, machine

HEAVY_SAMPLES = 5_000_000
SMALL_MS = 5.0
SMALL_BAR_MS = 2.0
MEMORY_MIN_BYTES = 8 << 20

_PROMETHEUS, _VICTORIA = "prometheus", "victoria-metrics"
_NONE = float("nan")


@dataclass(frozen=True, slots=True)
class Measured:
    """One class on one server: latency, and bytes by which resident memory rose at a first run."""

    latency: QueryResult
    rise_bytes: int


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run: by server, then by class. `samples` is what Vedette read for each class."""

    series_count: int
    sample_count: int
    samples: Mapping[str, int]
    servers: Mapping[str, Mapping[str, Measured]]
    cancel_ms: float = _NONE
    """From the going away of a client to the end of its query, on Vedette."""

    def ms(self, server: str, name: str) -> float:
        """Median latency in ms; NaN where there is none."""
        found = self.servers.get(server, {}).get(name)
        return found.latency.seconds * 1e3 if found is not None else _NONE

    def rise(self, server: str, name: str) -> float:
        """Rise of memory in bytes; NaN where there is none."""
        found = self.servers.get(server, {}).get(name)
        return float(found.rise_bytes) if found is not None and found.latency.rows else _NONE


def bar_ms(samples: int, prometheus_ms: float, victoria_ms: float) -> float:
    """The most that Vedette may take; NaN for a peer that did not answer."""
    peers = [ms for ms in (prometheus_ms, victoria_ms) if ms == ms]
    if not peers:
        return _NONE
    if samples > HEAVY_SAMPLES:
        return min(ms / part for ms, part in ((prometheus_ms, 5), (victoria_ms, 2)) if ms == ms)
    return min(peers) if min(peers) > SMALL_MS else SMALL_BAR_MS


def _verdict(value: float, bar: float) -> str:
    if value != value or bar != bar:
        return "-"
    if value <= bar:
        return "met"
    return f"{value / bar:.2f} x" if bar > 0 else "missed"


def _memory_verdict(ours: float, prometheus: float) -> str:
    if ours != ours or prometheus != prometheus or max(ours, prometheus) < MEMORY_MIN_BYTES:
        return "-"
    return _verdict(ours, prometheus / 2)


def _shown(value: float, form: str) -> str:
    return format(value, form) if value == value else "-"


def table(results: Results, date: str) -> str:
    """Markdown: a row a class, and what differs between the answers below it."""
    title = f"{results.sample_count:,} samples of {results.series_count:,} series. {date}, {machine()}."
    head = (
        *("class", "M samples", "bar, ms", "verdict", OURS, _PROMETHEUS, _VICTORIA),
        *("memory verdict", f"MiB {OURS}", f"MiB {_PROMETHEUS}", f"MiB {_VICTORIA}"),
    )
    lines = [title, "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    met, count = 0, 0
    for name in results.servers[OURS]:
        ours, *peers = (results.ms(server, name) for server in (OURS, _PROMETHEUS, _VICTORIA))
        samples = results.samples.get(name, 0)
        bar = bar_ms(samples, *peers)
        verdict = _verdict(ours, bar)
        met, count = met + (verdict == "met"), count + 1
        rises = [results.rise(server, name) for server in (OURS, _PROMETHEUS, _VICTORIA)]
        cells = [name, f"{samples / 1e6:.2f}", _shown(bar, ",.1f"), verdict]
        cells += [_shown(value, ",.1f") for value in (ours, *peers)]
        cells += [_memory_verdict(rises[0], rises[1])]
        cells += [_shown(value / 2**20, ",.0f") for value in rises]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"{met} of {count} latency bars met.", *remarks(results)]
    if results.cancel_ms == results.cancel_ms:
        lines.append(f"* a heavy query ended {results.cancel_ms:.0f} ms after its client had gone away")
    return "\n".join(lines) + "\n"


def remarks(results: Results) -> list[str]:
    """Refused queries, and answers of other sizes."""
    found = []
    for name in results.servers[OURS]:
        answers = {server: kept[name].latency for server, kept in results.servers.items() if name in kept}
        found += [
            f"* {name}: {server} answered {each.error}" for server, each in answers.items() if each.error
        ]
        rows = {server: each.rows for server, each in answers.items() if not each.error}
        if len(set(rows.values())) > 1:
            found.append(f"* {name}: rows differ: {rows}")
    return found
