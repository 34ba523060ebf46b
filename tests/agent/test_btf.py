"""BTF reader: a hand-made file, damage, and the running kernel's own file."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernels.btf import type_starts
from agent.probe.btf import _FIXED_WORDS, _MEMBER_WORDS, BTF, VMLINUX, BTFError, Member
from tests.agent.btfblob import BTFBuilder, small_kernel
from tests.reference import btf as slow

OFFSETS = [
    ("thing", "id", Member(0, 8, 0, 0)),
    ("thing", "pairs", Member(8, 16, 0, 0)),
    ("thing", "pairs[1].second", Member(20, 4, 0, 0)),
    ("thing", "as_number", Member(24, 8, 0, 0)),
    ("thing", "as_pair.second", Member(28, 4, 0, 0)),
    ("pair", "second", Member(4, 4, 0, 0)),
    ("flags", "high", Member(0, 4, 3, 5)),
]

REFUSED = [
    ("nothing", "id", "this kernel has no struct nothing"),
    ("", "id", "this kernel has no struct "),
    ("thing", "colour", "struct thing of this kernel has no member colour"),
    ("thing", "id.low", "struct thing of this kernel has no member id.low"),
    ("thing", "pairs[2].first", "index 2, array of 2"),
    ("thing", "id[0]", "no array"),
    ("thing", "id..low", "is no member name"),
]


@pytest.mark.parametrize(("name", "path", "expected"), OFFSETS)
def test_members_are_found_by_path(name: str, path: str, expected: Member) -> None:
    assert BTF.parse(small_kernel()).member(name, path) == expected


@pytest.mark.parametrize(("name", "path", "message"), REFUSED)
def test_what_is_not_there_is_named_in_the_error(name: str, path: str, message: str) -> None:
    with pytest.raises(BTFError) as caught:
        BTF.parse(small_kernel()).member(name, path)
    assert message in str(caught.value)


def test_sizes_and_bit_fields() -> None:
    btf = BTF.parse(small_kernel())
    assert (btf.size("thing"), btf.size("pair"), btf.offset("thing", "pairs[1]")) == (32, 8, 16)
    with pytest.raises(BTFError, match="bit field"):
        btf.offset("flags", "high")
    assert btf.has("thing", "as_pair")
    assert not btf.has("thing", "as_pairs")


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BTFError, match=r"no kernel type information: .*No such file"):
        BTF.load(tmp_path / "vmlinux")


def test_every_cut_of_the_file_is_refused() -> None:
    whole = small_kernel()
    for length in range(len(whole)):
        with pytest.raises(BTFError):
            BTF.parse(whole[:length])


def test_flipped_bytes_never_raise_anything_but_a_btf_error() -> None:
    whole, randomness = small_kernel(), random.Random(5)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(randomness.randint(1, 4)):
            damaged[randomness.randrange(len(damaged))] = randomness.randrange(256)
        try:
            btf = BTF.parse(bytes(damaged))
            for name, path, _ in OFFSETS:
                btf.member(name, path)
        except BTFError:
            continue


def test_circular_types_end_in_an_error() -> None:
    b = BTFBuilder()
    b.aggregate("loop", 8, [("self", 2, 0)])
    b.typedef("again", 2)
    with pytest.raises(BTFError, match="typedefs in a row"):
        BTF.parse(b.build()).member("loop", "self")
    b = BTFBuilder()
    b.aggregate("nest", 8, [("", 1, 0)])
    with pytest.raises(BTFError, match="nest deeper"):
        BTF.parse(b.build()).member("nest", "self")


@given(
    st.lists(
        st.tuples(st.integers(0, 22), st.integers(0, 4), st.integers(0, 9)).map(
            lambda t: [7, t[0] << 24 | t[1], 0] + [0] * t[2]
        ),
        max_size=6,
    )
)
def test_the_walk_agrees_with_its_slow_twin(records: list[list[int]]) -> None:
    words = [word for record in records for word in record]
    fixed, member = np.full((2, 20), -1, np.int8)
    fixed[1:], member[1:] = 0, 0
    for table, entries in ((fixed, _FIXED_WORDS), (member, _MEMBER_WORDS)):
        for kind, count in entries.items():
            table[kind] = count
    starts = np.empty(len(words) // 3, np.uint32)
    count = type_starts(np.array(words, np.uint32), fixed, member, starts)
    expected = slow.type_starts(words)
    assert (count if count < 0 else starts[:count].tolist()) == (count if expected is None else expected)
    assert (count < 0) == (expected is None)


@pytest.mark.skipif(not VMLINUX.exists(), reason="the running kernel has no BTF")
def test_the_running_kernel_agrees_with_what_its_abi_fixes() -> None:
    btf = BTF.load()
    # sockaddr_in and pt_regs are user-space ABI, so their layout is known.
    assert (btf.offset("sockaddr_in", "sin_port"), btf.offset("sockaddr_in", "sin_addr")) == (2, 4)
    assert (btf.size("sockaddr_in6"), btf.offset("sockaddr_in6", "sin6_addr")) == (28, 8)
    assert btf.offset("sock", "__sk_common.skc_daddr") == btf.offset("sock_common", "skc_daddr")
    assert btf.member("task_struct", "comm").size_bytes == 16
    assert btf.offset("task_struct", "tgid") == btf.offset("task_struct", "pid") + 4
    assert btf.offset("pid", "numbers[1]") - btf.offset("pid", "numbers") == btf.size("upid")


def test_a_foreign_file_is_refused() -> None:
    with pytest.raises(BTFError, match="magic 0x457f"):
        BTF.parse(struct.pack("<I", 0x464C457F) + bytes(60))
