"""Matchers' regular expressions: the classes must never change what RE2 says."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from tsdb.regex import InvalidRegexError, Regex, compile_regex

CLASSES: list[tuple[str, tuple[str, ...] | None, str]] = [
    # pattern, all literals or None, prefix
    ("", ("",), ""),
    ("abc", ("abc",), "abc"),
    ("a|b|c", ("a", "b", "c"), ""),
    ("a|", ("a", ""), ""),
    ("(?:foo|bar)baz", ("foobaz", "barbaz"), ""),
    ("foo(1|2)?", ("foo1", "foo2", "foo"), "foo"),
    ("node[0-2]", ("node0", "node1", "node2"), "node"),
    (r"10\.0\.0\.1:9100", ("10.0.0.1:9100",), "10.0.0.1:9100"),
    ("^abc$", ("abc",), "abc"),
    ("prod-.*", None, "prod-"),
    ("(prod|prep)-.*", None, "pr"),
    (".*", None, ""),
    (".+", None, ""),
    (".*middle.*", None, ""),
    ("a[^b]c", None, "a"),
    (r"a\d+", None, "a"),
    ("(?i)abc", None, ""),
    ("a{2,3}b", None, ""),
    ("a{,3}", ("a{,3}",), "a{,3}"),
    ("(?P<name>x)y", ("xy",), "xy"),
    ("x*", None, ""),
]


@pytest.mark.parametrize(("pattern", "literals", "prefix"), CLASSES)
def test_patterns_fall_into_their_class(pattern: str, literals: tuple[str, ...] | None, prefix: str) -> None:
    regex = Regex(pattern)
    assert regex.literals() == literals
    assert regex.prefix == prefix


def test_any_and_non_empty_are_known() -> None:
    assert Regex(".*").matches_everything
    assert not Regex(".*").matches_non_empty
    assert Regex(".+").matches_non_empty
    assert not Regex(".+").matches_everything
    assert Regex("(.*)").matches_everything
    assert not Regex("a.*").matches_everything


def test_dot_matches_newline_and_matching_is_anchored() -> None:
    assert Regex("a.b").matches("a\nb")
    assert Regex("a.*b").matches("a\n\nb")
    assert not Regex("a|b").matches("ab")
    assert not Regex("^a$").matches("a\n")


def test_case_insensitive_folds_as_re2_does() -> None:
    assert Regex("(?i)k").matches("K")
    assert Regex("(?i)k").matches("\u212a")
    assert Regex("a(?i)b").matches("aB")
    assert not Regex("a(?i)b").matches("Ab")


@pytest.mark.parametrize("pattern", ["foo(", "a**", "[z-a]", r"\8", "(?=a)", "x{2000}", r"(a)\1"])
def test_refused_pattern_gives_res_reason(pattern: str) -> None:
    with pytest.raises(InvalidRegexError, match="error parsing regexp: ") as caught:
        compile_regex(pattern)
    assert f"`{pattern}`" in str(caught.value)


def test_overlong_pattern_names_the_limit() -> None:
    with pytest.raises(InvalidRegexError, match="1048576"):
        Regex("a" * (1 << 21))


def test_pattern_of_catastrophe_elsewhere_is_linear() -> None:
    assert not Regex("(a*)*b").matches("a" * 100_000)


def test_many_alternatives_fall_back_to_the_engine() -> None:
    pattern = "|".join(f"v{i}" for i in range(300))
    regex = Regex(pattern)
    assert regex.literals() is None
    assert regex.matches("v299")
    assert not regex.matches("v300")


ATOMS = [
    "a",
    "b",
    "-",
    ".",
    ".*",
    ".+",
    ".?",
    "a*",
    "b+",
    "a?",
    "[ab]",
    "[^a]",
    "[a-c]",
    "\\.",
    "\\d",
    "\\w",
    "é",
    "(a|b)",
    "(?:a|)",
    "(.*)",
    "(.+|a)",
    "^",
    "$",
    "\\b",
    "a{2}",
    "{",
    ".*?",
    "(?s)",
    "(?i)",
    "(?i:a)",
    "[[:alpha:]]",
    "\\pL",
    "\\x61",
    "[\\]a]",
    "(..)*",
    "(.\\d)*",
    "(?U)",
    "(.+)*",
    "(?m)",
]
atoms = st.sampled_from(ATOMS)
patterns = st.recursive(
    st.lists(atoms, max_size=4).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("|".join),
        inner.map(lambda p: f"({p})"),
        st.tuples(inner, inner).map("".join),
    ),
    max_leaves=4,
)
values = st.text(alphabet="aAbc-.1é\n{", max_size=7)


@settings(max_examples=800, deadline=None)
@given(pattern=patterns, texts=st.lists(values, min_size=1, max_size=8))
def test_classes_agree_with_re2(pattern: str, texts: list[str]) -> None:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    try:
        engine = re2.compile(pattern, options=options)
    except re2.error:
        with pytest.raises(InvalidRegexError):
            Regex(pattern)
        return
    regex = Regex(pattern)
    want = [engine.fullmatch(text) is not None for text in texts]
    assert [regex.matches(text) for text in texts] == want
    assert regex.matching(texts) == [i for i, hit in enumerate(want) if hit]
    if regex.literals() is not None:
        assert all(engine.fullmatch(text) for text in regex.literals() or ())
    if regex.matches_everything:
        assert all(want)
    if regex.matches_non_empty:
        assert want == [bool(text) for text in texts]
    for text, hit in zip(texts, want, strict=True):
        assert not hit or text.startswith(regex.prefix)
