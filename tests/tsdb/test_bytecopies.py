"""Kernels that copy runs of bytes, beside Python's slices."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdb.kernels.headread import OPEN_CHUNK, gather_bytes, place_chunks
from tsdb.kernels.promchunks import copy_frames

Runs = tuple[bytes, list[tuple[int, int]], list[int]]


@st.composite
def runs(draw: st.DrawFn) -> Runs:
    """A source, runs (start, length) of it that may be empty or overlap, and gaps between their places."""
    source = draw(st.binary(max_size=90))
    count = draw(st.integers(0, 6))
    found = []
    for _ in range(count):
        start = draw(st.integers(0, len(source)))
        found.append((start, draw(st.integers(0, len(source) - start))))
    return source, found, draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))


def arranged(given_runs: Runs) -> tuple[list[np.ndarray], bytes]:
    """The kernels' arrays, and what the slices give: bytes between the runs stay 0xEE."""
    source, found, gaps = given_runs
    want, targets = bytearray(), []
    for (start, length), gap in zip(found, gaps, strict=True):
        want += bytes([0xEE] * gap)
        targets.append(len(want))
        want += source[start : start + length]
    starts, lengths = ([run[part] for run in found] for part in range(2))
    columns = [np.array(column, dtype=np.int64) for column in (starts, lengths, targets)]
    return [np.frombuffer(source, dtype=np.uint8).copy(), *columns], bytes(want)


@settings(max_examples=200, deadline=None)
@given(runs(), st.integers(0, 1 << 62), st.booleans())
def test_gathered_runs_are_those_of_slices(given_runs: Runs, origin: int, others: bool) -> None:
    (source, starts, lengths, targets), want = arranged(given_runs)
    end = origin + len(source) + 1
    chunks = np.stack([starts + origin, lengths], axis=1)
    if others:
        # Chunks just before and after the source belong to other ones.
        chunks = np.concatenate([[[origin - 1, 5]], chunks, [[end, 5]]])
        targets = np.concatenate([[0], targets, [0]])
    out = np.full(len(want), 0xEE, dtype=np.uint8)
    gather_bytes(source, chunks, targets, origin, end, out)
    assert out.tobytes() == want


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 200), st.booleans()), max_size=6))
def test_chunks_are_placed_one_after_the_other_unless_all_are_open(
    listed: list[tuple[int, int, bool]],
) -> None:
    chunks = [[at + (OPEN_CHUNK if is_open else 0), length] for at, length, is_open in listed]
    lengths, closed = [length for _, length, _ in listed], [at for at, _, is_open in listed if not is_open]
    starts, found = np.empty((2, len(listed)), dtype=np.int64), np.empty(3, dtype=np.int64)
    place_chunks(np.array(chunks, dtype=np.int64).reshape(-1, 2), *starts, found)
    places = [sum(lengths[:i]) for i in range(len(lengths))] if closed else [at for at, _, _ in listed]
    assert starts.tolist() == [places, lengths]
    assert found.tolist()[::2] == [sum(lengths), max(closed, default=-1)]
    if closed:
        assert found[1] == min(closed)


@settings(max_examples=200, deadline=None)
@given(runs())
def test_copied_frames_are_those_of_slices(given_runs: Runs) -> None:
    (segment, starts, lengths, targets), want = arranged(given_runs)
    out = np.full(len(want), 0xEE, dtype=np.uint8)
    copy_frames(segment, starts, lengths, out, targets)
    assert out.tobytes() == want
