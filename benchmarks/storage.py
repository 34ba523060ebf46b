"""`python -m benchmarks.storage [SUBJECT ...] [--form brief|quick|full]`: the figures of the storage engine.

Subjects: `size` and `recording` bytes at rest of generated and of recorded data, `ingest` cost at 10,000 and
100,000 series, `memory` at many active series, `head` memory of the head alone, `replay` after SIGKILL,
`decode` from blocks. The brief form is a part of `make bench`; it takes five minutes and waits for no
background work. The quick form takes eight, the full form more than an hour. Each subject prints a table; the
last table has a row a bar.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import activeseries, blockread, head_memory, ingestcost, replaytime, sizeatrest
from benchmarks.figures import OURS, Figure, bars_table, table
from benchmarks.load.bodies import LoadWriter
from benchmarks.load.nodes import Values, make_series
from benchmarks.load.recording import EXPORTER, read_fleet, record
from benchmarks.report import machine
from benchmarks.servers import KINDS, PROMETHEUS, VEDETTE, Kind, missing_programs

LANES = 5
"""Ten thousand series are five requests a scrape: a request a lane."""
SERIES_PER_HOST = 256
STEP_MS = 15_000
CUT_FROM_MS = 3 * 3600 * 1000
"""A load of more time than that makes servers that keep two hours in memory write blocks."""
SEED = 20_260_101
PORT = 19_340
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Form:
    """How much each subject sends. Hosts have 256 series each."""

    size: tuple[int, int]
    """Hosts and scrapes."""
    scrapes: int
    interval_s: float
    window: int
    """Scrapes a host of the recording."""
    ingest: tuple[tuple[int, int], ...]
    memory: tuple[int, int]
    head_series: int
    replay: tuple[int, int]
    decode_hosts: int
    rest_s: float
    """Servers look once a minute whether to cut a block."""


FORMS = {
    "brief": Form(
        size=(39, 600),
        scrapes=240,
        interval_s=0.1,
        window=120,
        ingest=((39, 200), (390, 20)),
        memory=(390, 40),
        head_series=100_000,
        replay=(78, 300),
        decode_hosts=82,
        rest_s=3.0,
    ),
    "quick": Form(
        size=(39, 840),
        scrapes=480,
        interval_s=0.1,
        window=160,
        ingest=((39, 200), (390, 20)),
        memory=(390, 60),
        head_series=200_000,
        replay=(78, 500),
        decode_hosts=82,
        rest_s=65.0,
    ),
    "full": Form(
        size=(39, 6010),
        scrapes=4800,
        interval_s=0.25,
        window=480,
        ingest=((39, 2000), (390, 200)),
        memory=(3907, 60),
        head_series=1_000_000,
        replay=(782, 500),
        decode_hosts=82,
        rest_s=130.0,
    ),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: where, how much, of which recording, against which servers."""

    folder: Path
    form: Form
    recording: Path | None
    kinds: tuple[Kind, ...]
    port: int
    """Of the first server; others follow."""

    def size(self) -> list[Figure]:
        """Bytes at rest of generated data."""
        hosts, steps = self.form.size
        writer = generated(hosts)
        return sizeatrest.measure(self.kinds, self.folder, writer, steps, self.port, self.form.rest_s)

    def recorded(self) -> list[Figure]:
        """Bytes at rest of a node exporter's own data, and decoding them."""
        path = self.recording
        if path is None:
            path = self.folder / "recording"
            record(path, self.form.scrapes, self.form.interval_s, self.port - 1)
        fleet = read_fleet(path, self.form.window)
        writer = LoadWriter(fleet.series, fleet.source(), step_ms=STEP_MS, lane_count=LANES, seed=SEED)
        rest_s = self.form.rest_s
        found = sizeatrest.measure(self.kinds, self.folder, writer, self.form.window, self.port, rest_s)
        found.append(Figure("series", {OURS: len(fleet.series)}, form=",.0f"))
        return found

    def ingest(self) -> list[Figure]:
        """Cost of ingestion at each number of series."""
        found: list[Figure] = []
        for hosts, steps in self.form.ingest:
            writer = generated(hosts)
            part = self.folder / f"ingest-{hosts}"
            part.mkdir()
            figures = ingestcost.measure(self.kinds, part, writer, steps, self.port, self.form.rest_s)
            subject = f"{writer.series_count:,} series"
            if steps * STEP_MS > CUT_FROM_MS:
                subject += ", with blocks cut"
            found += [replace(each, name=f"{subject}: {each.name}") for each in figures]
            shutil.rmtree(part)
        return found

    def memory(self) -> list[Figure]:
        """Resident size at many active series."""
        hosts, steps = self.form.memory
        writer = generated(hosts)
        return activeseries.measure(self.kinds, self.folder, writer, steps, self.port, self.form.rest_s)

    def head(self) -> list[Figure]:
        """Memory of the head alone."""
        return head_memory.figures(self.form.head_series)

    def replay(self) -> list[Figure]:
        """Start after SIGKILL."""
        hosts, steps = self.form.replay
        kinds = [kind for kind in self.kinds if kind in (VEDETTE, PROMETHEUS)]
        return replaytime.measure(kinds, self.folder, generated(hosts), steps, self.port)

    def decode(self) -> list[Figure]:
        """Reading a block."""
        series = make_series(self.form.decode_hosts)
        return blockread.measure(blockread.write(self.folder, series, Values(series, SEED)))


SUBJECTS: dict[str, tuple[str, Callable[[Run], list[Figure]]]] = {
    "size": ("Bytes at rest, generated data", Run.size),
    "recording": ("Bytes at rest, recorded node exporter", Run.recorded),
    "ingest": ("Ingestion", Run.ingest),
    "memory": ("Memory", Run.memory),
    "head": ("Memory of the head beyond label strings", Run.head),
    "replay": ("Start after SIGKILL", Run.replay),
    "decode": ("Select and decode from a block", Run.decode),
}


def generated(hosts: int) -> LoadWriter:
    """A load of generated hosts."""
    series = make_series(hosts)
    return LoadWriter(series, Values(series, SEED), step_ms=STEP_MS, lane_count=LANES, seed=SEED)


def describe(subject: str, form: Form) -> str:
    """How much the subject sends, for the title."""
    counts = {"size": (form.size,), "ingest": form.ingest, "memory": (form.memory,), "replay": (form.replay,)}
    texts = [f"{hosts} hosts x {steps} scrapes" for hosts, steps in counts.get(subject, ())]
    if subject == "recording":
        texts = [f"{form.window} scrapes a host"]
    return f" ({', '.join(texts)})" if texts else ""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("subjects", nargs="*", choices=[*SUBJECTS, []], default=[], metavar="SUBJECT")
    parser.add_argument("--form", choices=FORMS, default="quick")
    parser.add_argument("--only", action="append", choices=[kind.name for kind in KINDS])
    parser.add_argument("--series", type=int, help="memory: so many series in place of the form's")
    parser.add_argument("--scrapes", type=int, help="memory: so many scrapes; 480 are two hours")
    parser.add_argument("--recording", type=Path, help="a recording made before, in place of a new one")
    parser.add_argument("--record", type=Path, help="only make a recording of the form's length, here")
    parser.add_argument("--port", type=int, default=PORT, help="of the first server")
    parser.add_argument("--folder", type=Path, help="where to keep data (default: a temporary folder)")
    return parser.parse_args()


def _form(options: argparse.Namespace) -> Form:
    form = FORMS[options.form]
    hosts, scrapes = form.memory
    if options.series:
        hosts = -(-options.series // SERIES_PER_HOST)
    return replace(form, memory=(hosts, options.scrapes or scrapes))


def _kinds(only: list[str] | None) -> tuple[Kind, ...]:
    missing = missing_programs()
    for name in missing:
        print(f"{name} is not installed; left out", file=sys.stderr)
    wanted = {OURS, *(only or [kind.name for kind in KINDS])}
    return tuple(kind for kind in KINDS if kind.name in wanted and kind.name not in missing)


def main() -> None:
    """Command line."""
    options = _options()
    form = _form(options)
    if options.record is not None:
        record(options.record, form.scrapes, form.interval_s, options.port - 1)
        return
    kinds = _kinds(options.only)
    subjects = options.subjects or list(SUBJECTS)
    if "recording" in subjects and options.recording is None and shutil.which(EXPORTER) is None:
        print(f"{EXPORTER} is not installed; no recording", file=sys.stderr)
        subjects.remove("recording")
    date = datetime.datetime.now(datetime.UTC)
    text = f"Storage engine, {options.form} form. {date:%Y-%m-%d}, {machine()}.\n"
    print(text, flush=True)
    parts = []
    for subject in subjects:
        title, measure = SUBJECTS[subject]
        folder = Path(tempfile.mkdtemp(prefix="vedette-bench-", dir=options.folder))
        began = time.monotonic()
        try:
            figures = measure(Run(folder, form, options.recording, kinds, options.port))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        names = [kind.name for kind in kinds if any(kind.name in figure.values for figure in figures)]
        part = table(f"{title}{describe(subject, form)}", names, figures)
        part += f"\n{time.monotonic() - began:.0f} s.\n"
        print(part, flush=True)
        text += "\n" + part
        parts.append((title, figures))
    summary = f"### Bars, {options.form} form\n\n{bars_table(parts)}"
    print(summary, flush=True)
    text += "\n" + summary
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date:%Y%m%dT%H%M%S}-storage-{options.form}.md"
    path.write_text(text, encoding="utf-8")
    print(f"written to {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
