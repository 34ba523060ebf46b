"""Captures that somebody damaged: never a crash, never a hang, never more memory than the file deserves."""

from __future__ import annotations

import io
import time
import tracemalloc
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.capture.blocks import LIST_BYTES_LIMIT, open_capture
from security.capture.cursor import CaptureError
from security.capture.eventtable import event_table
from security.capture.source import Capture
from security.engine import RuleEngine
from security.fields.table import field_table
from security.rules.index import RuleSet
from security.rules.loader import RuleLoader
from tests.security.capturebuilder import block, event, section, thread
from tests.security.captureexpectations import CAPTURES

_RULE = """
- rule: everything
  desc: asks for a field of each kind
  condition: >
    evt.type != mount and (proc.name exists or proc.aname contains a or fd.name exists or fd.net = 127.0.0.1/8
    or evt.arg.flags contains O_ or container.id exists or proc.duration > 5 or fs.path.name startswith /)
  output: >
    %evt.args %evt.info %proc.cmdline %proc.aname %proc.env %fd.name %fd.lip %fd.rport %user.name
    %thread.cap_effective
    %container.mounts %fs.path.target %evt.category %proc.sname %evt.buffer %fd.containername %evt.abspath
  priority: DEBUG
"""


@cache
def rules() -> RuleSet:
    loader = RuleLoader()
    assert loader.load_text("everything.yaml", _RULE).successful
    return loader.rules


def consume(data: bytes) -> int:
    """Read a capture to its end or fault with a rule that looks everywhere; gives the number of events."""
    judge = RuleEngine(rules())
    capture = Capture(io.BytesIO(data))
    with suppress(CaptureError):
        for batch in capture.batches(512):
            judge.process(batch)
    return capture.events_count


@cache
def reference(name: str) -> bytes:
    if not CAPTURES.is_dir():
        pytest.skip(f"no reference data at {CAPTURES}")
    with open_capture(str(CAPTURES / name)) as stream:
        return stream.read()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_damaged_reference_captures(data: st.DataObject) -> None:
    whole = bytearray(reference(data.draw(st.sampled_from(["cat_write.scap", "ping_sendto.scap"]))))
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(28, len(whole) - 5))
        whole[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    end = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    consume(bytes(whole[:end]))


_CODES = st.sampled_from(sorted(event_table()))
_EVENTS = st.builds(
    lambda code, tid, values, old, time_ns: event(code, tid, *values, old=old, time_ns=time_ns),
    st.one_of(_CODES, st.integers(0, 1000)),
    st.integers(1, 4),
    st.lists(st.binary(max_size=24), max_size=24),
    st.booleans(),
    st.integers(0, (1 << 63) - 1),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_EVENTS, max_size=30))
def test_events_with_any_bytes_as_parameters(events: list[bytes]) -> None:
    consume(section() + thread(1, "a", 2) + thread(2, "b", 1) + b"".join(events))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([0x201, 0x202, 0x203, 0x205, 0x206, 0x209, 0x212, 0x215, 0x218, 0x219, 0x220, 0x222]),
    st.binary(max_size=200),
)
def test_lists_of_any_bytes(kind: int, body: bytes) -> None:
    consume(section() + block(kind, body) + event(5, 1, 0, 3))


def test_every_column_of_damaged_events_can_be_made() -> None:
    values = [bytes([1 + place % 7]) * (place % 9) for place in range(32)]
    events = [event(code, 1, *values) for code, spec in event_table().items() if spec.direction != ">"]
    [batch] = Capture(io.BytesIO(section() + thread(1, "a", 0) + b"".join(events))).batches()
    for info in field_table("syscall").fields.values():
        for argument in ("0", "3", "name") if info.argument_allowed else (None,):
            if argument == "name" and "i" in info.flags and "k" not in info.flags:
                continue
            column = batch.column((info.name, argument))
            if column is not None:
                assert [column.value(row) for row in range(batch.count)]


def test_a_length_that_lies_takes_no_memory() -> None:
    claim = (
        section() + (0x215).to_bytes(4, "little") + (LIST_BYTES_LIMIT - 16).to_bytes(4, "little") + b"x" * 100
    )
    tracemalloc.start()
    consume(claim)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


def test_many_forks_with_many_descriptors_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("security.capture.state.DESCRIPTORS_LIMIT", 1_000)
    monkeypatch.setattr("security.capture.state.THREADS_LIMIT", 50)
    opened = [event(307, 1, number, -100, "/x", 1, 0) for number in range(3, 303)]
    forks = [
        event(223, 1, tid, "a", (), 1, 1, 0, "/", 1, 0, 0, 1, 1, 1, "a", (), 0, 0, 0, 1, 1)
        for tid in range(2, 99)
    ]
    capture = Capture(io.BytesIO(section() + thread(1, "a", 0) + b"".join((*opened, *forks))))
    assert sum(batch.count for batch in capture.batches()) == 397
    assert len(capture.state) == 50
    assert capture.state.left_out > 0


def test_a_long_chain_of_parents_costs_little() -> None:
    chain = b"".join(thread(tid, "p", tid - 1) for tid in range(1, 2_000))
    events = b"".join(event(5, 1_999, 0, 3, time_ns=time) for time in range(2_000))
    began = time.process_time()
    assert consume(section() + chain + events) == 2_000
    assert time.process_time() - began < 20


def test_texts_of_threads_and_descriptors_have_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("security.capture.state.CHARACTERS_LIMIT", 10_000)
    threads = [thread(tid, "p", 1, environment=("A=" + "x" * 998,)) for tid in range(2, 22)]
    opened = [event(307, 2, number, -100, "/" + "y" * 999, 1, 0) for number in range(3, 23)]
    closed = [event(5, 2, 0, number) for number in range(3, 23)]
    capture = Capture(io.BytesIO(section() + b"".join((*threads, *opened, *closed, event(186, 2, 0)))))
    assert sum(batch.count for batch in capture.batches()) == 41
    assert 8 <= len(capture.state) <= 9
    assert capture.left_out_count > 20
    again = Capture(io.BytesIO(section() + b"".join((*threads[:2], *opened[:7] * 9, *closed * 9))))
    assert sum(batch.count for batch in again.batches()) == 7 * 9 + 20 * 9
    assert again.left_out_count == 0


def test_entries_of_calls_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("security.capture.events.ENTRIES_LIMIT", 4)
    entries = [event(4, tid, 3) for tid in range(1, 8)]
    long = event(102, 9, -100, "x" * 20_000, 1, 0)
    capture = Capture(io.BytesIO(section() + b"".join((*entries, long, event(103, 9, 3)))))
    [batch] = capture.batches()
    assert (batch.count, capture.left_out_count) == (1, 5)


def test_a_batch_has_a_limit_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("security.capture.source.BATCH_BYTES", 1_000)
    events = [event(9, 1, 1, b"x" * 300, 3, 1) for _ in range(6)]
    capture = Capture(io.BytesIO(section() + b"".join(events)))
    assert [batch.count for batch in capture.batches()] == [3, 3]


def test_long_texts_and_descriptions_are_refused() -> None:
    with pytest.raises(CaptureError, match="comm of 5000 bytes is over the limit of 4096 at byte"):
        list(Capture(io.BytesIO(section() + thread(1, "c" * 5_000))).batches())
    text = b'{"container":{"id":"' + b"a" * 300_000 + b'"}}\0'
    capture = Capture(io.BytesIO(section() + event(324, 1, text, large=True) + event(5, 1, 0)))
    assert [batch.count for batch in capture.batches()] == [1]
    assert (capture.state.containers, capture.left_out_count) == ({}, 1)
