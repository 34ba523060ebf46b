"""Symbol ids stay what they were while a query uses them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference.symbols import ReferenceSymbols, filled_table
from tsdb import symbols as symbols_module
from tsdb.kernels.symbols import fill_table
from tsdb.symbols import OverlaySymbols, SymbolTable


def test_a_made_up_string_keeps_its_id_when_the_store_learns_it() -> None:
    base = SymbolTable()
    overlay = OverlaySymbols(base)
    made_up = overlay.intern("a-1")
    assert base.find("a-1") is None
    base.intern("a-1")
    assert overlay.find("a-1") == overlay.intern("a-1") == made_up
    assert overlay.text(made_up) == "a-1"


def test_ids_that_the_store_gives_to_made_up_strings_are_turned_into_those_of_the_query() -> None:
    base = SymbolTable()
    job = base.intern("job")
    overlay = OverlaySymbols(base)
    given_ids = np.array([job, job], dtype=np.uint32)
    assert overlay.own_ids(given_ids) is given_ids
    made_up, other = overlay.intern("le"), overlay.intern("b")
    assert overlay.own_ids(given_ids) is given_ids
    learnt = base.intern("le")
    assert overlay.own_ids(np.array([job, learnt], dtype=np.uint32)).tolist() == [job, made_up]
    later = base.intern("b")
    assert overlay.own_ids(np.array([later, learnt], dtype=np.uint32)).tolist() == [other, made_up]


def test_known_strings_keep_the_store_s_id() -> None:
    base = SymbolTable()
    known = base.intern("job")
    overlay = OverlaySymbols(base)
    assert overlay.intern("job") == overlay.find("job") == known
    assert overlay.find("") == 0


texts = st.lists(
    st.one_of(st.text(max_size=40), st.sampled_from(["", "a", "job", "é", "\ud800", "x" * 17])), max_size=30
)


@settings(max_examples=150, deadline=None)
@given(st.lists(texts, max_size=8), st.booleans())
def test_ids_and_texts_are_those_of_a_dictionary(batches: list[list[str]], tiny_cache: bool) -> None:
    table, twin = SymbolTable((7, 9)), ReferenceSymbols()
    with pytest.MonkeyPatch.context() as patch:
        if tiny_cache:
            patch.setattr(symbols_module, "CACHE_TEXTS_LIMIT", 3)
        for batch in batches:
            assert table.intern_many(batch).tolist() == [twin.intern(text) for text in batch]
            for text in batch:
                assert table.find(text) == twin.find(text) == table.intern(text)
            assert table.find("never " + "".join(batch)) is None
    ids = list(twin.ids.values())
    assert len(table) == len(ids)
    assert table.texts(ids) == list(twin.ids)
    assert [table.text(symbol) for symbol in ids] == list(twin.ids)
    sizes = [len(text.encode("utf-8", "surrogatepass")) for text in twin.ids]
    assert table.byte_lengths(np.array(ids)).tolist() == sizes


def test_a_table_grows_far_beyond_its_first_arrays() -> None:
    table = SymbolTable()
    made = [f"value-{i}" for i in range(20_000)]
    ids = table.intern_many(made)
    assert ids.tolist() == list(range(1, 20_001))
    assert table.texts(ids) == made
    assert table.find("value-19999") == 20_000
    assert table.memory_bytes() < 25 * 20_000


@pytest.mark.parametrize("symbol", [3, -1, 2**31])
def test_an_id_that_was_never_given_is_an_index_error(symbol: int) -> None:
    table = SymbolTable()
    table.intern("a")
    with pytest.raises(IndexError):
        table.text(symbol)
    with pytest.raises(IndexError):
        table.texts([0, symbol])


def test_readers_see_every_id_they_were_given_while_a_writer_adds() -> None:
    table = SymbolTable()
    wrong: list[str] = []
    known: list[int] = [0]
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            last = known[-1]
            text = table.text(last)
            if last and (
                text != f"t{last}" or table.texts([last, 0]) != [text, ""] or table.find(text) != last
            ):
                wrong.append(text)

    reader = threading.Thread(target=read)
    reader.start()
    known.extend(table.intern(f"t{i}") for i in range(1, 5000))
    done.set()
    reader.join()
    assert wrong == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40), unique=True, max_size=31), st.integers(0, 2**64 - 1))
def test_a_table_is_filled_as_by_its_slow_twin(found: list[bytes], seed: int) -> None:
    arena = np.frombuffer(b"".join(found), dtype=np.uint8).copy()
    bounds = np.cumsum([0, 0, *(len(text) for text in found)]).astype(np.int64)
    slots, tags = np.zeros(32, dtype=np.uint32), np.zeros(32, dtype=np.uint8)
    fill_table(np.uint64(seed), np.uint64(7), arena, bounds, len(found) + 1, slots, tags)
    assert (slots.tolist(), tags.tolist()) == filled_table(found, (seed, 7), 32)
