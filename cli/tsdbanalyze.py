"""`vedette tsdb analyze`: churn, cardinality and runs of a block, in promtool's lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from cli.tsdblist import duration_text
from cli.tsdbselectors import matcher_sets
from cli.tsdbstore import block_metas
from tsdb.block import Block, BlockSelection
from tsdb.blockmeta import BlockMeta
from tsdb.errors import StorageError
from tsdb.fs import FileSystem
from tsdb.labels import METRIC_NAME
from tsdb.symbols import SymbolTable

I64Array = npt.NDArray[np.int64]
F64Array = npt.NDArray[np.float64]

_TIME_MIN, _TIME_MAX = -(1 << 62), 1 << 62
_STEPS_LIMIT = 10_000


@click.command()
@click.argument("db", type=click.Path(file_okay=False, path_type=Path), default=Path("data/"))
@click.argument("block", default="")
@click.option("--limit", type=int, default=20, show_default=True, help="Items of each list.")
@click.option("--extended", is_flag=True, help="Show how many samples the runs hold.")
@click.option("--match", help="Series selector to analyze.")
def analyze(db: Path, block: str, limit: int, extended: bool, match: str | None) -> None:
    """Analyze churn and cardinality of a BLOCK (default the newest) of the store DB (default data/)."""
    sets = matcher_sets([match] if match else [])
    try:
        metas = {meta.ulid: meta for meta in block_metas(db)}
        if not metas:
            raise StorageError(f"{db}: no blocks")
        meta = metas.get(block) if block else list(metas.values())[-1]
        if meta is None:
            raise StorageError(f"{db}: no block {block}")
        opened = Block.open(FileSystem(), db / meta.ulid, SymbolTable())
        selection = opened.select(sets[0] if sets else (), _TIME_MIN, _TIME_MAX)
        for line in report(meta, selection, match or "", limit):
            click.echo(line)
        if extended:
            for line in run_report(selection):
                click.echo(line)
    except BrokenPipeError:
        raise  # `| head` has read enough; click ends without a word.
    except (StorageError, OSError) as error:
        raise click.ClickException(str(error)) from None


def report(meta: BlockMeta, selection: BlockSelection, match: str, limit: int) -> Iterable[str]:
    """promtool's lines."""
    labels = selection.labels
    text = labels.symbols.text
    pair_keys = labels.name_ids.astype(np.uint64) << np.uint64(32) | labels.value_ids
    keys, first, places = np.unique(pair_keys, return_index=True, return_inverse=True)
    counts = np.bincount(places, minlength=len(keys))
    name_ids, value_ids = labels.name_ids[first], labels.value_ids[first]
    pairs = [f"{text(n)}={text(v)}" for n, v in zip(name_ids.tolist(), value_ids.tolist(), strict=True)]
    names, name_places = np.unique(name_ids, return_inverse=True)
    name_texts = labels.symbols.texts(names)
    duration = meta.max_time - meta.min_time
    churn = np.repeat(_uncovered(selection, duration), np.diff(labels.offsets))
    pair_churn = np.bincount(places, weights=churn, minlength=len(keys)) / max(duration, 1)
    name_churn = np.bincount(name_places[places], weights=churn, minlength=len(names)) / max(duration, 1)
    lengths = np.array([len(text(v).encode()) for v in value_ids.tolist()], dtype=np.int64)
    metric = labels.symbols.find(METRIC_NAME)
    is_metric = name_ids == (metric if metric is not None else 0)

    yield f"Block ID: {meta.ulid}"
    yield f"Duration: {duration_text(duration)}"
    yield f"Total Series: {meta.stats.num_series}"
    if match:
        yield f"Matcher: {match}"
    yield f"Label names: {len(names)}"
    if match:
        yield f"Matched series: {len(labels)}"
    yield f"Postings (unique label pairs): {len(keys)}"
    yield f"Postings entries (total label pairs): {len(pair_keys)}"
    metrics = [text(v) for v in value_ids[is_metric].tolist()]
    lists: tuple[tuple[str, Sequence[str], npt.NDArray[np.number]], ...] = (
        ("Label pairs most involved in churning:", pairs, pair_churn.astype(np.int64)),
        ("Label names most involved in churning:", name_texts, name_churn.astype(np.int64)),
        ("Most common label pairs:", pairs, counts),
        (
            "Label names with highest cumulative label value length:",
            name_texts,
            np.bincount(name_places, weights=lengths, minlength=len(names)).astype(np.int64),
        ),
        ("Highest cardinality labels:", name_texts, np.bincount(name_places, minlength=len(names))),
        ("Highest cardinality metric names:", metrics, counts[is_metric]),
    )
    for title, texts, numbers in lists:
        yield ""
        yield title
        ranked = sorted(zip(numbers.tolist(), texts, strict=True), key=lambda pair: (-pair[0], pair[1]))
        yield from (f"{number} {text}" for number, text in ranked[:limit])


def _uncovered(selection: BlockSelection, duration: int) -> I64Array:
    """Of each series the ms of the block that lie before its first or after its last sample."""
    if not len(selection.labels):
        return np.empty(0, dtype=np.int64)
    first, last = selection.spans()
    return duration - (last - first)


def run_report(selection: BlockSelection) -> Iterable[str]:
    """Histograms of samples a run. Pages share their bytes, so there are no bytes of a single run."""
    floats, histograms = selection.run_samples()
    total = len(floats) + len(histograms)
    yield ""
    yield "Compaction analysis:"
    yield ""
    yield from histogram_lines("samples per float chunk", floats, total)
    yield from histogram_lines("samples per histogram chunk", histograms, total)


def histogram_lines(title: str, sizes: I64Array, total: int) -> Iterable[str]:
    """promtool's bar chart of integers; bars are percent of `total`."""
    if not len(sizes):
        yield f"{title}: N/A"
        yield ""
        return
    low, high = int(sizes.min()), int(sizes.max())
    step = 10
    while step < (high - low) // 10 and step <= _STEPS_LIMIT:
        step *= 10
    start, end = low - low % step, high - high % step + step
    buckets = np.bincount((sizes - start) // step, minlength=(end - start) // step + 1)
    yield f"{title} (min/avg/max): {low}/{int(sizes.sum()) // len(sizes)}/{high}"
    widths = len(str(end)), len(str(end + step)), len(str(int(buckets.max())))
    for k, count in enumerate(buckets.tolist()):
        bar = "#" * (100 * count // total)
        yield (
            f"[{k * step + start + 1:{widths[0]}d}, {(k + 1) * step + start:{widths[1]}d}]:"
            f" {count:{widths[2]}d} {bar}"
        )
    yield ""
