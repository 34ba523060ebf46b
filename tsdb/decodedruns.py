"""Values of joined series that are asked for again, kept decoded.

A dashboard asks for the same series every few seconds, and decoding them takes longer than all else that is
done with some 10,000 samples. What blocks have of a selection is kept whole, from the second time on that
most of it is read: a question that is asked once leaves nothing behind. Of larger selections decoding is a
smaller part, and a few of them would fill what there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tsdb import page
from tsdb.blockcache import BlockCache, CachePart
from tsdb.blockjoin import JoinedRuns
from tsdb.columnsfile import FLOATS
from tsdb.errors import CorruptionError, NotAtOnceError

U8Array = npt.NDArray[np.uint8]
U64Array = npt.NDArray[np.uint64]

DECODED_BYTES = 32 << 20
SAMPLES_MAX = 1 << 19
"""Samples of a selection that is kept, 4 MiB."""

DECODED_AT_ONCE_MAX = 1 << 16
PAGES_AT_ONCE_MAX = 64
"""Samples that are decoded and pages that are looked into by a thread that must not wait: a few hundred
microseconds. To find a stream in a page takes a look at the header of each one before it."""


class PageSource(Protocol):
    """The pages of a block."""

    def page(self, kind: int, number: int, at_once: bool = False) -> U8Array:
        """A page before compression. Raises CorruptionError; NotAtOnceError for one that would have to be
        read first."""
        ...

    def where(self, kind: int, number: int) -> str:
        """How messages name a page."""
        ...


def _nbytes(bits: U64Array) -> int:
    return bits.nbytes


class DecodedRuns:
    """Any thread. `cache` has the budget and counts."""

    def __init__(self, limit: int = DECODED_BYTES) -> None:
        """`limit` in bytes; 0 keeps nothing."""
        self.cache = BlockCache(limit)
        self._bits: CachePart[tuple[object, ...], U64Array] = self.cache.part(_nbytes)

    def of(
        self, runs: JoinedRuns, sources: Sequence[PageSource], wanted: int, at_once: bool
    ) -> U64Array | None:
        """All values of the runs, run k from `runs.starts[k]` on; None where they are not kept and reading
        `wanted` samples of them is no reason to. `at_once` is for a thread that must not wait."""
        total = int(runs.starts[-1])
        if not runs.key or total > SAMPLES_MAX or 2 * wanted < total:
            return None
        if not runs.was_read:
            runs.was_read = True
            return None

        def decode() -> U64Array:
            if at_once and (total > DECODED_AT_ONCE_MAX or len(runs.pages) > PAGES_AT_ONCE_MAX):
                raise NotAtOnceError(f"{total} samples of {len(runs.pages)} pages are to be decoded")
            return _decode(runs, sources, at_once)

        try:
            return self._bits.get(runs.key, decode)
        except (CorruptionError, NotAtOnceError):
            return None  # whoever reads what is wanted may do without the page, or says so

    def clear(self) -> None:
        """Forget everything: blocks were replaced."""
        self._bits.clear()


def _decode(runs: JoinedRuns, sources: Sequence[PageSource], at_once: bool) -> U64Array:
    out = np.empty(int(runs.starts[-1]), dtype=np.uint64)
    order = runs.order
    streams, starts, lengths = runs.stream[order], runs.starts[order], runs.length[order]
    begins, ends = runs.page_rows[2:].tolist()
    for (source, number), a, b in zip(runs.pages, begins, ends, strict=True):
        columns = sources[source]
        raw = columns.page(FLOATS, number, at_once)
        where = columns.where(FLOATS, number)
        page.decode_into(raw, streams[a:b], starts[a:b], lengths[a:b], out, True, where)
    return out
