"""Codes of values that depend on bytes of the records: made once for each distinct byte string."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from agent.fields.vocabulary import Vocabulary
from agent.kernels.intern import EMPTY, LENGTH_BYTES, NUMBER_BYTES, intern
from agent.probe.ringbuffer import Batch
from security.columns import MISSING_CODE, Column

KEYS_LIMIT = 131_072
"""Distinct keys after which the next batch begins anew."""
ARENA_BYTES_LIMIT = 1 << 25
_TABLE_SIZE = 1 << 12
_Item = TypeVar("_Item", bound=np.generic)


class RowInterner:
    """The values of one field by what its records hold. One thread; `begin_batch` before each batch."""

    def __init__(self, vocabulary: Vocabulary, slots: tuple[int, ...]) -> None:
        """`slots` are those whose bytes, with the numbers given for each batch, determine the value."""
        self.vocabulary = vocabulary
        self._slots = np.array(slots, np.int64)
        # Unknown to the programs under watch, so that they cannot fill one place of the table.
        self._seed = secrets.randbits(63) | 1
        self._clear()

    def _clear(self) -> None:
        self._count = 0
        self._dictionary = self.vocabulary.dictionary
        self._table = np.full(_TABLE_SIZE, EMPTY, np.int32)
        self._arena = np.empty(1 << 16, np.uint8)
        self._starts = np.zeros(_TABLE_SIZE, np.int64)
        self._hashes = np.zeros(_TABLE_SIZE, np.uint64)
        self._codes = np.full(_TABLE_SIZE, MISSING_CODE, np.int32)

    def begin_batch(self) -> None:
        """Begin anew when there are too many keys."""
        if self._count >= KEYS_LIMIT or self._starts[self._count] >= ARENA_BYTES_LIMIT:
            self._clear()

    def column(self, batch: Batch, heads: NDArray[np.int64], make: Callable[[int], Hashable]) -> Column:
        """The column of a batch; `heads` is int64 (records, numbers), always with as many numbers.

        `make(row)` is asked once for each distinct key never seen before.
        """
        if self.vocabulary.dictionary is not self._dictionary:
            self._clear()
        numbers = np.empty(len(batch), np.int32)
        self._reserve(batch, heads.shape[1])
        before = self._count
        self._count = intern(
            batch.data,
            batch.offset,
            batch.length,
            self._slots,
            heads,
            self._seed,
            self._arena,
            self._starts,
            self._hashes,
            self._table,
            before,
            numbers,
        )
        if self._count > before:
            rows = np.flatnonzero(numbers >= before)
            fresh, first = np.unique(numbers[rows], return_index=True)
            for number, row in zip(fresh.tolist(), rows[first].tolist(), strict=True):
                self._codes[number] = self.vocabulary.code(make(row))
        return Column(self._codes[numbers], self._dictionary)

    def _reserve(self, batch: Batch, numbers: int) -> None:
        """Room for one key a record."""
        lengths = batch.length[:, self._slots]
        fixed = len(batch) * (NUMBER_BYTES * numbers + LENGTH_BYTES * len(self._slots))
        needed = int(self._starts[self._count]) + fixed + int(np.maximum(lengths, 0).sum(dtype=np.int64))
        if needed > len(self._arena):
            self._arena = _grown(self._arena, 2 * needed)
        keys = self._count + len(batch) + 1
        if keys >= len(self._starts):
            self._starts = _grown(self._starts, 2 * keys)
            self._hashes = _grown(self._hashes, 2 * keys)
            self._codes = _grown(self._codes, 2 * keys)
        if 2 * keys > len(self._table):
            self._rehash(1 << (2 * keys).bit_length())

    def _rehash(self, size: int) -> None:
        """A larger table with the same keys."""
        self._table = np.full(size, EMPTY, np.int32)
        mask = size - 1
        for number, place in enumerate((self._hashes[: self._count] & np.uint64(mask)).tolist()):
            while self._table[place] != EMPTY:
                place = (place + 1) & mask
            self._table[place] = number


def _grown(array: NDArray[_Item], size: int) -> NDArray[_Item]:
    grown = np.empty(size, array.dtype)
    grown[: len(array)] = array
    return grown
