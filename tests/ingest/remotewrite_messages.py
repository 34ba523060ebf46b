"""Hypothesis strategies of remote-write messages: valid ones, and valid ones with damage."""

from __future__ import annotations

from hypothesis import strategies as st

from benchmarks.load import encode

TIMES = st.one_of(st.integers(1_600_000_000_000, 1_800_000_000_000), st.integers(-(2**63), 2**63 - 1))
VALUES = st.floats(allow_nan=True, allow_infinity=True)
TEXTS = st.one_of(
    st.sampled_from([b"__name__", b"instance", b"job", b"cpu", b"node_cpu_seconds_total", b"host-1:9100"]),
    st.binary(max_size=40),
)
LABELS = st.lists(st.tuples(TEXTS, TEXTS), max_size=5)
UNKNOWN_FIELDS = st.one_of(
    st.builds(encode.varint_field, st.integers(100, 2**29 - 1), st.integers(0, 2**64 - 1)),
    st.builds(encode.double_field, st.integers(100, 2**29 - 1), VALUES),
    st.builds(encode.length_delimited, st.integers(100, 2**29 - 1), st.binary(max_size=20)),
    st.integers(100, 200).map(lambda number: encode.varint(number << 3 | 5) + b"abcd"),
)


@st.composite
def time_series(draw: st.DrawFn, version: int, symbols: encode.Symbols) -> bytes:
    """A TimeSeries with its fields in order most of the time, else shuffled and with unknown ones."""
    labels = draw(LABELS)
    samples = draw(st.lists(st.tuples(TIMES, VALUES), max_size=4))
    first, second = (3, 4) if version == 1 else (4, 3)
    parts = []
    if version == 1:
        parts += [encode.length_delimited(1, encode.label(*pair)) for pair in labels]
    else:
        refs = symbols.refs(labels) + draw(st.sampled_from([[], [], [], [0], [999, 1]]))
        split = draw(st.booleans())
        parts += [encode.varint_field(1, ref) for ref in refs] if split else [encode.packed(1, refs)]
    start = draw(st.sampled_from([0, 0, 1_600_000_000_000])) if version == 2 else 0
    parts += [encode.length_delimited(2, encode.sample(t, v, start)) for t, v in samples]
    parts += [
        encode.length_delimited(first, each) for each in draw(st.lists(st.binary(max_size=9), max_size=1))
    ]
    parts += [
        encode.length_delimited(second, each) for each in draw(st.lists(st.binary(max_size=9), max_size=1))
    ]
    if draw(st.integers(0, 4)) == 0:
        parts = draw(st.permutations([*parts, draw(UNKNOWN_FIELDS)]))
    return b"".join(parts)


@st.composite
def requests(draw: st.DrawFn, version: int) -> bytes:
    """A whole request."""
    symbols = encode.Symbols()
    field = 1 if version == 1 else 5
    count = draw(st.integers(0, 5))
    rows = [encode.length_delimited(field, draw(time_series(version, symbols))) for _ in range(count)]
    if version == 1:
        rows += [
            encode.length_delimited(3, each) for each in draw(st.lists(st.binary(max_size=9), max_size=2))
        ]
    else:
        rows.insert(draw(st.sampled_from([0, 0, 0, len(rows)])), symbols.encode())
    rows += draw(st.lists(UNKNOWN_FIELDS, max_size=1))
    return b"".join(rows)


@st.composite
def damaged(draw: st.DrawFn, version: int) -> bytes:
    """A request that was cut, or in which bytes were changed, removed or inserted."""
    data = bytearray(draw(requests(version)))
    if data and draw(st.booleans()):
        del data[draw(st.integers(0, len(data) - 1)) :]
    for _ in range(draw(st.integers(0, 4))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at] = draw(st.integers(0, 255))
        elif kind == 1:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == 2:
            del data[at : at + draw(st.integers(1, 4))]
        else:
            data[at:at] = draw(
                st.sampled_from(
                    [b"\xff" * 9, b"\xff" * 11, b"\x80\x00", b"\x0b", b"\x12\xff\xff\xff\xff\x7f"]
                )
            )
    return bytes(data)
