"""The ring of exemplars: order, window, repetitions, limits."""

from __future__ import annotations

import random

from tsdb.columns import Exemplar
from tsdb.exemplar import ExemplarStore
from tsdb.labels import Labels


def exemplar(t_ms: int, value: float = 1.0, trace: str = "x", ref: int = 1) -> Exemplar:
    return Exemplar(ref, Labels((("trace_id", trace),)), value, t_ms)


def test_of_equal_times_the_larger_value_then_the_larger_labels_are_newer() -> None:
    store = ExemplarStore(10)
    given = [exemplar(5), exemplar(5, 2.0), exemplar(5, 2.0, "y"), exemplar(5, 1.5), exemplar(5, 2.0, "a")]
    stored, refused = store.add(given)
    assert (stored, refused) == (given[:3], [3, 4])


def test_within_the_window_older_ones_are_stored_in_their_place_and_not_twice() -> None:
    store = ExemplarStore(10, late_window_ms=100)
    store.add([exemplar(1000)])
    assert store.add([exemplar(901), exemplar(900), exemplar(901)]) == ([exemplar(901)], [1])
    assert store.select({1, 2}, 0, 2000) == {1: [exemplar(901), exemplar(1000)]}
    assert store.select({1}, 902, 999) == {}


def test_a_full_ring_drops_by_arrival_and_forgets_empty_series() -> None:
    store = ExemplarStore(2, late_window_ms=100)
    store.add([exemplar(50, ref=7), exemplar(1000), exemplar(950)])
    assert store.all() == [exemplar(1000), exemplar(950)]
    # The newest of the series went with the ring's oldest: what is left decides.
    assert store.add([exemplar(1, ref=7), exemplar(960)]) == ([exemplar(1, ref=7), exemplar(960)], [])
    assert store.select({1, 7}, 0, 2000) == {1: [exemplar(960)], 7: [exemplar(1, ref=7)]}


def test_a_smaller_ring_keeps_the_newest_and_none_keeps_nothing() -> None:
    store = ExemplarStore(10)
    store.add([exemplar(t) for t in range(5)])
    store.configure(2, 0)
    assert store.all() == [exemplar(3), exemplar(4)]
    store.configure(-1, 0)
    assert store.add([exemplar(9)]) == ([], [])
    assert len(store) == 0


def test_random_arrivals_agree_with_a_list() -> None:
    choose = random.Random(7)
    store = ExemplarStore(50, late_window_ms=20)
    ring: list[Exemplar] = []
    for _ in range(3000):
        new = exemplar(choose.randrange(200), float(choose.randrange(2)), ref=choose.randrange(3))
        own = [each for each in ring if each.ref == new.ref]
        newest = max(own, key=lambda each: (each.t_ms, each.value), default=new)
        late = new.t_ms <= newest.t_ms - 20 or (new.t_ms == newest.t_ms and new.value < newest.value)
        expected = [] if new in own or late else [new]
        assert store.add([new]) == (expected, [0] if late and new not in own else [])
        ring = (ring + expected)[-50:]
        assert store.all() == ring
        for ref in range(3):
            found = store.select({ref}, 0, 200).get(ref, [])
            assert sorted(found, key=lambda each: (each.t_ms, each.value)) == sorted(
                (each for each in ring if each.ref == ref), key=lambda each: (each.t_ms, each.value)
            )
            assert [each.t_ms for each in found] == sorted(each.t_ms for each in found)
