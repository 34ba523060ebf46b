"""Distinct byte strings of records get the same numbers as a dictionary would give them."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.fields import interning
from agent.fields.interning import RowInterner
from agent.fields.vocabulary import Memo, NumberMemo, Vocabulary
from agent.kernels.intern import intern
from agent.probe.layout import HEADER
from agent.probe.ringbuffer import Batch
from security.columns import Dictionary
from tests.reference import intern as slow

PART = st.one_of(st.none(), st.binary(max_size=20))
KEY = st.tuples(st.tuples(st.integers(-(2**63), 2**63 - 1)), st.tuples(PART, PART))


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    intern.compile()


def batch_of(keys: list[slow.Key]) -> Batch:
    """Records whose slots 0 and 1 hold the keys' bytes."""
    data = b"".join(part or b"" for _, parts in keys for part in parts)
    offset, length = np.zeros((2, len(keys), 2), np.int32)
    at = 0
    for row, (_, parts) in enumerate(keys):
        for slot, part in enumerate(parts):
            offset[row, slot], length[row, slot] = at, -1 if part is None else len(part)
            at += len(part or b"")
    return Batch(np.frombuffer(data, np.uint8), np.zeros(len(keys), HEADER), offset, length)


def heads_of(keys: list[slow.Key]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array([list(numbers) for numbers, _ in keys], np.int64).reshape(len(keys), 1)


@settings(max_examples=60)
@given(st.lists(st.lists(KEY, max_size=30), max_size=4))
def test_equal_keys_have_equal_codes(batches: list[list[slow.Key]]) -> None:
    interner = RowInterner(Vocabulary(), (0, 1))
    known: dict[slow.Key, int] = {}
    made: list[Hashable] = []
    for keys in batches:
        # Some keys again, so that most are known already.
        keys = keys + keys[:5] + list(known)[:5]

        def make(row: int, keys: list[slow.Key] = keys) -> Hashable:
            made.append(keys[row])
            return keys[row]

        column = interner.column(batch_of(keys), heads_of(keys), make)
        expected = slow.intern(known, keys)
        assert [column.value(row) for row in range(len(keys))] == keys
        assert column.codes.tolist() == expected
    assert len(made) == len(known), "a value is made once"


def test_many_keys_need_a_larger_table() -> None:
    interner = RowInterner(Vocabulary(), (0, 1))
    keys: list[slow.Key] = [((number % 7,), (str(number).encode(), None)) for number in range(20_000)]
    for _ in range(2):
        column = interner.column(batch_of(keys), heads_of(keys), lambda row: keys[row])
        assert column.codes.tolist() == list(range(20_000))


def test_a_full_interner_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interning, "KEYS_LIMIT", 10)
    interner = RowInterner(Vocabulary(), (0, 1))
    for start in range(0, 100, 5):
        interner.begin_batch()
        keys: list[slow.Key] = [((0,), (str(number).encode(), b"")) for number in range(start, start + 5)]
        column = interner.column(batch_of(keys), heads_of(keys), lambda row, keys=keys: keys[row])  # type: ignore[misc]
        assert [column.value(row) for row in range(5)] == keys
    assert interner._count <= 10


def test_a_new_dictionary_forgets_the_codes_of_the_old_one() -> None:
    vocabulary = Vocabulary()
    memo, interner = Memo(vocabulary), RowInterner(vocabulary, (0, 1))
    keys: list[slow.Key] = [((0,), (b"a", None)), ((0,), (b"b", None))]
    numbers = np.array([3, 5, -1], np.int32)
    for _ in range(2):
        assert interner.column(batch_of(keys), heads_of(keys), lambda row: keys[row]).value(1) == keys[1]
        column = memo.column(numbers, lambda number: f"n{number}")
        assert [column.value(row) for row in range(3)] == ["n3", "n5", None]
        assert column.dictionary is vocabulary.dictionary
        vocabulary.dictionary = Dictionary(["something", "else"])


def test_numbers_grow_and_may_be_missing() -> None:
    memo = NumberMemo()
    for top in (4, 5000, 4):
        numbers = np.array([0, top, -1], np.int32)
        column = memo.column(numbers, lambda number: None if number == 0 else number * 2)
        assert [column.value(row) for row in range(3)] == [None, 2 * top, None]
