"""Random conditions and random events for the comparison of the engine with the slow interpreter."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
from hypothesis import strategies as st

from security.columns import AnyColumn, ColumnKey, EventBatch, NumberColumn, list_column, text_column

TYPES = ("open", "openat", "execve", "connect", "unlink")
TEXTS = (
    "",
    "cat",
    "bash",
    "/etc/shadow",
    "/etc//shadow/x",
    "/etc",
    "Cat",
    "Y2F0",
    "a b",
    "O_RDONLY|O_CREAT",
    "é",
)
NUMBERS = (0, 1, 2, 22, 80, 443, 65535)
ADDRESSES = ("10.0.0.1", "10.1.2.3", "127.0.0.1", "::1", "fe80::1")
NETWORKS = ("10.0.0.0/8", "127.0.0.0/8", "fe80::/10")
TEXT_FIELDS: list[tuple[str, str | None]] = [
    *(
        ("proc.name", None),
        ("proc.cmdline", None),
        ("fd.name", None),
        ("evt.arg", "flags"),
        ("proc.aname", "2"),
    ),
    ("proc.exepath", None),
]
LIST_FIELDS: list[tuple[str, str | None]] = [("fd.types", None)]
ANY_FIELDS: list[tuple[str, str | None]] = [("proc.aname", None)]
NUMBER_FIELDS: list[tuple[str, str | None]] = [("evt.rawres", None), ("user.uid", None), ("fd.sport", None)]
BOOL_FIELDS: list[tuple[str, str | None]] = [("evt.is_open_read", None), ("container.privileged", None)]

_text = st.sampled_from(TEXTS)


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def shown(key: tuple[str, str | None]) -> str:
    return key[0] if key[1] is None else f"{key[0]}[{key[1]}]"


def _list(values: list[str]) -> str:
    return f"({', '.join(values)})"


_texts = st.lists(_text.map(quoted), min_size=1, max_size=4).map(_list)
_text_operand = st.one_of(
    st.sampled_from(TEXT_FIELDS).map(shown),
    st.sampled_from(TEXT_FIELDS[:4]).flatmap(
        lambda key: st.sampled_from(("tolower", "toupper", "basename", "b64")).map(
            lambda f: f"{f}({shown(key)})"
        )
    ),
    st.just('concat(proc.name, "x", fd.name)'),
    st.just('join("-", (proc.name, proc.cmdline))'),
)
_string_operators = st.sampled_from(
    ("=", "!=", "contains", "icontains", "startswith", "endswith", "glob", "iglob", "<", ">=")
)
_string_checks = st.one_of(
    st.tuples(_text_operand, _string_operators, _text).map(
        lambda t: f"{t[0]} {t[1]} {quoted(t[2])}" if t[1] not in ("<", ">=") else f"{t[0]} = {quoted(t[2])}"
    ),
    st.tuples(_text_operand, st.sampled_from(("in", "intersects", "pmatch")), _texts).map(" ".join),
    st.tuples(
        _text_operand,
        st.sampled_from(("=", "contains", "startswith")),
        st.sampled_from(("anyof", "allof", "oneof")),
        _texts,
    ).map(" ".join),
    st.tuples(
        st.sampled_from(TEXT_FIELDS).map(shown), st.sampled_from((".*", "ca.", "/etc.*", "[a-c]+"))
    ).map(lambda t: f"{t[0]} regex {quoted(t[1])}"),
    _text_operand.map(lambda operand: f"{operand} exists"),
    st.sampled_from(
        ("proc.name = val(proc.cmdline)", "fd.name contains val(proc.name)", "proc.name in val(fd.types)")
    ),
)
_list_checks = st.one_of(
    st.tuples(st.sampled_from(LIST_FIELDS).map(shown), st.sampled_from(("in", "intersects")), _texts).map(
        " ".join
    ),
    st.tuples(
        st.sampled_from(ANY_FIELDS).map(shown), st.sampled_from(("=", "!=", "startswith")), _text.map(quoted)
    ).map(" ".join),
    st.tuples(st.sampled_from(ANY_FIELDS).map(shown), st.just("in"), _texts).map(" ".join),
    st.sampled_from(
        ("fd.types exists", "proc.aname exists", 'tolower(fd.types) intersects ("cat")', "len(fd.types) > 1")
    ),
)
_number_checks = st.one_of(
    st.tuples(
        st.sampled_from(NUMBER_FIELDS).map(shown),
        st.sampled_from(("=", "!=", "<", "<=", ">", ">=")),
        st.sampled_from(NUMBERS).map(str),
    ).map(" ".join),
    st.tuples(
        st.sampled_from(NUMBER_FIELDS).map(shown),
        st.just("in"),
        st.lists(st.sampled_from(NUMBERS).map(str), min_size=1, max_size=20).map(_list),
    ).map(" ".join),
    st.tuples(
        st.sampled_from(BOOL_FIELDS).map(shown),
        st.sampled_from(("=", "!=")),
        st.sampled_from(("true", "false")),
    ).map(" ".join),
    st.just("len(proc.name) >= 3"),
    st.just("evt.num > 2"),
)
_network_checks = st.one_of(
    st.tuples(
        st.sampled_from(("fd.sip", "fd.ip")), st.sampled_from(("=", "!=")), st.sampled_from(ADDRESSES)
    ).map(lambda t: f"{t[0]} {t[1]} {quoted(t[2])}"),
    st.tuples(
        st.sampled_from(("fd.snet", "fd.net")), st.sampled_from(("=", "!=", "in")), st.sampled_from(NETWORKS)
    ).map(lambda t: f"{t[0]} {t[1]} ({quoted(t[2])})" if t[1] == "in" else f"{t[0]} {t[1]} {quoted(t[2])}"),
)
_type_checks = st.one_of(
    st.sampled_from(TYPES).map(lambda name: f"evt.type = {name}"),
    st.sampled_from(TYPES).map(lambda name: f"evt.type != {name}"),
    st.lists(st.sampled_from(TYPES), min_size=1, max_size=3).map(lambda names: f"evt.type in {_list(names)}"),
)
checks = st.one_of(
    _string_checks, _string_checks, _list_checks, _number_checks, _network_checks, _type_checks
)
conditions = st.recursive(
    checks,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: f"({' and '.join(parts)})"),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: f"({' or '.join(parts)})"),
        inner.map(lambda part: f"not {part}"),
    ),
    max_leaves=8,
)


def _maybe(strategy: Any) -> Any:
    return st.one_of(st.none(), strategy, strategy)


_address = st.sampled_from([ipaddress.ip_address(text) for text in ADDRESSES])
_FIELDS: dict[tuple[str, str | None], Any] = {
    **{key: _maybe(_text) for key in TEXT_FIELDS},
    **{key: _maybe(st.lists(_text, max_size=3).map(tuple)) for key in LIST_FIELDS},
    **{key: _maybe(st.lists(_text, min_size=1, max_size=3).map(tuple)) for key in ANY_FIELDS},
    **{key: _maybe(st.sampled_from(NUMBERS)) for key in NUMBER_FIELDS},
    **{key: _maybe(st.booleans()) for key in BOOL_FIELDS},
    **{(name, None): _maybe(_address) for name in ("fd.sip", "fd.snet")},
    **{
        (name, None): _maybe(st.lists(_address, min_size=1, max_size=2).map(tuple))
        for name in ("fd.ip", "fd.net")
    },
    ("evt.type", None): st.sampled_from(TYPES),
}
events = st.fixed_dictionaries(_FIELDS)


def batch_of(rows: list[dict[tuple[str, str | None], Any]], first_number: int = 1) -> EventBatch:
    """A batch of system call events from plain values."""

    def load(key: ColumnKey) -> AnyColumn | None:
        values = [row.get(key) for row in rows]
        given = [value for value in values if value is not None]
        if not given:
            return None
        if isinstance(given[0], tuple):
            return list_column(values)
        if isinstance(given[0], (bool, int)):
            present = np.array([value is not None for value in values], np.bool_)
            dtype = np.bool_ if isinstance(given[0], bool) else np.int64
            return NumberColumn(np.array([value or 0 for value in values], dtype), present)
        return text_column(values)

    return EventBatch(
        source="syscall",
        times_ns=np.arange(len(rows), dtype=np.int64) * 1_000_000 + 1_700_000_000_000_000_000,
        load=load,
        types=text_column([row[("evt.type", None)] for row in rows]),
        first_number=first_number,
        hostname="host",
    )
