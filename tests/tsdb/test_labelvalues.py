"""Values of one label against a dictionary of sets."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from tsdb import labelvalues
from tsdb.labelvalues import LabelValues

values = st.integers(0, 30)
refs = st.lists(st.integers(1, 60), min_size=1, max_size=4, unique=True)
steps = st.lists(
    st.one_of(st.tuples(values, refs), st.sets(st.integers(1, 60), max_size=20)), min_size=1, max_size=30
)


@settings(max_examples=300, deadline=None)
@given(steps, st.sets(values), st.sets(st.integers(1, 60)), st.booleans(), st.booleans(), st.integers(1, 8))
def test_values_are_those_of_a_dictionary(script, wanted, some, keeps_all, sorts_at_once, few):
    label, twin = LabelValues(), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labelvalues, "FEW", few)
        if sorts_at_once:
            patch.setattr(labelvalues, "RECENT_FLOOR", 1)
        for step in script:
            if isinstance(step, set):
                epoch = label.epoch
                label.remove(BitMap(step))
                left = {value: held - step for value, held in twin.items()}
                lost = [value for value, held in left.items() if not held]
                twin = {value: held for value, held in left.items() if held}
                assert (label.epoch > epoch) == bool(lost)
            else:
                value, held = step
                label.add(value, array("I", held))
                if label.any is not None:
                    label.any.update(held)
                twin.setdefault(value, set()).update(held)
            if keeps_all:
                assert set(label.all()) == set().union(*twin.values())
    assert label.order.tolist() == list(twin)
    assert len(label) == len(twin)
    for value in range(31):
        assert set(label.of(value)) == twin.get(value, set())
    rows = list(zip(*(column.tolist() for column in label.few()), strict=True))
    assert len(rows) == len(set(rows))
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    found = {value: set(held) for value, held in label.many.items()}
    assert not set(found) & {value for value, _ in rows}
    for value, ref in rows:
        found.setdefault(value, set()).add(ref)
    assert found == twin
    counted = dict(zip(*(column.tolist() for column in label.counts()), strict=True))
    assert counted == {value: len(held) for value, held in twin.items()}
    for value in range(31):
        assert set(label.of(value)) == twin.get(value, set())
    known = sorted(wanted & set(twin))
    assert set(label.union(array("I", known))) == set().union(*(twin[value] for value in known))
    assert set(label.union()) == set(label.all()) == set().union(*twin.values())
    met = sorted(value for value, held in twin.items() if held & some)
    assert sorted(label.meeting(BitMap(some))) == met
    assert label.meets(BitMap(some)) == bool(met)


def test_a_value_of_one_series_takes_a_few_bytes():
    label = LabelValues()
    for value in np.random.default_rng(1).permutation(50_000).tolist():
        label.add(value, array("I", [value]))
    label.few()
    columns = (label.order, label._values, label._refs)
    assert sum(column.buffer_info()[1] * column.itemsize for column in columns) == 12 * 50_000
    assert not label.many
