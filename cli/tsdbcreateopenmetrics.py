"""`vedette tsdb create-blocks-from openmetrics`: blocks of samples that a file holds."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from cli.openmetricsfile import Columns, OpenMetricsFile
from cli.tsdblist import block_table
from cli.tsdbstore import locked_store
from tsdb.blockmeta import BlockMeta
from tsdb.errors import LockedError, StorageError
from tsdb.fs import FileSystem
from tsdb.sampleblocks import GatheredSamples, write_sample_blocks

BLOCK_RANGE_MS = 2 * 3600 * 1000
RANGE_FACTOR = 3
RANGES_LIMIT = 10

SAMPLES_IN_MEMORY = 16 << 20
"""Samples gathered before blocks are written, some 1 GiB while they are sorted. A longer file gives several
blocks for one range of time; the server merges them."""


@click.command()
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
        with locked_store(fs, output):
            metas = create_blocks(fs, reader, output, range_ms)
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
    metas: list[BlockMeta] = []
    pending: list[Columns] = []
    try:
        for columns in reader.pieces():
            pending.append(columns)
            if sum(map(len, pending)) >= samples_in_memory:
                metas += _write(fs, reader, pending, output, range_ms)
                pending = []
        if pending:
            metas += _write(fs, reader, pending, output, range_ms)
    except BaseException:
        for meta in metas:
            fs.remove_tree(output / meta.ulid)
        raise
    return sorted(metas, key=lambda meta: meta.min_time)


def _write(
    fs: FileSystem, reader: OpenMetricsFile, pending: list[Columns], output: Path, range_ms: int
) -> list[BlockMeta]:
    samples = GatheredSamples.of_floats(
        np.concatenate([columns.rows for columns in pending]),
        np.concatenate([columns.t_ms for columns in pending]),
        np.concatenate([columns.values.view(np.uint64) for columns in pending]),
    )
    return write_sample_blocks(fs, output, reader.series, samples, range_ms, refuse_conflicts=True)
