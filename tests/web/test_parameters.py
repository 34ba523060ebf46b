"""Times, durations and escaped label names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.parameters import MAX_TIME_MS, MIN_TIME_MS, parse_duration_ms, parse_time, unescape_label_name

TIMES = [
    ("0", 0),
    ("1.5", 1500),
    ("-1.5", -1500),
    ("1435781451.781", 1435781451781),
    ("1435781451.7815", 1435781451782),
    ("1e9", 10**12),
    (".5", 500),
    ("2015-06-03T13:21:58.555Z", 1433337718555),
    ("2015-06-03T13:21:58.555999999Z", 1433337718555),
    ("2015-06-03T14:21:58.555+01:00", 1433337718555),
    ("1969-12-31T23:59:59.9Z", -100),
    ("-292273086-05-16T16:47:06Z", MIN_TIME_MS),
    ("292277025-08-18T07:12:54.999999999Z", MAX_TIME_MS),
]


@pytest.mark.parametrize(("text", "t_ms"), TIMES)
def test_times(text: str, t_ms: int) -> None:
    assert parse_time(text) == t_ms


@pytest.mark.parametrize(
    "text", ["", "foo", "30s", "nan", "1_0", " 1", "1e300", "2015-13-03T13:21:58Z", "2015-06-03 13:21:58Z"]
)
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(ValueError, match="to a valid timestamp"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "ms"), [("0", 0), ("5", 5000), ("0.25", 250), ("1m30s", 90_000), ("15ms", 15), ("-1", -1000)]
)
def test_durations(text: str, ms: float) -> None:
    assert parse_duration_ms(text) == ms


@pytest.mark.parametrize("text", ["", "1m1h", "1.5m", "abc", "1 m", "148966367200.372", "-148966367200.372"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="to a valid duration"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("escaped", "name"),
    [
        ("job", "job"),
        ("U__http_2e_path", "http.path"),
        ("U__a__b", "a_b"),
        ("U___263a_", "☺"),
        ("U__a_2e", "U__a_2e"),
        ("U__a_zz_b", "U__a_zz_b"),
        ("U___d800_", "U___d800_"),
        ("U___1234567_", "U___1234567_"),
    ],
)
def test_label_names_of_paths_are_unescaped(escaped: str, name: str) -> None:
    assert unescape_label_name(escaped) == name


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFFF), min_size=1))
def test_escaping_and_unescaping_is_the_identity(name: str) -> None:
    plain = "".join(c for c in map(chr, range(128)) if c.isalnum())
    escaped = "U__" + "".join(c if c in plain else "__" if c == "_" else f"_{ord(c):x}_" for c in name)
    assert unescape_label_name(escaped) == name
