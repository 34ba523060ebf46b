"""The table of a run: ratios first, then the measured values, with the date and the size of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ingest import IngestResult
from benchmarks.queries import QueryResult

OURS = "vedette"


@dataclass(frozen=True, slots=True)
class ServerResult:
    """All measurements of one server."""

    ingest: IngestResult
    queries: Mapping[str, QueryResult]
    ready_s: float


def _samples_per_s(result: ServerResult) -> float:
    return result.ingest.sample_count / result.ingest.seconds


def _cpu_s(result: ServerResult) -> float:
    return result.ingest.cpu_s / (result.ingest.sample_count / 1e6)


def _disk(result: ServerResult) -> float:
    return sum(result.ingest.disk_bytes.values()) / result.ingest.sample_count


def _without_wal(result: ServerResult) -> float:
    sizes = result.ingest.disk_bytes
    return sum(size for name, size in sizes.items() if name != "wal") / result.ingest.sample_count


_MEASURES: tuple[tuple[str, Callable[[ServerResult], float], str], ...] = (
    ("accepted samples/s (more is better)", _samples_per_s, ",.0f"),
    ("server CPU s per million samples", _cpu_s, ".2f"),
    ("RSS after load, MiB", lambda r: r.ingest.rss_bytes / 2**20, ",.0f"),
    ("RSS peak, MiB", lambda r: r.ingest.peak_rss_bytes / 2**20, ",.0f"),
    ("bytes on disk per sample, all", _disk, ".2f"),
    ("bytes on disk per sample, without WAL", _without_wal, ".2f"),
    ("bytes written per sample", lambda r: r.ingest.written_bytes / r.ingest.sample_count, ".2f"),
    ("start on an empty store, s", lambda r: r.ready_s, ".2f"),
)


def machine() -> str:
    """Processors, model, memory, kernel."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} vCPUs of {model}, {memory:.0f} GiB, Linux {platform.release()}"


def _ratio(ours: float, theirs: float) -> str:
    return f"{ours / theirs:.2f}" if theirs and ours == ours and theirs == theirs else "-"


def _row(name: str, values: Sequence[float], form: str, others: Sequence[int], ours: int) -> str:
    ratios = [_ratio(values[ours], values[index]) for index in others]
    shown = [format(value, form) if value == value else "refused" for value in values]
    return "| " + " | ".join((name, *ratios, *shown)) + " |"


def table(results: Mapping[str, ServerResult], title: str, date: str) -> str:
    """Markdown. Ratios are Vedette's value over the other's."""
    names = list(results)
    ours = names.index(OURS)
    others = [index for index in range(len(names)) if index != ours]
    head = ["", *(f"{OURS} / {names[index]}" for index in others), *names]
    lines = [f"{title}. {date}, {machine()}.", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, measure, form in _MEASURES:
        lines.append(_row(name, [measure(results[each]) for each in names], form, others, ours))
    for name in results[names[0]].queries:
        values = [results[each].queries[name].seconds * 1e3 for each in names]
        lines.append(_row(f"{name}, ms", values, ",.1f", others, ours))
    return "\n".join(lines) + "\n"


def remarks(results: Mapping[str, ServerResult]) -> list[str]:
    """Differences that make a comparison doubtful: refused queries, and answers of other sizes."""
    found = []
    for query in next(iter(results.values())).queries:
        rows = {name: result.queries[query].rows for name, result in results.items()}
        for name, result in results.items():
            if result.queries[query].error:
                found.append(f"{query}: {name} answered {result.queries[query].error}")
        if len(set(rows.values())) > 1:
            found.append(f"{query}: rows differ: {rows}")
    for name, result in results.items():
        sizes = {part: f"{size / 2**20:.1f} MiB" for part, size in sorted(result.ingest.disk_bytes.items())}
        found.append(f"data folder of {name}: {sizes}")
    return found
