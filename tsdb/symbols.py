"""Interned strings: every label name and value of the process is a u32 symbol id; 0 is the empty string.

One writer at a time (a lock), many readers. Ids are never reused while the process lives, so arrays of ids
can be compared across head, blocks and queries. Texts are bytes in one arena, some 20 bytes a text beside its
own; texts that are seen more than once are also kept as Python strings, as many as `CACHE_TEXTS_LIMIT`.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tsdb.kernels.symbols import fill_table, find_regions, gather_texts, intern_regions

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
I64Array = npt.NDArray[np.int64]

N = TypeVar("N", bound=np.generic)

CACHE_TEXTS_LIMIT = 16_384
UNKNOWN_TEXTS_LIMIT = 256
CACHE_TEXTS_A_CALL = 256
"""Texts that one call may add, so that a list of unique ones does not push out the common ones."""
_OVERLAY_BASE = 1 << 31
_LOAD_LIMIT = 0.75
_SLOTS_INITIAL = 1024
_ARENA_INITIAL = 1 << 14
_CODING = "surrogatepass"
"""Names made up by a query may hold what UTF-8 has no bytes for."""


def _joined(texts: Sequence[str]) -> tuple[U8Array, I64Array]:
    """Bytes of texts end to end and their offsets i64[N+1]."""
    coded = [text.encode("utf-8", _CODING) for text in texts]
    offsets = np.zeros(len(coded) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, coded), dtype=np.int64, count=len(coded)), out=offsets[1:])
    # A writable copy, as the kernels' signatures want it.
    return np.array(np.frombuffer(b"".join(coded), dtype=np.uint8)), offsets


class SymbolTable:
    """Append-only table of strings."""

    def __init__(self, seeds: tuple[int, int] | None = None) -> None:
        """`seeds` of the hash, two uint64; random ones keep senders from building collisions."""
        self._seeds = seeds if seeds is not None else (secrets.randbits(64), secrets.randbits(64))
        self._lock = threading.Lock()
        self._count = 1
        self._arena: U8Array = np.empty(_ARENA_INITIAL, dtype=np.uint8)
        self._bounds: I64Array = np.zeros(_SLOTS_INITIAL, dtype=np.int64)
        self._slots: U32Array = np.zeros(_SLOTS_INITIAL, dtype=np.uint32)
        self._tags: U8Array = np.zeros(_SLOTS_INITIAL, dtype=np.uint8)
        self._views = (self._bounds.data, self._arena.data)
        """Bounds and arena for single reads; replaced together when either grows."""
        self._known: dict[str, int] = {"": 0}
        self._cached: dict[int, str] = {0: ""}
        self._unknown: dict[str, int] = {}
        """Texts that were asked for in vain, and the length of the table by then."""

    def __len__(self) -> int:
        return self._count

    def find(self, text: str) -> int | None:
        """Id of a known string, or None."""
        known = self._known.get(text)
        if known is None:
            count = self._count
            if self._unknown.get(text) == count:
                return None
            joined, offsets = _joined((text,))
            found = np.empty(1, dtype=np.int64)
            with self._lock:
                seed0, seed1 = self._seeds
                arena, bounds, slots, tags = self._arena, self._bounds, self._slots, self._tags
                find_regions(joined, offsets, seed0, seed1, arena, bounds, slots, tags, found)
            known = int(found[0])
            if known < 0:
                if len(self._unknown) >= UNKNOWN_TEXTS_LIMIT:
                    self._unknown = {}
                self._unknown[text] = count
                return None
            self._remember(text, known)
        return known

    def intern(self, text: str) -> int:
        """Id of a string, new if it has none yet."""
        known = self._known.get(text)
        return int(self.intern_many((text,))[0]) if known is None else known

    def intern_many(self, texts: Iterable[str]) -> U32Array:
        """Ids of many strings, u32[N]."""
        ordered = texts if isinstance(texts, list | tuple) else list(texts)
        found = list(map(self._known.get, ordered))
        if None not in found:
            return np.array(found, dtype=np.uint32)
        places = [i for i, symbol in enumerate(found) if symbol is None]
        missing = ordered if len(places) == len(ordered) else [ordered[i] for i in places]
        joined, offsets = _joined(missing)
        symbols = np.empty(len(missing), dtype=np.int64)
        with self._lock:
            before = self._count
            self._make_room(len(missing), len(joined))
            seed0, seed1 = self._seeds
            arena, bounds, slots, tags = self._arena, self._bounds, self._slots, self._tags
            self._count = int(
                intern_regions(joined, offsets, seed0, seed1, arena, bounds, slots, tags, before, symbols)
            )
        distinct = dict(zip(missing, symbols.tolist(), strict=True))
        again = ((text, symbol) for text, symbol in distinct.items() if symbol < before)
        for text, symbol in itertools.islice(again, CACHE_TEXTS_A_CALL):
            self._remember(text, symbol)
        if missing is ordered:
            return symbols.astype(np.uint32)
        out = np.array([symbol or 0 for symbol in found], dtype=np.uint32)
        out[places] = symbols
        return out

    def _make_room(self, count: int, size: int) -> None:
        """Let the arrays take `count` more texts of `size` bytes; readers keep the ones they have."""
        end = int(self._bounds[self._count])
        if end + size > len(self._arena):
            self._arena = _grown(self._arena, end, end + size)
        if self._count + count + 1 > len(self._bounds):
            self._bounds = _grown(self._bounds, self._count + 1, self._count + count + 1)
        self._views = (self._bounds.data, self._arena.data)
        slot_count = len(self._slots)
        while self._count + count > slot_count * _LOAD_LIMIT:
            slot_count *= 2
        if slot_count != len(self._slots):
            self._slots = np.zeros(slot_count, dtype=np.uint32)
            self._tags = np.zeros(slot_count, dtype=np.uint8)
            seed0, seed1 = self._seeds
            fill_table(seed0, seed1, self._arena, self._bounds, self._count, self._slots, self._tags)

    def _remember(self, text: str, symbol: int) -> None:
        """Keep a text that came a second time; texts of one series never do."""
        if len(self._known) >= CACHE_TEXTS_LIMIT:
            self._known, self._cached = {"": 0}, {0: ""}
        self._known[text] = symbol
        self._cached[symbol] = text

    def text(self, symbol: int) -> str:
        """The string of an id."""
        found = self._cached.get(symbol)
        if found is None:
            if not 0 <= symbol < self._count:
                raise IndexError(f"symbol {symbol} of {self._count}")
            bounds, arena = self._views
            found = str(arena[bounds[symbol] : bounds[symbol + 1]], "utf-8", _CODING)
        return found

    def texts(self, symbols: Sequence[int] | U32Array) -> list[str]:
        """Strings of many ids."""
        ordered = symbols.tolist() if isinstance(symbols, np.ndarray) else symbols
        found = list(map(self._cached.get, ordered))
        missing = found.count(None)
        if not missing:
            return found  # type: ignore[return-value]
        if missing == len(found):
            return self._read(symbols)
        places = [i for i, text in enumerate(found) if text is None]
        for i, text in zip(places, self._read([ordered[i] for i in places]), strict=True):
            found[i] = text
        return found  # type: ignore[return-value]

    def _read(self, symbols: Sequence[int] | U32Array) -> list[str]:
        wanted = np.array(symbols, dtype=np.int64)
        lengths = self.byte_lengths(wanted)
        offsets = np.zeros(len(wanted) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        out = np.empty(int(offsets[-1]), dtype=np.uint8)
        bounds, arena = self._views
        gather_texts(np.asarray(arena), np.asarray(bounds), wanted, offsets, out)
        raw = out.tobytes()
        spans = itertools.pairwise(offsets.tolist())
        if raw.isascii():
            whole = raw.decode("ascii")
            return [whole[start:end] for start, end in spans]
        return [raw[start:end].decode("utf-8", _CODING) for start, end in spans]

    @property
    def stored(self) -> SymbolTable:
        """The table that outlives queries: this one."""
        return self

    def regions(self) -> tuple[U8Array, I64Array]:
        """Arena and bounds of the stored texts: text i is arena[bounds[i]:bounds[i+1]]. Read only."""
        bounds, arena = self._views
        return np.asarray(arena), np.asarray(bounds)

    def are_stored(self, *ids: U32Array) -> bool:
        """Whether all ids are of stored texts, not made up by a query."""
        return True

    def byte_lengths(self, symbols: npt.NDArray[np.integer]) -> I64Array:
        """UTF-8 bytes of each text, i64[N]."""
        count = self._count
        if len(symbols) and not 0 <= int(symbols.min()) <= int(symbols.max()) < count:
            raise IndexError(f"symbols {symbols.min()} to {symbols.max()} of {count}")
        bounds = np.asarray(self._views[0])
        wanted = symbols.astype(np.int64)
        lengths: I64Array = bounds[wanted + 1] - bounds[wanted]
        return lengths

    def memory_bytes(self) -> int:
        """Bytes of the table beside the texts themselves and the cache."""
        return 8 * self._count + 5 * len(self._slots)


def _grown(array: npt.NDArray[N], used: int, wanted: int) -> npt.NDArray[N]:
    """A larger copy; pages beyond what is used are not resident."""
    size = len(array)
    while size < wanted:
        size *= 2
    grown = np.empty(size, dtype=array.dtype)
    grown[:used] = array[:used]
    return grown


class OverlaySymbols(SymbolTable):
    """Symbols that a query makes up (label_replace, count_values): its own ids from 2^31 on, the rest from
    the table below. Dropped with the query, so made-up strings never fill the store's table."""

    def __init__(self, base: SymbolTable) -> None:
        self._base = base
        self._ids: dict[str, int] = {}
        self._texts: list[str] = []
        self._learnt: dict[int, int] = {}
        self._compared = (0, 0)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._texts)

    def own_ids(self, ids: U32Array) -> U32Array:
        """Ids of the table below as this one has them: what a query has made up keeps its id where series
        come with that string later. The given array where nothing changes."""
        if not self._texts:
            return ids
        with self._lock:
            sizes = len(self._base), len(self._texts)
            if sizes != self._compared:
                for text, made_up in self._ids.items():
                    stored = self._base.find(text)
                    if stored is not None:
                        self._learnt[stored] = made_up
                self._compared = sizes
            learnt = dict(self._learnt)
        if not learnt:
            return ids
        own = ids.copy()
        for stored, made_up in learnt.items():
            own[ids == stored] = made_up
        return own

    def find(self, text: str) -> int | None:
        """Id of a string known here or below, or None.

        Its own ids come first: the table below may learn a made-up string while the query runs, and the query
        must go on seeing one id for it.
        """
        known = self._ids.get(text)
        return known if known is not None else self._base.find(text)

    def intern(self, text: str) -> int:
        """Id of a string; unknown ones get an id of this overlay."""
        known = self.find(text)
        if known is not None:
            return known
        with self._lock:
            known = _OVERLAY_BASE + len(self._texts)
            self._texts.append(text)
            self._ids[text] = known
            return known

    def intern_many(self, texts: Iterable[str]) -> U32Array:
        """Ids of many strings, u32[N]."""
        return np.array([self.intern(text) for text in texts], dtype=np.uint32)

    def text(self, symbol: int) -> str:
        """The string of an id of either table."""
        return self._texts[symbol - _OVERLAY_BASE] if symbol >= _OVERLAY_BASE else self._base.text(symbol)

    def texts(self, symbols: Sequence[int] | U32Array) -> list[str]:
        """Strings of many ids."""
        ordered = symbols.tolist() if isinstance(symbols, np.ndarray) else list(symbols)
        made_up = [i for i, symbol in enumerate(ordered) if symbol >= _OVERLAY_BASE]
        if not made_up:
            return self._base.texts(ordered)
        found = self._base.texts([0 if symbol >= _OVERLAY_BASE else symbol for symbol in ordered])
        for i in made_up:
            found[i] = self._texts[ordered[i] - _OVERLAY_BASE]
        return found

    @property
    def stored(self) -> SymbolTable:
        """The table below."""
        return self._base

    def regions(self) -> tuple[U8Array, I64Array]:
        """Those of the table below."""
        return self._base.regions()

    def are_stored(self, *ids: U32Array) -> bool:
        """Whether no id is of this overlay."""
        return not self._texts or all(int(part.max(initial=0)) < _OVERLAY_BASE for part in ids)
