"""The wire form of event records: what is written is read back, and nothing else is."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.record import RECORD_BYTES_LIMIT, EventRecord, InvalidRecordError, clean_output
from security.rules.items import PRIORITIES
from tests.security.records import record

_scalars = st.one_of(st.none(), st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.text(max_size=20))


@given(
    st.sampled_from(PRIORITIES),
    st.integers(0, (1 << 63) - 1),
    st.text(max_size=50),
    st.dictionaries(st.text(min_size=1, max_size=10), st.one_of(_scalars, st.lists(_scalars, max_size=3))),
)
def test_a_record_comes_back_as_it_was(
    priority: str, time_ns: int, message: str, fields: dict[str, Any]
) -> None:
    before = record(priority=priority, time_ns=time_ns, message=message, fields=fields, pod="web-1")
    line = before.to_wire()
    assert b"\n" not in line
    assert EventRecord.from_wire(line) == before


def test_texts_that_are_not_utf8_are_replaced_before_they_travel() -> None:
    dirty = record(message="a\udcffb", fields={"fd.name": "/x\udc80", "n": 1 << 70, "l": ["\udcff"]})
    clean = clean_output(dirty.output)
    assert clean.message == "a\ufffdb"
    assert clean.fields == {"fd.name": "/x\ufffd", "n": str(1 << 70), "l": ["\ufffd"]}
    assert EventRecord.from_wire(dirty.to_wire()).output == clean


def changed(**changes: Any) -> bytes:
    wire = {**orjson.loads(record().to_wire()), **changes}
    return orjson.dumps({key: value for key, value in wire.items() if value is not ...}, default=str)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "invalid record"),
        (b"[]", "invalid record"),
        (b'{"v":1', "invalid record"),
        (changed(v=2), "v: Input should be 1"),
        (changed(surprise=1), "surprise: Extra inputs"),
        (changed(rule=""), "rule: String should have at least 1 character"),
        (changed(rule="r" * 1025), "rule: String should have at most 1024 characters"),
        (changed(priority="Loud"), "priority: 'Loud' is none of"),
        (changed(time_ns=-1), "time_ns: Input should be greater than or equal to 0"),
        (changed(time_ns="1"), "time_ns: Input should be a valid integer"),
        (changed(time_ns=1.5), "time_ns: Input should be a valid integer"),
        (changed(tags=["x"] * 257), "tags: List should have at most 256 items"),
        (changed(labels={"no-name": "x"}), "should match pattern"),
        (changed(labels={f"l{i}": "x" for i in range(33)}), "at most 32 items"),
        (changed(fields={f"f{i}": 1 for i in range(1025)}), "at most 1024 items"),
        (changed(hostname=...), "hostname: Field required"),
        (b'{"v":1,"x":"' + b"a" * RECORD_BYTES_LIMIT + b'"}', "is larger than 1048576"),
        (b"[" * 100_000, "invalid record"),
    ],
)
def test_what_is_no_record_is_refused_with_its_place(line: bytes, words: str) -> None:
    with pytest.raises(InvalidRecordError, match=words.replace("(", r"\(")):
        EventRecord.from_wire(line)
