"""Text exposition: what is read, what is refused, and that the kernel reads as its slow twin does."""

from __future__ import annotations

import contextlib
import math
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.kernels.exposition import HELP, OPENMETRICS, TEXT, TYPE, UNIT
from ingest.scrape.text import (
    ExpositionError,
    Scanned,
    format_float,
    metadata_lines,
    parse_float,
    parse_labels,
    parse_time,
    scan_body,
)
from tests.reference.exposition import read

BODY = b"""# HELP go_gc_duration_seconds A summary\\nof the \\\\ pauses.
# TYPE go_gc_duration_seconds summary
go_gc_duration_seconds{quantile="0"} 4.9351e-05
go_gc_duration_seconds{quantile="0.25",} 7.424100000000001e-05
go_gc_duration_seconds { quantile="0.9" , a="b" } 8.3e-05
# an ordinary comment
#another
  indented 3

nothing_between_name_and_sign-1
with_time{} 5 1395066363000
with_early_time 5\t9800
_metric:with_colon:1 +Inf
minf -Inf
nan_value NaN
{"quoted.name",l="v"} 1
{"quoted.name" , "quoted label"="v"} 1
escapes{a="q\\"b\\\\n\\n}{,"} 1
missing_commas{a="1"b="2"} 1
last_line_without_newline 0.1"""

EXPECTED = [
    ([("__name__", "go_gc_duration_seconds"), ("quantile", "0")], 4.9351e-05, None),
    ([("__name__", "go_gc_duration_seconds"), ("quantile", "0.25")], 7.424100000000001e-05, None),
    ([("__name__", "go_gc_duration_seconds"), ("quantile", "0.9"), ("a", "b")], 8.3e-05, None),
    ([("__name__", "indented")], 3.0, None),
    ([("__name__", "nothing_between_name_and_sign")], -1.0, None),
    ([("__name__", "with_time")], 5.0, 1395066363000),
    ([("__name__", "with_early_time")], 5.0, 9800),
    ([("__name__", "_metric:with_colon:1")], math.inf, None),
    ([("__name__", "minf")], -math.inf, None),
    ([("__name__", "nan_value")], math.nan, None),
    ([("__name__", "quoted.name"), ("l", "v")], 1.0, None),
    ([("__name__", "quoted.name"), ("quoted label", "v")], 1.0, None),
    ([("__name__", "escapes"), ("a", 'q"b\\n\n}{,')], 1.0, None),
    ([("__name__", "missing_commas"), ("a", "1"), ("b", "2")], 1.0, None),
    ([("__name__", "last_line_without_newline")], 0.1, None),
]


def rows_of(scanned: Scanned) -> list[tuple[list[tuple[str, str]], float, int | None]]:
    return [
        (
            parse_labels(scanned.series_text(i), scanned.mode),
            float(scanned.values[i]),
            int(scanned.t_ms[i]) if scanned.timed[i] else None,
        )
        for i in range(scanned.count)
    ]


def test_everything_a_text_exposition_may_hold_is_read() -> None:
    for got, expected in zip(rows_of(scan_body(BODY, TEXT)), EXPECTED, strict=True):
        assert repr(got) == repr(expected)


def test_metadata_is_unescaped_and_untyped_is_unknown() -> None:
    scanned = scan_body(BODY + b'\n# TYPE "quoted.name" untyped\n# HELP empty\n', TEXT)
    lines = [(line.kind, line.name, line.text) for line in metadata_lines(scanned)]
    assert lines == [
        (HELP, "go_gc_duration_seconds", "A summary\nof the \\ pauses."),
        (TYPE, "go_gc_duration_seconds", "summary"),
        (TYPE, "quoted.name", "unknown"),
        (HELP, "empty", ""),
    ]


def test_every_nan_becomes_the_canonical_one() -> None:
    scanned = scan_body(b"a NaN\nb nan\nc nAn\n", TEXT)
    assert [struct.pack(">d", v).hex() for v in scanned.values] == ["7ff8000000000001"] * 3


REFUSED = [
    (b"a 1\nb\n", "line 2: expected value after metric"),
    (b'a{b="c} 1\n', "line 1: label set is not closed"),
    (b'a{b="c"\n} 1\n', "line 1: label set is not closed"),
    (b"a{", "line 1: label set is not closed"),
    (b"a 1 2 3\n", "line 1: expected timestamp or new record"),
    (b"a 1 1.5\n", 'line 1: invalid timestamp "1.5"'),
    (b"a 1 -5\n", 'line 1: invalid timestamp "-5"'),
    (b"# TYPE a  gauge\n", 'line 1: invalid metric type " gauge"'),
    (b"a 1 x\n", 'line 1: invalid timestamp "x"'),
    (b"0a 1\n", "line 1: expected a metric name"),
    (b"\xff 1\n", "line 1: expected a metric name"),
    (b"a 0x1p-2\n", 'line 1: invalid value while parsing: "0x1p-2"'),
    (b"a 1_000\n", "line 1: invalid value"),
    (b"a --1\n", "line 1: invalid value"),
    (b"a 1e400\n", "line 1: value out of range"),
    (b"a .\n", "line 1: invalid value"),
    (b"# TYPE a number\n", 'line 1: invalid metric type "number"'),
    (b"# TYPE 1 gauge\n", "line 1: expected metric name in metadata"),
    (b"# HELP a \xff\n", "line 1: invalid UTF-8 help text"),
    (b'# HELP a{b="c"} text\n', "line 1: expected text after metric name"),
]


@pytest.mark.parametrize(("body", "error"), REFUSED)
def test_a_malformed_body_is_refused_with_line_and_reason(body: bytes, error: str) -> None:
    with pytest.raises(ExpositionError) as caught:
        metadata_lines(scan_body(body, TEXT))
    assert str(caught.value).startswith(error)


BAD_LABELS = [
    (b'a{="x"}', "expected label name"),
    (b'a{b "x"}', "expected equal"),
    (b"a{b=c}", "expected label value"),
    (b'a{b="\xff"}', "invalid UTF-8 label value"),
    (b'a{"other",b="c"}', "metric name already set"),
    (b'{"a","b"}', "metric name already set"),
    (b'a{1b="c"}', "expected label name"),
    (b"a{,}", "expected label name"),
]


@pytest.mark.parametrize(("text", "error"), BAD_LABELS)
def test_malformed_labels_are_refused(text: bytes, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parse_labels(text, TEXT)


FORMATTED = [
    (1.0, "1.0"), (0.5, "0.5"), (1e6, "1e+06"), (123456.0, "123456.0"), (1234567.0, "1.234567e+06"),
    (1e-5, "1e-05"), (1e-4, "0.0001"), (0.0, "0.0"), (-0.0, "-0.0"), (-2.5, "-2.5"), (math.inf, "+Inf"),
    (-math.inf, "-Inf"), (math.nan, "NaN"), (5e-324, "5e-324"), (1e100, "1e+100"), (0.025, "0.025"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), FORMATTED)
def test_bucket_bounds_have_one_written_form(value: float, text: str) -> None:
    assert format_float(value) == text


@given(st.floats(allow_nan=False))
def test_a_written_bucket_bound_reads_back_equal(value: float) -> None:
    assert parse_float(format_float(value).encode()) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(0.1)
@example(9007199254740993.0)
@example(1.7976931348623157e308)
@example(2.2250738585072011e-308)
def test_values_are_correctly_rounded(value: float) -> None:
    for text in (repr(value), f"{value:.17e}", f"{value:.3f}"):
        scanned = scan_body(f"a {text}\n".encode(), TEXT)
        assert struct.pack("<d", scanned.values[0]) == struct.pack("<d", float(text))


@given(st.from_regex(rb"[+-]?[0-9]{0,22}(\.[0-9]{0,22})?([eE][+-]?[0-9]{1,4})?", fullmatch=True))
def test_decimal_texts_are_read_as_python_reads_them(text: bytes) -> None:
    try:
        expected = float(text)
    except ValueError:
        expected = math.inf
    if math.isinf(expected):
        with pytest.raises(ExpositionError):
            scan_body(b"a " + text + b"\n", TEXT)
        return
    scanned = scan_body(b"a " + text + b"\n", TEXT)
    assert struct.pack("<d", scanned.values[0]) == struct.pack("<d", expected)


PIECES = [
    *(
        b"a",
        b"foo_total",
        b'{x="y"}',
        b'{"q.n"}',
        b'"',
        b"{",
        b"}",
        b"\\",
        b'\\"',
        b"=",
        b",",
        b" ",
        b"  ",
        b"\t",
    ),
    *(
        b"\n",
        b"\n\n",
        b"1",
        b"1.5",
        b"-2e3",
        b"NaN",
        b"+Inf",
        b"0x1",
        b"# ",
        b"#",
        b"HELP ",
        b"TYPE ",
        b"UNIT ",
    ),
    *(
        b"counter",
        b"gauge",
        b"# EOF\n",
        b"# EOF",
        b' # {t="x"} 1',
        b" 1234",
        b"\xff",
        b"\xc3\xa9",
        b"\0",
        b":",
    ),
    *(b"a 1\n", b'h_bucket{le="1"} 2 3\n', b"# TYPE a gauge\n", b"# HELP a some text\n"),
]
bodies = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)


def readable(value: bytes, time: bytes, mode: int) -> bool:
    """Whether the numbers of a row are valid."""
    try:
        parse_float(value)
        if time:
            parse_time(time, mode)
    except ValueError:
        return False
    return True


_KINDS = {b"HELP": HELP, b"TYPE": TYPE, b"UNIT": UNIT}


@settings(max_examples=600, deadline=None)
@given(bodies, st.sampled_from([TEXT, OPENMETRICS]))
def test_the_kernel_reads_as_the_slow_twin(body: bytes, mode: int) -> None:
    expected = read(body, mode)
    numbers_are_good = all(readable(row[1], row[2], mode) for row in expected.rows)
    if expected.failed or not numbers_are_good:
        with pytest.raises(ExpositionError) as caught:
            scan_body(body, mode)
        assert caught.value.sample_count <= len(expected.rows)
        return
    scanned = scan_body(body, mode)
    got = [scanned.series_text(i) for i in range(scanned.count)]
    assert got == [row[0] for row in expected.rows]
    assert [bool(t) for t in scanned.timed] == [bool(row[2]) for row in expected.rows]
    for i, row in enumerate(expected.rows):
        assert repr(float(scanned.values[i])) == repr(parse_float(row[1]))
        start, end = scanned.exemplars[i]
        assert scanned.body[start:end] == row[3]
    metadata = [
        (int(kind), body[a:b], body[c:d])
        for kind, (a, b, c, d) in zip(scanned.metadata_kinds, scanned.metadata_spans.tolist(), strict=True)
    ]
    assert metadata == [(_KINDS[kind], name, text) for kind, name, text in expected.metadata]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from([TEXT, OPENMETRICS]))
def test_cut_and_changed_bodies_never_crash(data: st.DataObject, mode: int) -> None:
    body = bytearray(BODY + (b"\n# EOF\n" if mode == OPENMETRICS else b"\n"))
    for _ in range(data.draw(st.integers(0, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    with contextlib.suppress(ExpositionError):
        scanned = scan_body(bytes(body), mode)
        metadata_lines(scanned)
        for i in range(scanned.count):
            with contextlib.suppress(ValueError):
                parse_labels(scanned.series_text(i), mode)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([TEXT, OPENMETRICS]))
def test_arbitrary_bytes_never_crash(body: bytes, mode: int) -> None:
    with contextlib.suppress(ExpositionError):
        scan_body(body, mode)
