"""Import of blocks that Prometheus made into a store of ours, and what is in it then."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

from tests.tsdb.memoryselection import Row, all_rows
from tsdb.database import open_database
from tsdb.fs import FileSystem
from tsdb.labels import Labels
from tsdb.limits import StorageOptions
from tsdb.prometheusblock import migrate
from tsdb.prometheusblock.migrate import Part, Result

FS = FileSystem()
T0 = 1_700_000_000_000
ALL = (-(1 << 62), 1 << 62)
OPTIONS = StorageOptions(background=False, retention_ms=0, lock_file=False)
WHOLE = Part()


def do_import(source: Path, store: Path, part: Part = WHOLE) -> list[Result]:
    FS.make_directory(store)
    return list(migrate.import_blocks(FS, migrate.source_blocks(FS, source), store, part, lambda _: None))


def rows_in(store: Path) -> dict[Labels, Row]:
    database = open_database(store, OPTIONS)
    try:
        return all_rows(database.querier().select((), *ALL))
    finally:
        database.close()


def promtool_dump(folder: Path) -> set[tuple[str, str, str]]:
    """Labels, value and timestamp of each line."""
    (folder / "wal").mkdir(exist_ok=True)
    done = subprocess.run(
        ["promtool", "tsdb", "dump", str(folder)], check=True, capture_output=True, text=True, timeout=120
    )
    found = set()
    for line in done.stdout.splitlines():
        labels, value, t = line.rsplit(" ", 2)
        found.add((labels, value, t))
    return found


def our_lines(rows: dict[Labels, Row]) -> set[tuple[str, str, str]]:
    from cli.tsdbdump import label_text
    from promql.numberformat import format_g

    return {
        (label_text(labels, ", "), format_g(struct.unpack("<d", struct.pack("<Q", s.bits))[0]), str(s.t_ms))
        for labels, row in rows.items()
        for s in row.floats
    }


def openmetrics(seed: int = 1, series_count: int = 30, samples: int = 1000) -> str:
    rng = random.Random(seed)
    lines = ["# TYPE http_requests counter"]
    for s in range(series_count):
        value = 0.0
        for i in range(samples):
            value += rng.randint(0, 10) * (1 if s % 3 else 0.1)
            at = T0 / 1000 + i * 15 + (rng.random() if s % 7 == 0 else 0)
            lines.append(f'http_requests_total{{code="{s % 5}",inst="h\\"{s}é"}} {value!r} {at:.3f}')
    lines.append("# TYPE g gauge")
    lines += [f"g {rng.choice(['NaN', '+Inf', '-0', '1e-300'])} {T0 / 1000 + i * 60}" for i in range(100)]
    return "\n".join([*lines, "# EOF", ""])
