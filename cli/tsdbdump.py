"""`vedette tsdb dump` and `dump-openmetrics`: series and samples as text, in promtool's formats."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import numpy.typing as npt

from cli.tsdbselectors import matcher_sets, time_range_options
from cli.tsdbstore import opened_copy
from promql.histogramtext import histogram_texts
from promql.numberformat import format_g
from promql.quoting import quote
from tsdb.errors import StorageError
from tsdb.labels import METRIC_NAME, Labels
from tsdb.mergeselect import merge_selections
from tsdb.samplerows import read_rows
from tsdb.select import STALE_BITS, SampleBatch, Selection

F = TypeVar("F", bound=Callable[..., Any])
I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

BATCH_SAMPLES = 1 << 19
_LEGACY_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_JSON_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def _arguments(function: F) -> F:
    """What both commands take."""
    path = click.Path(file_okay=False, path_type=Path)
    for decorate in (
        click.option(
            "--match", multiple=True, help="Series selector; repeat for more. All series by default."
        ),
        time_range_options,
        click.option(
            "--sandbox-dir-root",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Where the write-ahead log is copied to while it is read; the store itself by default.",
        ),
        click.argument("db", type=path, default=Path("data/")),
    ):
        function = decorate(function)
    return function


@click.command()
@_arguments
@click.option(
    "--format", "output", type=click.Choice(["prom", "seriesjson"]), default="prom", help="Output format."
)
def dump(
    db: Path, sandbox_dir_root: Path | None, min_time: int, max_time: int, match: tuple[str, ...], output: str
) -> None:
    """Print the samples of the store DB (default data/), one a line, or its series as JSON.

    Works beside a running server and changes nothing.
    """
    lines = series_json_lines if output == "seriesjson" else prom_lines
    _print(db, sandbox_dir_root, min_time, max_time, match, lines)


@click.command("dump-openmetrics")
@_arguments
def dump_openmetrics(
    db: Path, sandbox_dir_root: Path | None, min_time: int, max_time: int, match: tuple[str, ...]
) -> None:
    """Print the samples of the store DB (default data/) as OpenMetrics text.

    Native histograms and stale markers are left out: OpenMetrics has no form for them.
    """
    _print(db, sandbox_dir_root, min_time, max_time, match, openmetrics_lines)
    click.echo("# EOF")


def _print(
    db: Path,
    sandbox: Path | None,
    mint: int,
    maxt: int,
    match: tuple[str, ...],
    lines: Callable[[Selection], Iterator[str]],
) -> None:
    sets = matcher_sets(match) or ((),)
    try:
        with opened_copy(db, sandbox) as database:
            querier = database.querier()
            selection = merge_selections([querier.select(matchers, mint, maxt) for matchers in sets])
            for text in lines(selection):
                sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except (StorageError, OSError) as error:
        raise click.ClickException(str(error)) from None


def label_text(labels: Labels, separator: str) -> str:
    """`{a="b", c="d"}` with Go's quoting; names that need it are quoted."""
    pairs = (f"{n if _LEGACY_NAME.fullmatch(n) else quote(n)}={quote(v)}" for n, v in labels)
    return "{" + separator.join(pairs) + "}"


def prom_lines(selection: Selection) -> Iterator[str]:
    """`{labels} value milliseconds`, a batch of lines at a time, series by label set."""
    for labels, batch in _batches(selection):
        heads = [label_text(row, ", ") for row in labels]
        texts = _value_texts(batch.values)
        histograms = batch.histograms
        shown = histogram_texts(histograms, range(len(histograms))) if histograms is not None else []
        t_ms = batch.t_ms.tolist()
        lines = []
        for row, head in enumerate(heads):
            lo, hi = int(batch.offsets[row]), int(batch.offsets[row + 1])
            samples = list(zip(t_ms[lo:hi], texts[lo:hi], strict=True))
            if histograms is not None:
                lo, hi = int(histograms.row_offsets[row]), int(histograms.row_offsets[row + 1])
                if lo < hi:
                    samples += zip(histograms.t_ms[lo:hi].tolist(), shown[lo:hi], strict=True)
                    samples.sort()
            lines += [f"{head} {text} {t}\n" for t, text in samples]
        yield "".join(lines)


def openmetrics_lines(selection: Selection) -> Iterator[str]:
    """`name{labels} value seconds.mmm`, a batch of lines at a time."""
    for labels, batch in _batches(selection):
        texts = _value_texts(batch.values)
        fresh = (batch.values.view(np.uint64) != STALE_BITS).tolist()
        t_ms = batch.t_ms.tolist()
        lines = []
        for row, label_set in enumerate(labels):
            head = label_set.metric_name + label_text(label_set.without(METRIC_NAME), ",")
            rows = range(int(batch.offsets[row]), int(batch.offsets[row + 1]))
            lines += [f"{head} {texts[at]} {t_ms[at] / 1000:.3f}\n" for at in rows if fresh[at]]
        yield "".join(lines)


def series_json_lines(selection: Selection) -> Iterator[str]:
    """A JSON object a series."""
    for row in selection.labels.sort_order().tolist():
        labels = selection.labels.row(row).to_dict()
        text = json.dumps(labels, ensure_ascii=False, separators=(",", ":"))
        yield text.translate(_JSON_ESCAPES) + "\n"


def _batches(selection: Selection) -> Iterator[tuple[list[Labels], SampleBatch]]:
    order = selection.labels.sort_order()
    labels = selection.labels.take(order)
    ends = np.cumsum(selection.sample_bounds()[order])
    lo = 0
    while lo < len(order):
        before = int(ends[lo - 1]) if lo else 0
        hi = max(lo + 1, int(np.searchsorted(ends, before + BATCH_SAMPLES, side="right")))
        rows = np.arange(lo, hi, dtype=np.int64)
        yield labels.take(rows).rows(), read_rows(selection, order[lo:hi])
        lo = hi


def _value_texts(values: F64Array) -> list[str]:
    """Texts of many values; each distinct one is formatted once."""
    distinct, places = np.unique(values.view(np.uint64), return_inverse=True)
    texts = [format_g(value) for value in distinct.view(np.float64).tolist()]
    return list(map(texts.__getitem__, places.tolist()))
