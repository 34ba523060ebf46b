"""Moving the blocks of a Prometheus directory into a store.

A source block becomes one block here, under a new name, with the source's `compaction.sources`. These tell a
second run what is here already, also after either side has compacted; a block imported in part (matchers,
times) records them with a mark of the part. A block appears under its name when it is whole: an interrupted
run leaves nothing but a temporary directory, which the next run removes. The caller holds the store's lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tsdb.blockmeta import META_FILE, BlockMeta
from tsdb.blockset import QUARANTINE
from tsdb.blockwriter import TEMPORARY_SUFFIX, write_block
from tsdb.errors import CorruptionError, StorageError, UnknownVersionError
from tsdb.fs import FileSystem
from tsdb.labels import Matcher
from tsdb.mergeselect import merge_selections
from tsdb.prometheusblock.block import PrometheusBlock, PrometheusMeta, read_meta
from tsdb.prometheusblock.walimport import WalImport, wal_source
from tsdb.samplerows import read_rows
from tsdb.select import SampleBatch, Selection
from tsdb.serieslabels import SeriesLabels
from tsdb.symbols import SymbolTable
from tsdb.ulid import is_ulid

I64Array = npt.NDArray[np.int64]

TIME_MIN, TIME_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """A block of the Prometheus directory; `error` says why it cannot be read, `meta` is then None."""

    path: Path
    meta: PrometheusMeta | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What to take: series that match any of the sets (all for none), samples in [mint, maxt] ms."""

    matcher_sets: tuple[tuple[Matcher, ...], ...] = ()
    mint: int = TIME_MIN
    maxt: int = TIME_MAX

    def overlaps(self, meta: PrometheusMeta) -> bool:
        """Whether any sample of the block may be taken."""
        return meta.min_time <= self.maxt and meta.max_time > self.mint

    def mark(self, meta: PrometheusMeta) -> str:
        """What a source's name is followed by: nothing for a whole block, else a digest of the part."""
        mint, maxt = max(self.mint, meta.min_time), min(self.maxt, meta.max_time - 1)
        whole = (mint, maxt) == (meta.min_time, meta.max_time - 1)
        if whole and not self.matcher_sets:
            return ""
        texts = sorted(",".join(sorted(map(str, matchers))) for matchers in self.matcher_sets)
        named = repr((texts, mint, maxt)).encode()
        return "/" + hashlib.blake2b(named, digest_size=8).hexdigest()

    def sources(self, meta: PrometheusMeta) -> tuple[str, ...]:
        """Sources of the block that is written."""
        mark = self.mark(meta)
        return tuple(source + mark for source in meta.sources)


def source_blocks(fs: FileSystem, directory: Path) -> list[SourceBlock]:
    """Blocks of a Prometheus directory, ascending by time, unreadable ones last.

    Raises StorageError for a directory without any, and without a log.
    """
    found: list[SourceBlock] = []
    for name in fs.list(directory):
        path = directory / name
        if not is_ulid(name) or not fs.is_directory(path):
            continue
        try:
            found.append(SourceBlock(path, read_meta(fs, path)))
        except (StorageError, OSError) as error:
            found.append(SourceBlock(path, None, str(error)))
    if not found and not wal_source(fs, directory):
        raise StorageError(f"{directory} holds no blocks of Prometheus")
    return sorted(
        found, key=lambda block: (block.meta is None, block.meta and block.meta.min_time, block.path)
    )


def replaced(blocks: Sequence[SourceBlock]) -> set[str]:
    """Names of blocks whose samples a larger block among them holds: a compaction had just finished."""
    metas = [block.meta for block in blocks if block.meta is not None]
    return {
        small.ulid
        for small in metas
        for large in metas
        if small is not large and large.level > small.level and set(small.sources) <= set(large.sources)
    }


def known_sources(fs: FileSystem, store: Path) -> set[str]:
    """Sources of all blocks of a store. Raises UnknownVersionError where it holds foreign blocks."""
    found: set[str] = set()
    for name in fs.list(store):
        path = store / name / META_FILE
        if is_ulid(name) and fs.exists(path):
            try:
                found.update(BlockMeta.from_json(fs.read_file(path), str(path)).sources)
            except CorruptionError:
                continue  # The server sets it aside at its next start.
    return found


def remove_unfinished(fs: FileSystem, store: Path) -> int:
    """Remove what an interrupted run left; returns how many directories."""
    doomed = [name for name in fs.list(store) if name.endswith(TEMPORARY_SUFFIX) and name != QUARANTINE]
    for name in doomed:
        fs.remove_tree(store / name)
    return len(doomed)


def import_block(
    fs: FileSystem, source: SourceBlock, store: Path, part: Part, progress: Callable[[int], None]
) -> BlockMeta:
    """Write the part of a block to the store; `progress` is told numbers of samples as they are written.

    The result has 0 samples where nothing was to be taken; nothing is written then. Raises CorruptionError,
    UnknownVersionError of the source, DiskFullError and OSError of either.
    """
    if source.meta is None:
        raise CorruptionError(source.error)
    symbols = SymbolTable()
    try:
        block = PrometheusBlock(fs, source.path, symbols)
    except FileNotFoundError as error:
        raise CorruptionError(f"{error.filename}: file is missing") from error
    meta = block.meta
    mint, maxt = max(part.mint, meta.min_time), min(part.maxt, meta.max_time - 1)
    sets = part.matcher_sets or ((),)
    selection = merge_selections([block.select(matchers, mint, maxt) for matchers in sets])
    return write_block(
        fs,
        store,
        mint,
        maxt + 1,
        _Watched(selection, progress),
        level=meta.level,
        sources=part.sources(meta),
    )


@dataclass(frozen=True, slots=True)
class WalResult:
    """What became of the log: blocks written, or why it was skipped, and what could not be read."""

    written: tuple[BlockMeta, ...] = ()
    skipped: str = ""
    damage: str = ""


def import_wal(
    fs: FileSystem,
    directory: Path,
    blocks: Sequence[SourceBlock],
    store: Path,
    part: Part,
    progress: Callable[[int], None],
) -> WalResult:
    """Write the samples of the log that are newer than every block. Raises DiskFullError, OSError."""
    source = wal_source(fs, directory)
    if not source:
        return WalResult(skipped="there is none")
    newest = max((block.meta.max_time for block in blocks if block.meta is not None), default=TIME_MIN)
    texts = sorted(",".join(sorted(map(str, matchers))) for matchers in part.matcher_sets)
    if texts or part.mint > newest or part.maxt != TIME_MAX:
        named = repr((texts, max(part.mint, newest), part.maxt)).encode()
        source += "/" + hashlib.blake2b(named, digest_size=8).hexdigest()
    if source in known_sources(fs, store):
        return WalResult(skipped="imported before")
    work = WalImport(fs, directory, max(part.mint, newest), part.maxt, part.matcher_sets)
    try:
        metas = work.write(store, source, progress)
    except FileNotFoundError as error:
        return WalResult(damage=f"{error.filename} was deleted meanwhile; run the import again")
    return WalResult(tuple(metas), damage=work.damage)


class _Watched:
    """A selection that tells how many samples were read of it."""

    def __init__(self, selection: Selection, progress: Callable[[int], None]) -> None:
        self._selection, self._progress = selection, progress

    @property
    def labels(self) -> SeriesLabels:
        return self._selection.labels

    def sample_bounds(self) -> I64Array:
        return self._selection.sample_bounds()

    def read(self, lo: int, hi: int) -> SampleBatch:
        return self._told(self._selection.read(lo, hi))

    def read_rows(self, rows: I64Array) -> SampleBatch:
        return self._told(read_rows(self._selection, rows))

    def _told(self, batch: SampleBatch) -> SampleBatch:
        self._progress(len(batch.t_ms) + (0 if batch.histograms is None else len(batch.histograms)))
        return batch


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a source block: `written` (its meta), `skipped` (why) or `failed` (why)."""

    source: SourceBlock
    written: BlockMeta | None = None
    skipped: str = ""
    failed: str = ""


def import_blocks(
    fs: FileSystem,
    blocks: Sequence[SourceBlock],
    store: Path,
    part: Part,
    progress: Callable[[int], None],
) -> Iterator[Result]:
    """Import blocks one after the other, newest last; a damaged one is reported and the rest goes on.

    Raises UnknownVersionError for a store that is none of ours, DiskFullError.
    """
    known = known_sources(fs, store)
    covered = replaced(blocks)
    for block in blocks:
        meta = block.meta
        if meta is None:
            yield Result(block, failed=block.error)
        elif not part.overlaps(meta):
            yield Result(block, skipped="outside of the time range")
        elif meta.ulid in covered:
            yield Result(block, skipped="compacted into a larger block")
        elif set(meta.sources) <= known or set(part.sources(meta)) <= known:
            yield Result(block, skipped="imported before")
        else:
            try:
                written = import_block(fs, block, store, part, progress)
            except (CorruptionError, UnknownVersionError) as error:
                yield Result(block, failed=str(error))
                continue
            known.update(written.sources if written.stats.num_samples else ())
            yield Result(block, written=written)
