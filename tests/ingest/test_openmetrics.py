"""OpenMetrics: its stricter grammar, units, exemplars, and the choice of a format by content type."""

from __future__ import annotations

import pytest

from ingest.config.globals import DEFAULT_PROTOCOLS, PROTO_FIRST_PROTOCOLS
from ingest.kernels.exposition import OPENMETRICS, TEXT
from ingest.scrape.accept import PROTOBUF, accept_header, body_mode
from ingest.scrape.openmetrics import parse_exemplar
from ingest.scrape.text import ExpositionError, metadata_lines, metadata_of, parse_labels, scan_body

BODY = b"""# HELP foos_seconds Foos \\"quoted\\"\\nand more.
# TYPE foos_seconds counter
# UNIT foos_seconds seconds
foos_seconds_total{a="b"} 17.0 1520879607.789 # {id="counter-test"} 5
foos_seconds_created{a="b"} 1520872607.123
# TYPE hist histogram
hist_bucket{le="0.01"} 0 # {trace="x,}"} 0.0054 1520879607.7
hist_bucket{le="+Inf"} 17 1.5
# TYPE info info
info_info{"utf.8"="\xc3\xa9"} 1
{"a.b"} 2
# TYPE state stateset
state{state="x"} 1
# EOF
"""


def test_everything_openmetrics_may_hold_is_read() -> None:
    scanned = scan_body(BODY, OPENMETRICS)
    assert scanned.count == 7
    assert [int(t) for t in scanned.t_ms] == [1520879607789, 0, 0, 1500, 0, 0, 0]
    assert [bool(t) for t in scanned.timed] == [True, False, False, True, False, False, False]
    exemplars = [scanned.body[a:b] for a, b in scanned.exemplars]
    assert exemplars[0] == b'{id="counter-test"} 5'
    assert exemplars[2] == b'{trace="x,}"} 0.0054 1520879607.7'
    assert parse_labels(scanned.series_text(4), OPENMETRICS) == [("__name__", "info_info"), ("utf.8", "é")]
    assert parse_labels(scanned.series_text(5), OPENMETRICS) == [("__name__", "a.b")]
    families = metadata_of(metadata_lines(scanned))
    assert (families["foos_seconds"].unit, families["foos_seconds"].type) == ("seconds", "counter")
    assert families["foos_seconds"].help == 'Foos "quoted"\nand more.'
    assert families["state"].type == "stateset"


REFUSED = [
    (b"", "data does not end with # EOF"),
    (b"a 1\n", "data does not end with # EOF"),
    (b"a 1\n# EOF\n\n", "unexpected data after # EOF"),
    (b"a 1\n# EOF\nb 1\n# EOF\n", "unexpected data after # EOF"),
    (b"\n# EOF\n", "expected a metric name"),
    (b"# a comment\n# EOF\n", "expected a metric name"),
    (b"#\n# EOF\n", "expected a metric name"),
    (b" a 1\n# EOF\n", "expected a metric name"),
    (b"a  1\n# EOF\n", "expected value after metric"),
    (b"a\t1\n# EOF\n", "expected value after metric"),
    (b"a 1 \n# EOF\n", "expected timestamp or new record"),
    (b"a 1 1 1\n# EOF\n", "expected timestamp or new record"),
    (b"a 1 inf\n# EOF\n", "invalid timestamp"),
    (b"a 1 x\n# EOF\n", "invalid value while parsing"),
    (b"# TYPE a untyped\n# EOF\n", 'invalid metric type "untyped"'),
    (b"# HELP a\n# EOF\n", "expected text after metric name"),
    (b"# TYPE a  gauge\n# EOF\n", "invalid metric type"),
    (b"# UNIT a_seconds minutes\n# EOF\n", 'unit "minutes" not a suffix of metric "a_seconds"'),
    (b'a 1 # {x="y" 1\n# EOF\n', "exemplar label set is not closed"),
]


@pytest.mark.parametrize(("body", "error"), REFUSED)
def test_what_openmetrics_forbids_is_refused(body: bytes, error: str) -> None:
    with pytest.raises(ExpositionError) as caught:
        metadata_lines(scan_body(body, OPENMETRICS))
    assert error in str(caught.value)


@pytest.mark.parametrize("text", [b'a{b="1" ,c="2"}', b'a{b="1"c="2"}', b'a{ b="1"}'])
def test_labels_are_separated_by_bare_commas(text: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_labels(text, OPENMETRICS)
    assert len(parse_labels(text, TEXT)) >= 2


EXEMPLARS = [
    (b'{a="b"} 1', ({"a": "b"}, 1.0, None)),
    (b"{} 0.5 2.25", ({}, 0.5, 2250)),
    (b'{a="}"} +Inf', ({"a": "}"}, float("inf"), None)),
]


@pytest.mark.parametrize(("text", "expected"), EXEMPLARS)
def test_exemplars(text: bytes, expected: tuple[dict[str, str], float, int | None]) -> None:
    labels, value, t_ms = parse_exemplar(text)
    assert (labels.to_dict(), value, t_ms) == expected


@pytest.mark.parametrize("text", [b'{a="b"}', b'{a="b"} x', b'{a="b"}  1', b'{a="' + b"x" * 129 + b'"} 1'])
def test_bad_exemplars_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"exemplar|invalid value"):
        parse_exemplar(text)


def test_protobuf_is_asked_for_first_where_native_histograms_are_wanted() -> None:
    header = accept_header(PROTO_FIRST_PROTOCOLS)
    assert header.startswith(
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    )
    assert header.endswith("text/plain;version=0.0.4;q=0.2,*/*;q=0.1")
    assert "escaping=underscores" in accept_header(DEFAULT_PROTOCOLS, "underscores")


CONTENT_TYPES = [
    ("text/plain; version=0.0.4; charset=utf-8", "", TEXT),
    ("TEXT/PLAIN", "", TEXT),
    ("application/openmetrics-text; version=1.0.0; charset=utf-8", "", OPENMETRICS),
    ("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily", "", PROTOBUF),
    ("", "PrometheusText0.0.4", TEXT),
    (None, "OpenMetricsText1.0.0", OPENMETRICS),
    ("nonsense", "PrometheusText1.0.0", TEXT),
    ("text/html", "PrometheusText0.0.4", TEXT),
]


@pytest.mark.parametrize(("content_type", "fallback", "mode"), CONTENT_TYPES)
def test_the_format_follows_content_type_then_fallback(
    content_type: str | None, fallback: str, mode: int
) -> None:
    assert body_mode(content_type, fallback) == mode


@pytest.mark.parametrize("content_type", [None, "", " ", "nonsense", "text/html", "application/json"])
def test_without_fallback_the_content_type_decides(content_type: str | None) -> None:
    with pytest.raises(ValueError, match="no fallback_scrape_protocol"):
        body_mode(content_type, "")
