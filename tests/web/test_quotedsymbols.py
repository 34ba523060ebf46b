"""Quoted texts kept a symbol against quoting each time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdb.symbols import SymbolTable
from web import quotedsymbols
from web.quotedsymbols import QuotedSymbols, quoted_symbols

TEXTS = st.lists(st.text(max_size=8), min_size=1, max_size=20)


def quoted(kept: QuotedSymbols, ids: np.ndarray) -> list[str]:
    arena, spans = kept.of(ids)
    return [json.loads(arena[lo:hi].tobytes()) for lo, hi in spans[ids].tolist()]


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_every_text_is_quoted_whatever_came_before(calls: list[list[str]]) -> None:
    table = SymbolTable()
    kept = QuotedSymbols(table)
    for texts in calls:
        assert quoted(kept, table.intern_many(texts)) == texts


def test_full_room_is_emptied_and_arrays_given_out_stay_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotedsymbols, "KEPT_BYTES_MAX", 20_000)
    table = SymbolTable()
    kept = QuotedSymbols(table)
    first = table.intern_many([f"first-{n}" for n in range(1500)])
    arena, spans = kept.of(first)
    second = [f"second-{n}" for n in range(3000)]
    assert quoted(kept, table.intern_many(second)) == second
    assert [arena[lo:hi].tobytes() for lo, hi in spans[first[:3]].tolist()] == [
        b'"first-0"',
        b'"first-1"',
        b'"first-2"',
    ]
    assert quoted(kept, first[:2]) == ["first-0", "first-1"]


def test_a_table_has_one_set_of_quoted_texts() -> None:
    table = SymbolTable()
    assert quoted_symbols(table) is quoted_symbols(table)
    assert quoted_symbols(table) is not quoted_symbols(SymbolTable())
