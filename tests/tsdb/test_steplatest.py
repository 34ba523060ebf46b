"""What a look back from steps finds is the same with the samples left out that no step finds."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tsdb.stores import HOUR, T0, Store, name
from tests.tsdb.test_sharedread import blocks_of, joined, parts
from tsdb import sharedread
from tsdb.kernels import steplatest as kernels
from tsdb.select import LookBack, SampleBatch, shared_rows_of

lookbacks = st.builds(
    LookBack, st.integers(-200, 2000), st.sampled_from([1, 7, 100, 400]), st.integers(1, 60),
    st.sampled_from([1, 50, 300, 1500]),
)  # fmt: skip
vectors = st.lists(st.sets(st.integers(0, 2500), max_size=40).map(sorted), max_size=4)


def found(t_ms: list[int], steps: LookBack) -> list[int]:
    """Which of a row's samples steps find: the slow twin."""
    places = set()
    for k in range(steps.steps):
        end = steps.first_ms + k * steps.step_ms
        inside = [i for i, t in enumerate(t_ms) if end - steps.lookback_ms < t <= end]
        places.update(inside[-1:])
    return sorted(places)


@settings(max_examples=200, deadline=None)
@given(vectors=vectors, steps=lookbacks, cut=st.integers(0, 3))
def test_picks_are_those_of_the_slow_twin(vectors: list[list[int]], steps: LookBack, cut: int) -> None:
    ends = np.cumsum([0, *map(len, vectors)]).astype(np.int64)
    t_ms = np.array([t for vector in vectors for t in vector], dtype=np.int64)
    lo = np.minimum(ends[:-1] + cut, ends[1:])
    picks, offsets = np.zeros(len(t_ms), dtype=np.int64), np.zeros(len(ends), dtype=np.int64)
    count = kernels.pick_latest(t_ms, lo, ends[1:].copy(), *steps, offsets, picks)
    want = [
        [int(first) + i for i in found(vector[cut:], steps)]
        for first, vector in zip(lo, vectors, strict=True)
    ]
    assert [picks[a:b].tolist() for a, b in itertools.pairwise(offsets)] == want
    assert count == offsets[-1]
    if count:
        assert (
            kernels.pick_latest(t_ms, lo, ends[1:].copy(), *steps, offsets, picks[: count - 1].copy()) == -1
        )


@settings(max_examples=200, deadline=None)
@given(rows=vectors, steps=lookbacks, last_ms=st.integers(-1, 20))
def test_kept_samples_are_those_of_the_slow_twin(
    rows: list[list[int]], steps: LookBack, last_ms: int
) -> None:
    ends = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    t_ms = np.array([t for row in rows for t in row], dtype=np.int64)
    offsets, out_t, bits = np.zeros_like(ends), np.zeros_like(t_ms), np.zeros_like(t_ms)
    count = kernels.keep_latest(ends, t_ms, t_ms * 3, *steps, last_ms, offsets, out_t, bits)
    if any(row and row[0] <= last_ms for row in rows):
        assert count == -1
        return
    want = [[row[i] for i in found(row, steps)] for row in rows]
    assert [out_t[a:b].tolist() for a, b in itertools.pairwise(offsets)] == want
    assert bits[:count].tolist() == [3 * t for row in want for t in row]
    assert count == offsets[-1]


def latest(samples: SampleBatch, steps: LookBack) -> list[list[int | None]]:
    """Bits of what each step finds of each row."""
    bits, cells = samples.values.view(np.uint64), []
    for a, b in zip(samples.offsets[:-1].tolist(), samples.offsets[1:].tolist(), strict=True):
        row: list[int | None] = []
        for k in range(steps.steps):
            end = steps.first_ms + k * steps.step_ms
            inside = [i for i in range(a, b) if end - steps.lookback_ms < samples.t_ms[i] <= end]
            row.append(int(bits[inside[-1]]) if inside else None)
        cells.append(row)
    return cells


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blocks=parts(),
    span=st.tuples(st.integers(-5, 2500), st.integers(0, 3000)),
    steps=lookbacks,
    data=st.data(),
)
def test_steps_find_the_same_in_rows_of_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    blocks: list,  # type: ignore[type-arg]
    span: tuple[int, int],
    steps: LookBack,
    data: st.DataObject,
) -> None:
    opened = blocks_of(tmp_path_factory.mktemp("blocks"), blocks)
    selection = joined(opened, span[0], sum(span))
    assert selection is not None
    reader = shared_rows_of(selection)
    assert reader is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharedread, "PICKED_PART", 1)
        picked = reader.looking_back(steps)
    count = len(selection.labels)
    lo = data.draw(st.integers(0, count))
    for first, last in ((0, count), (lo, count)):
        whole, part = reader.read(first, last), picked.read(first, last)
        assert whole is not None
        assert part is not None
        assert latest(part.batch(), steps) == latest(whole.batch(), steps)
        times = [
            whole.batch().t_ms[a:b].tolist() for a, b in zip(whole.offsets, whole.offsets[1:], strict=False)
        ]
        assert len(part.values) <= sum(map(len, times))


def test_steps_find_the_same_in_blocks_and_head(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add([(name(7), T0 + 5 * k * 1000, k / 10) for k in range(300)])
    store.fill(3, T0, 150, step=60_000)
    store.db.maintenance.cut_head(T0 + 2 * HOUR)
    store.add([(name(i), T0 + 3 * HOUR + k * 1000, k - 0.5) for k in range(300) for i in (1, 7, 9)])
    selection = store.db.querier().select((), T0 + 30_000, T0 + 4 * HOUR)
    reader = shared_rows_of(selection)
    assert reader is not None
    count = len(selection.labels)
    for step_ms, lookback_ms in ((600_000, 300_000), (240_000, 900_000), (1_000_000, 20_000)):
        steps = LookBack(T0 + 100_000, step_ms, 20 * 600_000 // step_ms, lookback_ms)
        picked = reader.looking_back(steps)
        assert picked is not reader
        for lo, hi in ((0, count), (1, 3), (count - 1, count)):
            whole, part = reader.read(lo, hi), picked.read(lo, hi)
            assert whole is not None
            assert part is not None
            assert len(part.values) < len(whole.values) / 2
            assert latest(part.batch(), steps) == latest(whole.batch(), steps)
            assert picked.read_values(lo, hi) is not None
    every = LookBack(T0, 1_000, 4 * 3600, 300_000)
    assert reader.looking_back(every) is reader
    store.db.close()
