"""Metrics that other programs leave in files: the collector textfile."""

from __future__ import annotations

import os

from agent.hostmetrics.paths import HostPaths, list_names
from ingest.gathered import Family, Gathered, gauge
from tsdb.labels import METRIC_NAME

DIRECTORY = "/var/lib/prometheus/node-exporter"
FILE_BYTES_LIMIT = 4 << 20
FILE_COUNT_LIMIT = 256

FAILED = gauge("node_textfile_scrape_error", "Whether a file could not be read.")
MODIFIED = gauge("node_textfile_mtime_seconds", "Unix time of the last change of a file.", "file")


class TextFileCollector:
    """Reads the `.prom` files of one directory; a file with an own timestamp or a fault is left out."""

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory = directory

    def __call__(self, paths: HostPaths, out: Gathered) -> None:
        """Add the samples of all files, their times of change, and whether one failed."""
        failed = False
        names = [name for name in list_names(f"{paths.rootfs}{self._directory}") if name.endswith(".prom")]
        for name in names[:FILE_COUNT_LIMIT]:
            path = f"{paths.rootfs}{self._directory}/{name}"
            try:
                with open(path, "rb") as file:
                    body = file.read(FILE_BYTES_LIMIT + 1)
                    changed = os.fstat(file.fileno()).st_mtime
                if len(body) > FILE_BYTES_LIMIT:
                    raise ValueError(f"{path} has more than {FILE_BYTES_LIMIT} bytes")
                _add_samples(body, out)
                out.add(MODIFIED, changed, f"{self._directory}/{name}")
            except (OSError, ValueError):
                failed = True
        out.add(FAILED, float(failed or len(names) > FILE_COUNT_LIMIT))


def _add_samples(body: bytes, out: Gathered) -> None:
    """Raises ExpositionError, which is a ValueError, or ValueError for samples with a timestamp."""
    from ingest.kernels.exposition import TEXT, TYPE
    from ingest.scrape.text import metadata_lines, parse_labels, scan_body

    if not body.endswith(b"\n"):
        body += b"\n"
    scanned = scan_body(body, TEXT)
    if scanned.timed.any():
        raise ValueError("samples with a timestamp are not accepted")
    types = {line.name: line.text for line in metadata_lines(scanned) if line.kind == TYPE}
    rows = []
    for index in range(scanned.count):
        pairs = dict(parse_labels(scanned.series_text(index), TEXT))
        name = pairs.pop(METRIC_NAME)
        base = next((b for s in ("_bucket", "_sum", "_count") if (b := name.removesuffix(s)) in types), name)
        family = Family(base, types.get(base, "unknown"), "Metric of a text file.")
        rows.append((family, float(scanned.values[index]), (name, tuple(pairs), tuple(pairs.values()))))
    for family, value, key in rows:
        out.add_series(family, value, key)
