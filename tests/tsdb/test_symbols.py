"""Symbol ids stay what they were while a query uses them."""

from __future__ import annotations

from tsdb.symbols import OverlaySymbols, SymbolTable


def test_a_made_up_string_keeps_its_id_when_the_store_learns_it() -> None:
    base = SymbolTable()
    overlay = OverlaySymbols(base)
    made_up = overlay.intern("a-1")
    assert base.find("a-1") is None
    base.intern("a-1")
    assert overlay.find("a-1") == overlay.intern("a-1") == made_up
    assert overlay.text(made_up) == "a-1"


def test_known_strings_keep_the_store_s_id() -> None:
    base = SymbolTable()
    known = base.intern("job")
    overlay = OverlaySymbols(base)
    assert overlay.intern("job") == overlay.find("job") == known
    assert overlay.find("") == 0
