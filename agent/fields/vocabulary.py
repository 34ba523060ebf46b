"""Dictionaries that live over many batches, and the codes of values that were made once for each number.

A number stands for a state of a process, a line of ancestors, a text of the ring. What a rule asks of it is
worked out when it first appears; later events with it cost one look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from security.columns import MISSING_CODE, Column, Dictionary, NumberColumn

VALUES_LIMIT = 131_072
"""Values of a dictionary after which the next batch begins a new one."""
CHARACTERS_LIMIT = 1 << 24
"""The same for the lengths of all its texts together."""
_UNKNOWN = -2


class Vocabulary:
    """A dictionary that is begun anew, between batches only, when it has become too large."""

    __slots__ = ("characters_count", "dictionary")

    def __init__(self) -> None:
        self.dictionary = Dictionary()
        self.characters_count = 0

    @property
    def full(self) -> bool:
        """Whether the next batch must begin a new one."""
        return len(self.dictionary) >= VALUES_LIMIT or self.characters_count >= CHARACTERS_LIMIT

    def code(self, value: Hashable) -> int:
        """The number of a value; None is MISSING_CODE."""
        known = len(self.dictionary)
        code = self.dictionary.code(value)
        if code == known and isinstance(value, (str, bytes)):
            self.characters_count += len(value)
        return code


class Memo:
    """Codes by number. Number -1 has no value."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._dictionary = vocabulary.dictionary
        self._codes = _table(1024)

    def column(self, numbers: NDArray[np.int32], make: Callable[[int], Hashable]) -> Column:
        """The column of a batch; `make` is asked once for each number never seen before."""
        if self.vocabulary.dictionary is not self._dictionary:
            self.clear()
        top = int(numbers.max(initial=-1)) + 1
        if top >= len(self._codes):
            self._codes = np.concatenate([self._codes[:-1], _table(2 * top)[len(self._codes) - 1 :]])
        codes = self._codes[numbers]
        fresh = numbers[codes == _UNKNOWN]
        if len(fresh):
            for number in np.unique(fresh).tolist():
                self._codes[number] = self.vocabulary.code(make(number))
            codes = self._codes[numbers]
        return Column(codes, self._dictionary)

    def clear(self) -> None:
        """Forget all: the numbers mean something else from now on, or the dictionary is new."""
        self._dictionary = self.vocabulary.dictionary
        self._codes[:-1] = _UNKNOWN


class NumberMemo:
    """Integers by number; None stands for a missing one."""

    def __init__(self) -> None:
        self._values: NDArray[np.int64] = np.zeros(1024, np.int64)
        self._states = _table(1024)

    def column(self, numbers: NDArray[np.int32], make: Callable[[int], int | None]) -> NumberColumn:
        """The column of a batch; `make` is asked once for each number never seen before."""
        top = int(numbers.max(initial=-1)) + 1
        if top >= len(self._states):
            self._states = np.concatenate([self._states[:-1], _table(2 * top)[len(self._states) - 1 :]])
            self._values = np.concatenate([self._values, np.zeros(len(self._states), np.int64)])
        states = self._states[numbers]
        fresh = numbers[states == _UNKNOWN]
        if len(fresh):
            for number in np.unique(fresh).tolist():
                value = make(number)
                self._states[number] = MISSING_CODE if value is None else 0
                self._values[number] = 0 if value is None else value
            states = self._states[numbers]
        present = states == 0
        return NumberColumn(self._values[numbers], None if present.all() else present)

    def clear(self) -> None:
        """Forget all: the numbers mean something else from now on."""
        self._states[:-1] = _UNKNOWN


def _table(size: int) -> NDArray[np.int32]:
    """Codes not yet known; the last place, which index -1 reaches, is that of a missing value."""
    codes = np.full(size + 1, _UNKNOWN, np.int32)
    codes[-1] = MISSING_CODE
    return codes


class Lasting:
    """Dictionaries by field, and memos by what their numbers stand for. One thread."""

    def __init__(self) -> None:
        self._vocabularies: dict[Any, Vocabulary] = {}
        self._memos: dict[str, dict[Any, Memo | NumberMemo]] = {}
        self.renewals_count = 0
        """Dictionaries that became too large and were begun anew."""

    def vocabulary(self, key: Hashable) -> Vocabulary:
        """The dictionary of a field: one for all types of events, since rules keep answers by dictionary."""
        found = self._vocabularies.get(key)
        if found is None:
            found = self._vocabularies[key] = Vocabulary()
        return found

    def memo(self, kind: str, key: Hashable) -> Memo:
        """The memo of a text field over numbers of a kind."""
        memos = self._memos.setdefault(kind, {})
        found = memos.get(key)
        if found is None:
            found = memos[key] = Memo(self.vocabulary(key))
        assert isinstance(found, Memo)
        return found

    def number_memo(self, kind: str, key: Hashable) -> NumberMemo:
        """The memo of a number field over numbers of a kind."""
        memos = self._memos.setdefault(kind, {})
        found = memos.get(key)
        if found is None:
            found = memos[key] = NumberMemo()
        assert isinstance(found, NumberMemo)
        return found

    def clear(self, kind: str) -> None:
        """Numbers of a kind are given out anew."""
        for memo in self._memos.get(kind, {}).values():
            memo.clear()

    def begin_batch(self) -> None:
        """Begin new dictionaries where the old ones are full; no column of an earlier batch may be in use."""
        for vocabulary in self._vocabularies.values():
            if vocabulary.full:
                self.renewals_count += 1
                vocabulary.dictionary, vocabulary.characters_count = Dictionary(), 0
