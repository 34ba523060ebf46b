"""`vedette tsdb create-blocks-from openmetrics`: blocks of samples that a file holds."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from cli.openmetricsfile import Columns, OpenMetricsFile
from cli.tsdblist import block_table
from tsdb.blockmeta import BlockMeta
from tsdb.blockwriter import write_block
from tsdb.errors import DuplicateSampleError, LockedError, StorageError
from tsdb.fs import FileSystem
from tsdb.select import SampleBatch
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable

I64Array = npt.NDArray[np.int64]

BLOCK_RANGE_MS = 2 * 3600 * 1000
RANGE_FACTOR = 3
RANGES_LIMIT = 10

SAMPLES_IN_MEMORY = 16 << 20
"""Samples gathered before blocks are written, some 1 GiB while they are sorted. A longer file gives several
blocks for one range of time; the server merges them."""


@click.group("create-blocks-from")
def create_blocks_from() -> None:
    """Make blocks of samples in a file."""


@create_blocks_from.command()
@click.argument("source", metavar="INPUT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path), default=Path("data/"))
@click.option("-r", "--human-readable", is_flag=True, help="Print dates and units.")
@click.option("-q", "--quiet", is_flag=True, help="Do not print created blocks.")
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="Label to set on every series; repeat.")
@click.option("--max-block-duration", default="2h", hidden=True, help="Longest block.")
def openmetrics(
    source: Path,
    output: Path,
    human_readable: bool,
    quiet: bool,
    label: tuple[str, ...],
    max_block_duration: str,
) -> None:
    """Make blocks of the OpenMetrics file INPUT in the store OUTPUT (default data/), whose server is stopped.

    Every sample needs a timestamp, and the file ends in "# EOF".
    """
    reader = OpenMetricsFile(source, _labels(label))
    range_ms = block_range(_duration(max_block_duration))
    fs = FileSystem()
    try:
        fs.make_directory(output)
        lock = fs.lock(output / "lock")
        try:
            metas = create_blocks(fs, reader, output, range_ms)
        finally:
            lock.close()
    except LockedError as error:
        raise click.ClickException(f"{error}; stop that server first") from None
    except (StorageError, ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if metas and not quiet:
        click.echo(block_table(output, metas, human_readable), nl=False)


def _labels(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, separator, _ in pairs:
        if not (name and separator):
            raise click.BadParameter("want NAME=VALUE", param_hint="--label")
    return {name: value for name, _, value in pairs}


def _duration(text: str) -> int:
    from promql.duration import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-block-duration") from None


def block_range(longest_ms: int) -> int:
    """The longest of 2 h, 6 h, 18 h, ... that is not above `longest_ms`, at least 2 h."""
    found = BLOCK_RANGE_MS
    for _ in range(RANGES_LIMIT - 1):
        if found * RANGE_FACTOR > longest_ms:
            break
        found *= RANGE_FACTOR
    return found


def create_blocks(
    fs: FileSystem,
    reader: OpenMetricsFile,
    output: Path,
    range_ms: int,
    samples_in_memory: int = SAMPLES_IN_MEMORY,
) -> list[BlockMeta]:
    """Write a block for each aligned range of time that has samples.

    Raises ValueError naming the line, DuplicateSampleError for two values of one series at one time,
    DiskFullError, OSError. Blocks written before an error are removed.
    """
    symbols = SymbolTable()
    metas: list[BlockMeta] = []
    pending: list[Columns] = []
    try:
        for columns in reader.pieces():
            pending.append(columns)
            if sum(map(len, pending)) >= samples_in_memory:
                metas += _write(fs, reader, pending, symbols, output, range_ms)
                pending = []
        if pending:
            metas += _write(fs, reader, pending, symbols, output, range_ms)
    except BaseException:
        for meta in metas:
            fs.remove_tree(output / meta.ulid)
        raise
    return sorted(metas, key=lambda meta: meta.min_time)


def _write(
    fs: FileSystem,
    reader: OpenMetricsFile,
    pending: list[Columns],
    symbols: SymbolTable,
    output: Path,
    range_ms: int,
) -> list[BlockMeta]:
    rows = np.concatenate([columns.rows for columns in pending])
    t_ms = np.concatenate([columns.t_ms for columns in pending])
    bits = np.concatenate([columns.values.view(np.uint64) for columns in pending])
    slots = t_ms // range_ms
    order = np.lexsort((t_ms, rows, slots))
    rows, t_ms, bits, slots = rows[order], t_ms[order], bits[order], slots[order]
    again = (np.diff(rows) == 0) & (np.diff(t_ms) == 0)
    conflict = np.flatnonzero(again & (bits[1:] != bits[:-1]))
    if len(conflict):
        at = int(conflict[0])
        raise DuplicateSampleError(
            f"duplicate sample for timestamp {int(t_ms[at])}: two values of {reader.series[int(rows[at])]}"
        )
    keep = np.concatenate([[True], ~again]) if len(rows) else np.empty(0, dtype=np.bool_)
    rows, t_ms, bits, slots = rows[keep], t_ms[keep], bits[keep], slots[keep]
    metas = []
    for slot in np.unique(slots).tolist():
        lo, hi = (int(np.searchsorted(slots, slot, side=side)) for side in ("left", "right"))
        selection = SortedSamples(reader, symbols, rows[lo:hi], t_ms[lo:hi], bits[lo:hi])
        mint, maxt = int(t_ms[lo:hi].min()), int(t_ms[lo:hi].max())
        metas.append(write_block(fs, output, mint, maxt + 1, selection))
    return metas


class SortedSamples:
    """A selection over columns that are sorted by series and time."""

    def __init__(
        self,
        reader: OpenMetricsFile,
        symbols: SymbolTable,
        rows: I64Array,
        t_ms: I64Array,
        bits: npt.NDArray[np.uint64],
    ) -> None:
        used, starts = np.unique(rows, return_index=True)
        self._labels = SeriesLabels.from_labels([reader.series[row] for row in used.tolist()], symbols)
        self._offsets = np.append(starts, len(rows)).astype(np.int64)
        self._t_ms, self._values = t_ms, bits.view(np.float64)

    @property
    def labels(self) -> SeriesLabels:
        """Label sets of the series."""
        return self._labels

    def sample_bounds(self) -> I64Array:
        """i64[S]: exact numbers of samples."""
        return np.diff(self._offsets)

    def read(self, lo: int, hi: int) -> SampleBatch:
        """Samples of rows lo to hi (exclusive)."""
        first, last = int(self._offsets[lo]), int(self._offsets[hi])
        return SampleBatch(
            self._offsets[lo : hi + 1] - first, self._t_ms[first:last], self._values[first:last]
        )
