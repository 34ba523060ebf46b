"""`vedette tsdb import prometheus DIR`: years of history in one command, resumable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cli.tsdbselectors import matcher_sets, time_range_options
from cli.tsdbstore import locked_store
from tsdb.errors import LockedError, StorageError
from tsdb.fs import FileSystem
from tsdb.prometheusblock import migrate
from tsdb.prometheusblock.migrate import Part, Result, SourceBlock, WalResult

_DAY_S = 24 * 3600


@click.group("import")
def import_group() -> None:
    """Bring in data of other programs."""


@import_group.command("prometheus")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--storage.tsdb.path",
    "store",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("data/"),
    show_default=True,
    help="Store to write to; created if missing.",
)
@click.option("--match", multiple=True, help="Only series of this selector; repeat for more.")
@time_range_options
@click.option("--wal/--no-wal", default=True, help="Whether to import the newest samples from the log.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
def import_prometheus(
    directory: Path,
    store: Path,
    match: tuple[str, ...],
    min_time: int,
    max_time: int,
    wal: bool,
    quiet: bool,
) -> None:
    """Import the blocks and the write-ahead log of a Prometheus data DIRECTORY, which is only read.

    Stop the Vedette server first: blocks are picked up at its next start. An interrupted import goes on
    where it stopped when it is run again; blocks that were imported before are skipped. A damaged block is
    named and left out, and the exit code is then 1.
    """
    part = Part(matcher_sets(match), min_time, max_time)
    fs = FileSystem()
    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    try:
        blocks = migrate.source_blocks(fs, directory)
        if store.resolve() == directory.resolve():
            raise StorageError(f"{store} is the Prometheus directory itself; choose another one to write to")
        with locked_store(fs, store):
            migrate.remove_unfinished(fs, store)
            results = _run(fs, blocks, store, part, console)
            log = WalResult(skipped="not wanted")
            if wal:
                with _bar(console, 0) as progress:
                    log = migrate.import_wal(fs, directory, blocks, store, part, progress)
    except LockedError as error:
        raise click.ClickException(f"{error}; stop that server, then import") from None
    except (StorageError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; run the same command again to go on") from None
    _summary(results, log, console)
    sys.exit(1 if log.damage or any(result.failed for result in results) else 0)


def _run(
    fs: FileSystem, blocks: list[SourceBlock], store: Path, part: Part, console: Console
) -> list[Result]:
    """Import with a progress bar; one line a block."""
    results: list[Result] = []
    with _bar(console, sum(block.meta.num_samples for block in blocks if block.meta)) as progress:
        for result in migrate.import_blocks(fs, blocks, store, part, progress):
            results.append(result)
            name = result.source.path.name
            if result.failed:
                click.echo(f"{name}: FAILED: {result.failed}", err=True)
            elif result.skipped:
                console.print(f"{name}: skipped, {result.skipped}")
                progress(result.source.meta.num_samples if result.source.meta else 0)
            elif result.written is not None:
                stats = result.written.stats
                console.print(
                    f"{name}: {stats.num_samples} samples of {stats.num_series} series"
                    + (f" in {result.written.ulid}" if stats.num_samples else ", nothing to import")
                )
    return results


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    columns = (
        TextColumn("importing"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} samples"),
        TimeRemainingColumn(),
    )
    if not console.is_terminal:
        yield lambda _: None
        return
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("import", total=total or None)
        yield lambda count: progress.advance(task, count)


def _summary(results: list[Result], log: WalResult, console: Console) -> None:
    written = [r.written for r in results if r.written is not None and r.written.stats.num_samples]
    if log.damage:
        click.echo(f"write-ahead log: FAILED: {log.damage}", err=True)
    if log.skipped:
        console.print(f"write-ahead log: skipped, {log.skipped}")
    else:
        newest = sum(meta.stats.num_samples for meta in log.written)
        console.print(f"write-ahead log: {newest} samples that are in no block, in {len(log.written)} blocks")
    skipped, failed = sum(bool(r.skipped) for r in results), sum(bool(r.failed) for r in results)
    samples = sum(meta.stats.num_samples for meta in written)
    console.print(f"{len(written)} blocks imported ({samples} samples), {skipped} skipped, {failed} failed")
    if written:
        days = (time.time() - min(meta.min_time for meta in written) / 1000) / _DAY_S
        if days > 0:
            console.print(
                f"note: the oldest sample is {days:.0f} days old, and the server deletes blocks beyond its"
                " retention: start it with a --storage.tsdb.retention.time that is longer"
            )
