"""The blocks of a store: opened at the start, replaced after compactions, with their tombstones.

The list is a tuple that is swapped as a whole; a querier keeps the tuple it started with, and the files of a
removed block stay readable through their mappings until the last querier lets go.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tsdb.block import Block
from tsdb.blockcache import BlockCache
from tsdb.blockjoin import BlockJoins
from tsdb.blockmeta import BlockMeta
from tsdb.decodedruns import DECODED_BYTES, DecodedRuns
from tsdb.errors import CorruptionError, StorageError
from tsdb.fs import FileSystem
from tsdb.labels import Matcher
from tsdb.metrics import StorageMetrics
from tsdb.rollupplan import Coverage
from tsdb.select import SelectHints, Selection
from tsdb.symbols import SymbolTable
from tsdb.tombstone import (
    BlockTombstone,
    Mask,
    discard_tombstones,
    draft_tombstones,
    keep_tombstones,
    masked,
    matching_rows,
    read_tombstones,
)
from tsdb.ulid import is_ulid

log = logging.getLogger("tsdb.blocks")

QUARANTINE = "quarantine"
TEMPORARY_SUFFIX = ".tmp"
DELETION_SUFFIX = ".tmp-for-deletion"

_EXAMINED_ROWS = 4096
_NO_HINTS = SelectHints()


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """An open block, where it lies, and what of it is deleted."""

    block: Block
    path: Path
    tombstones: tuple[BlockTombstone, ...] = ()

    @property
    def meta(self) -> BlockMeta:
        """The block's meta.json."""
        return self.block.meta

    def overlaps(self, mint: int, maxt: int) -> bool:
        """Whether the block may have samples in [mint, maxt], both inclusive."""
        return self.meta.min_time <= maxt and mint < self.meta.max_time

    def select(self, matchers: Sequence[Matcher], mint: int, maxt: int, hints: SelectHints) -> Selection:
        """The block's selection less what is deleted."""
        selection = self.block.select(matchers, mint, maxt, hints)
        masks = [
            Mask(matching_rows(selection.labels, stone.matchers), stone.mint, stone.maxt)
            for stone in self.tombstones
            if stone.mint <= maxt and stone.maxt >= mint
        ]
        return masked(selection, masks)


class BlockList(tuple[StoredBlock, ...]):
    """Blocks ascending by time, with what they say about roll-ups, worked out at the first use."""

    _coverage: Coverage | None = None
    _end_ms: int | None = None

    def overlapping(self, mint: int, maxt: int) -> list[StoredBlock]:
        """Those that may have samples in [mint, maxt], both inclusive; most queries look behind all."""
        end_ms = self._end_ms
        if end_ms is None:
            end_ms = self._end_ms = max((stored.meta.max_time for stored in self), default=0)
        return [] if mint >= end_ms else [stored for stored in self if stored.overlaps(mint, maxt)]

    @property
    def coverage(self) -> Coverage:
        """Of the blocks' meta.json."""
        found = self._coverage
        if found is None:
            found = self._coverage = Coverage([stored.meta for stored in self])
        return found


class BlockSet:
    """Any thread reads `blocks`; changes take the lock."""

    def __init__(
        self,
        fs: FileSystem,
        root: Path,
        symbols: SymbolTable,
        metrics: StorageMetrics,
        cache: BlockCache | None = None,
        decoded_bytes: int = DECODED_BYTES,
    ) -> None:
        """`cache` keeps decoded pieces of all blocks; `decoded_bytes` may be kept of values that are read
        often."""
        self._fs, self.root, self._symbols, self._metrics = fs, root, symbols, metrics
        self.cache = cache if cache is not None else BlockCache()
        self.joins = BlockJoins(self.cache)
        self.decoded = DecodedRuns(decoded_bytes)
        self._lock = threading.RLock()
        self.blocks = BlockList()
        """Ascending by time."""
        self._damaged: frozenset[str] = frozenset()

    def load(self) -> None:
        """Open every block; remove what a crash left unfinished; set damaged blocks aside.

        Raises UnknownVersionError for a block of a newer format.
        """
        found = []
        for name in self._fs.list(self.root):
            path = self.root / name
            if not self._fs.is_directory(path):
                continue
            if name.endswith((TEMPORARY_SUFFIX, DELETION_SUFFIX)) or ".tmp-for-" in name:
                log.info("Removing an unfinished block", extra={"directory": str(path)})
                self._fs.remove_tree(path)
            elif is_ulid(name):
                opened = self._open(path)
                if opened is not None:
                    found.append(opened)
        self._replace(self._without_parents(found), [])
        self._metrics.reloads.inc()

    def _opened(self, path: Path) -> StoredBlock:
        block = Block.open(self._fs, path, self._symbols, self.cache)
        return StoredBlock(block, path, tuple(read_tombstones(self._fs, path)))

    def _open(self, path: Path) -> StoredBlock | None:
        try:
            return self._opened(path)
        except (CorruptionError, FileNotFoundError) as error:
            target = self.root / QUARANTINE / path.name
            self._fs.make_directory(target.parent)
            self._fs.rename(path, target)
            self._metrics.quarantined.labels("block").inc()
            self._metrics.reloads_failed.inc()
            log.error(
                "A damaged block was set aside",
                extra={"block": path.name, "moved_to": str(target), "err": str(error)},
            )
            return None

    def take_up_new(self) -> None:
        """Open blocks that somebody has moved into the directory since.

        One that cannot be opened, because it is still being copied perhaps, is tried again the next time.
        """
        known = {stored.meta.ulid for stored in self.blocks}
        known |= {parent.ulid for stored in self.blocks for parent in stored.meta.parents}
        for name in self._fs.list(self.root):
            path = self.root / name
            if not is_ulid(name) or name in known or not self._fs.is_directory(path):
                continue
            try:
                found = self._opened(path)
            except (StorageError, OSError) as error:
                log.warning("A new block cannot be opened", extra={"block": name, "err": str(error)})
                self._metrics.reloads_failed.inc()
                continue
            self._replace([found], [])
            self.joins.clear()
            self.decoded.clear()
            log.info("A block was moved in", extra={"block": name})
        self._metrics.reloads.inc()

    def _without_parents(self, found: list[StoredBlock]) -> list[StoredBlock]:
        """Remove blocks that a compaction had replaced when the process died before deleting them."""
        replaced = {parent.ulid for stored in found for parent in stored.meta.parents}
        for stored in found:
            if stored.meta.ulid in replaced:
                log.info("Removing a block that was compacted", extra={"block": stored.meta.ulid})
                self._delete(stored)
        return [stored for stored in found if stored.meta.ulid not in replaced]

    def _replace(self, added: Sequence[StoredBlock], removed: Sequence[StoredBlock]) -> None:
        with self._lock:
            kept = [stored for stored in self.blocks if stored not in removed]
            ordered = sorted([*kept, *added], key=lambda s: (s.meta.min_time, s.meta.max_time, s.meta.ulid))
            self.blocks = BlockList(ordered)

    def swap(self, added: Sequence[BlockMeta], removed: Sequence[StoredBlock]) -> None:
        """Take up written blocks and delete the ones they replace.

        Raises CorruptionError where one that was just written cannot be opened; then nothing is replaced.
        """
        opened = [(meta, self._open(self.root / meta.ulid)) for meta in added]
        found = [stored for _, stored in opened if stored is not None]
        if len(found) < len(opened):
            for stored in found:
                self._delete(stored)
            unreadable = ", ".join(meta.ulid for meta, stored in opened if stored is None)
            raise CorruptionError(f"blocks cannot be read after they were written: {unreadable}")
        self._replace(found, removed)
        self.joins.clear()
        self.decoded.clear()
        for stored in removed:
            self._delete(stored)
            stored.block.forget()

    def _delete(self, stored: StoredBlock) -> None:
        # Renamed first, so that a crash in the middle never leaves half a block under its name.
        doomed = stored.path.with_name(stored.path.name + DELETION_SUFFIX)
        self._fs.rename(stored.path, doomed)
        self._fs.remove_tree(doomed)

    def draft_tombstones(
        self, buried: Sequence[tuple[StoredBlock, Sequence[BlockTombstone]]]
    ) -> list[StoredBlock]:
        """Write blocks' new tombstones beside the old ones; `bury` makes them count. Returns the blocks with
        both. Raises StorageError, OSError; then no draft is left."""
        drafts: list[StoredBlock] = []
        for stored, stones in buried:
            draft = StoredBlock(stored.block, stored.path, (*stored.tombstones, *stones))
            drafts.append(draft)
            try:
                draft_tombstones(self._fs, stored.path, draft.tombstones)
            except BaseException:
                self.discard_drafts(drafts)
                raise
        return drafts

    def discard_drafts(self, drafts: Iterable[StoredBlock]) -> None:
        """Forget what `draft_tombstones` wrote."""
        for draft in drafts:
            discard_tombstones(self._fs, draft.path)

    def bury(self, drafts: Sequence[StoredBlock]) -> None:
        """Let drafts be the blocks' tombstones. Raises OSError; then those before count."""
        with self._lock:
            for draft in drafts:
                keep_tombstones(self._fs, draft.path)
                stored = next(each for each in self.blocks if each.path == draft.path)
                self._replace([draft], [stored])

    # Damage inside of a block that opened well: checksums are tested when a section or page is first read.

    def is_damaged(self, ulid: str) -> bool:
        """Whether `examine` has found damage in the block."""
        return ulid in self._damaged

    def damaged_count(self) -> int:
        """Blocks served in which damage was found since the start."""
        return sum(stored.meta.ulid in self._damaged for stored in self.blocks)

    def examine(self, blocks: Iterable[StoredBlock]) -> int:
        """Read blocks whole; log and remember those that are damaged, and return how many are.

        They stay where they are: queries that do not need what is damaged are still answered.
        """
        found = set()
        for stored in blocks:
            fault = "" if self.is_damaged(stored.meta.ulid) else _fault(stored)
            if fault:
                found.add(stored.meta.ulid)
                log.error(
                    "A block is damaged: it is not merged any more, queries of its damaged part fail",
                    extra={"block": stored.meta.ulid, "err": fault},
                )
        self._damaged |= found
        return len(found)

    def size_bytes(self, stored: StoredBlock) -> int:
        """Bytes of a block's files."""
        return self._fs.size(stored.path)


def _fault(stored: StoredBlock) -> str:
    """The first damage found by reading all of a block; "" where there is none."""
    try:
        selection = stored.select((), stored.meta.min_time, stored.meta.max_time - 1, _NO_HINTS)
        rows = len(selection.labels)
        for lo in range(0, rows, _EXAMINED_ROWS):
            selection.read(lo, min(lo + _EXAMINED_ROWS, rows))
    except CorruptionError as error:
        return str(error)
    return ""
