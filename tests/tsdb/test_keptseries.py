"""What selects found before is never what others see no more, and what is remembered of it is what is so."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tsdb.stores import HOUR, T0, Store, matcher, name
from tsdb.keptseries import ROWS_KEPT_MAX, ROWS_MAX, SELECTS_MAX, FoundSeries, KeptSeries, KeptUnions, united
from tsdb.labels import Labels, Matcher
from tsdb.serieslabels import MEMO_ENTRIES_MAX, SeriesLabels
from tsdb.symbols import OverlaySymbols, SymbolTable

MINUTE = 60_000
EVERY = matcher("__name__", "m")


def found(count: int) -> FoundSeries:
    labels = SeriesLabels.from_labels([name(i) for i in range(count)], SymbolTable())
    return FoundSeries(np.zeros(count, dtype=np.uint32), np.zeros(count, dtype=np.uint32), labels.kept())


def test_series_that_come_and_go_are_seen(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.fill(2, T0, 3, step=MINUTE)
    assert store.read(EVERY) == store.read(EVERY) == store.expected
    store.add([(name(5), T0 + 5 * MINUTE, 1.0)])
    assert store.read(EVERY) == store.expected
    assert set(store.read(EVERY, mint=T0 + 4 * MINUTE)) == {name(5)}
    store.db.head.truncate(T0 + 4 * MINUTE)
    assert set(store.read(EVERY)) == {name(5)}
    # The places of the series that are gone are taken by others now.
    store.add([(name(6, more="1"), T0 + 6 * MINUTE, 1.0), (name(7), T0 + 6 * MINUTE, 2.0)])
    assert set(store.read(EVERY)) == {name(5), name(6, more="1"), name(7)}
    assert set(store.read(matcher("i", "0"))) == set()
    store.db.close()


def test_only_what_is_asked_for_again_is_found_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    store.fill(3, T0, 2)

    def labels() -> SeriesLabels:
        return store.db.querier().select([EVERY], T0, T0 + HOUR).labels

    first = labels()
    assert labels().memo is first.memo is not None
    store.add([(name(9), T0 + MINUTE, 1.0)])
    assert labels().memo is not first.memo
    assert len(labels()) == 4
    store.db.close()


def test_another_generation_finds_nothing_and_room_is_bounded() -> None:
    kept, wanted = KeptSeries(), [matcher("i", "1")]
    kept.put(wanted, 7, found(3))
    assert kept.get(wanted, 7) is not None
    assert kept.get([matcher("i", "2")], 7) is None
    assert kept.get(wanted, 8) is None
    assert kept.get(wanted, 7) is None
    large = found(ROWS_MAX)
    keys = [[matcher("i", str(n))] for n in range(ROWS_KEPT_MAX // ROWS_MAX + 1)]
    for key in keys:
        kept.put(key, 1, large)
        kept.put(key, 1, large)
    assert [kept.get(key, 1) is not None for key in keys] == [False] + [True] * (len(keys) - 1)
    kept.get(keys[1], 1)
    kept.put(keys[0], 1, large)
    assert kept.get(keys[1], 1) is not None
    assert kept.get(keys[2], 1) is None
    nothing, few = found(0), KeptSeries()
    for n in range(SELECTS_MAX + 1):
        few.put([matcher("i", str(n))], 1, nothing)
    assert few.get([matcher("i", "0")], 1) is None
    assert few.get([matcher("i", str(SELECTS_MAX))], 1) is nothing


rows = st.lists(
    st.dictionaries(st.sampled_from(["__name__", "a", "b", "c"]), st.sampled_from(["x", "y", "zz"])),
    max_size=12,
    unique_by=lambda row: tuple(sorted(row.items())),
)
names = st.lists(st.sampled_from(["__name__", "a", "b", "unknown"]), max_size=2, unique=True)


def shown(value: Any) -> Any:
    """Arrays and label sets as lists, for comparing."""
    if isinstance(value, SeriesLabels):
        return value.rows()
    if isinstance(value, tuple):
        return [shown(part) for part in value]
    return value.tolist()


@settings(deadline=None, max_examples=50)
@given(rows, st.lists(st.tuples(names, st.booleans()), min_size=1, max_size=5), st.randoms())
def test_what_is_remembered_is_what_would_be_worked_out(
    made: list[dict[str, str]], asked: list[tuple[list[str], bool]], order: random.Random
) -> None:
    plain = SeriesLabels.from_labels([Labels.from_dict(row) for row in made], SymbolTable())
    kept = plain.kept()
    ways: list[Callable[[SeriesLabels], Any]] = [lambda s: s.in_order(), lambda s: s.column("a")]
    for chosen, flag in asked:
        ways += [
            lambda s, c=chosen, f=flag: s.filter_names(c, keep=f),
            lambda s, c=chosen, f=flag: s.filter_names(c, keep=f).in_order(),
            lambda s, c=chosen, f=flag: s.filter_names(c, keep=f).group_first_rows(),
            lambda s, c=chosen, f=flag: s.in_order()[1].filter_names(c, keep=f),
            lambda s, c=chosen, f=flag: s.group_ids(c, without=f),
        ]
    ways *= 3
    order.shuffle(ways)
    for way in ways:
        # Every query has symbols of its own, which must not outlive it.
        own = OverlaySymbols(plain.symbols)
        mine = SeriesLabels(kept.offsets, kept.name_ids, kept.value_ids, own, kept.memo)
        assert shown(way(mine)) == shown(way(plain))
    assert kept.memo is not None
    assert len(kept.memo) <= MEMO_ENTRIES_MAX


@pytest.mark.parametrize("way", ["column", "filter_names", "in_order"])
def test_symbols_of_a_query_are_not_remembered(way: str) -> None:
    plain = SeriesLabels.from_labels([name(2), name(1)], SymbolTable()).kept()
    own = OverlaySymbols(plain.symbols)
    mine = SeriesLabels(plain.offsets, plain.name_ids, plain.value_ids, own, plain.memo)
    {
        "column": lambda: mine.column("i"),
        "filter_names": lambda: mine.filter_names(["i"], keep=True),
        "in_order": lambda: mine.in_order(),
    }[way]()
    assert plain.memo
    pending: list[Any] = list(plain.memo.values())
    while pending:
        value = pending.pop()
        assert not isinstance(value, SeriesLabels | SymbolTable)
        pending.extend(value if isinstance(value, tuple) else ())


def test_matchers_are_told_apart_by_all_they_say() -> None:
    kept = KeptSeries()
    kept.put([Matcher(EVERY.type, "a", "b")], 0, found(1))
    assert kept.get([Matcher(EVERY.type, "b", "a")], 0) is None
    assert kept.get([Matcher(EVERY.type, "a", "b"), EVERY], 0) is None


def test_unions_are_given_again_while_their_parts_are_the_same() -> None:
    symbols, every = SymbolTable(), [[EVERY]]
    first, second, third = (
        SeriesLabels.from_labels([name(i) for i in numbers], symbols) for numbers in ((3, 1), (2, 3), (5,))
    )
    kept = KeptUnions()
    labels = kept.of(every, [first, second], symbols)
    assert labels.rows() == united([first, second], symbols).rows() == [name(1), name(2), name(3)]
    assert kept.of(every, [first, second], symbols) is labels
    assert kept.of([[matcher("i", "1")]], [first, second], symbols) is not labels
    for parts in ([second, first], [first], [first, second, third], [first, third]):
        assert kept.of(every, parts, symbols).rows() == united(parts, symbols).rows()
        assert kept.of(every, parts, symbols) is kept.of(every, parts, symbols)
    kept.clear()
    assert kept.of(every, [first, third], symbols).rows() == [name(1), name(3), name(5)]


def test_room_of_unions_is_bounded() -> None:
    symbols = SymbolTable()
    rows = [name(i) for i in range(ROWS_MAX + 1)]
    large, larger = (SeriesLabels.from_labels(rows[:count], symbols) for count in (ROWS_MAX, ROWS_MAX + 1))
    kept, keys = KeptUnions(), [[[matcher("i", str(n))]] for n in range(3)]
    found = [kept.of(key, [large], symbols) for key in keys[:2]]
    assert [kept.of(key, [large], symbols) for key in keys[:2]] == found
    assert kept.of(keys[2], [larger], symbols) is not kept.of(keys[2], [larger], symbols)
    assert kept.of(keys[2], [large] * 4, symbols) is not kept.of(keys[2], [large] * 4, symbols)
    assert kept.of(keys[0], [large], symbols) is found[0]
    kept.of(keys[2], [large], symbols)  # takes the room of what was not asked for last
    assert kept.of(keys[0], [large], symbols) is found[0]
    assert kept.of(keys[1], [large], symbols) is not found[1]


def test_series_of_head_and_blocks_are_told_as_they_are(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")

    def asked(limit: int = 0, mint: int = T0, maxt: int = T0 + 4 * HOUR) -> list[Labels]:
        """Asked twice: the second time it is remembered."""
        first, again = (store.db.querier().series([[EVERY]], mint, maxt, limit).rows() for _ in range(2))
        assert first == again
        return again

    store.fill(3, T0, 200, step=MINUTE)
    assert asked() == [name(0), name(1), name(2)]
    store.db.maintenance.compact_head()
    assert len(store.db.blocks()) > 0
    assert asked() == [name(0), name(1), name(2)]
    assert asked(limit=2) == [name(0), name(1)]
    store.add([(name(9), T0 + 201 * MINUTE, 1.0)])
    assert asked() == [name(0), name(1), name(2), name(9)]
    assert asked(mint=T0 + 201 * MINUTE) == [name(9)]
    assert asked(limit=3, maxt=T0 + HOUR) == [name(0), name(1), name(2)]
    assert asked(limit=9) == [name(0), name(1), name(2), name(9)]
    store.db.close()
