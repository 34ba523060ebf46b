"""`vedette tsdb list`: the blocks of a store as promtool's table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from cli.tsdbstore import block_metas
from tsdb.blockmeta import BlockMeta
from tsdb.errors import StorageError
from tsdb.fs import FileSystem

HEADER = ("BLOCK ULID", "MIN TIME", "MAX TIME", "DURATION", "NUM SAMPLES", "NUM CHUNKS", "NUM SERIES", "SIZE")
_WIDTH_MIN = 13
_PADDING = 2
_UNITS = (("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0))


@click.command("list")
@click.argument("db", type=click.Path(file_okay=False, path_type=Path), default=Path("data/"))
@click.option("-r", "--human-readable", is_flag=True, help="Print dates and units.")
def list_blocks(db: Path, human_readable: bool) -> None:
    """List the blocks of the store DB (default data/)."""
    try:
        click.echo(block_table(db, block_metas(db), human_readable), nl=False)
    except BrokenPipeError:
        raise  # `| head` has read enough; click ends without a word.
    except (StorageError, OSError) as error:
        raise click.ClickException(str(error)) from None


def block_table(store: Path, metas: Sequence[BlockMeta], human_readable: bool) -> str:
    """Lines of the table, header included."""
    fs = FileSystem()
    rows = [
        (
            meta.ulid,
            time_text(meta.min_time, human_readable),
            time_text(meta.max_time, human_readable),
            duration_text(meta.max_time - meta.min_time),
            str(meta.stats.num_samples),
            str(meta.stats.num_chunks),
            str(meta.stats.num_series),
            size_text(fs.size(store / meta.ulid), human_readable),
        )
        for meta in metas
    ]
    return aligned([HEADER, *rows])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns as Go's tabwriter lays them out; the last column is not padded."""
    columns = zip(*rows, strict=True)
    widths = [max(_WIDTH_MIN, max(map(len, column)) + _PADDING) for column in columns]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1] + "\n"
        for row in rows
    )


def time_text(t_ms: int, human_readable: bool) -> str:
    """Milliseconds, or Go's text of a UTC time to the second."""
    if not human_readable:
        return str(t_ms)
    return datetime.fromtimestamp(t_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S +0000 UTC")


def duration_text(ms: int) -> str:
    """Go's text of a duration: `1h46m30.978s`, `250ms`, `0s`."""
    if ms == 0:
        return "0s"
    sign, ms = ("-" if ms < 0 else ""), abs(ms)
    if ms < 1000:
        return f"{sign}{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def size_text(size: int, human_readable: bool) -> str:
    """Bytes, or all units that are not zero, as `81KiB924B`."""
    if not human_readable:
        return str(size)
    parts = []
    for unit, shift in _UNITS:
        count, size = size >> shift, size & ((1 << shift) - 1)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0B"
