"""Captures of system calls: the reference captures as upstream, and ones made here for all else."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest

from agent.eventtypes import parameter_table
from security.capture.blocks import open_capture
from security.capture.cursor import CaptureError
from security.capture.eventtable import current_events, event_table
from security.capture.source import Capture
from security.columns import EventBatch
from security.engine import RuleEngine
from security.fields.flagnames import CAPTURE_CLONE_BITS
from security.fields.table import field_table
from security.rules.loader import RuleLoader
from tests.security.capturebuilder import (
    CaptureFile,
    address,
    block,
    connection,
    descriptors,
    event,
    file_descriptor,
    section,
    thread,
    users,
)
from tests.security.captureexpectations import CAPTURE_CASES, CAPTURES, CaptureCase
from tests.security.conformance import difference, run_capture

CONTAINER = "a" * 64
CLONE = dict(CAPTURE_CLONE_BITS)
needs_captures = pytest.mark.skipif(not CAPTURES.is_dir(), reason=f"no reference data at {CAPTURES}")


def read(*blocks: bytes, size: int = 65_536) -> list[EventBatch]:
    """The batches of a capture of these blocks."""
    return list(Capture(io.BytesIO(b"".join((section(), *blocks)))).batches(size))


def fields(batch: EventBatch, *keys: str) -> list[tuple[Any, ...]]:
    """Values of fields, `name` or `name[argument]`, for every event."""
    columns = []
    for key in keys:
        name, _, argument = key.removesuffix("]").partition("[")
        column = batch.column(field_table("syscall").find(name, argument or None).key)
        columns.append([None if column is None else column.value(row) for row in range(batch.count)])
    return list(zip(*columns, strict=True))


def one(*blocks: bytes, keys: str) -> tuple[Any, ...]:
    """Values of fields, separated by blanks, for the last event of a capture."""
    return fields(read(*blocks)[-1], *keys.split())[-1]


@needs_captures
@pytest.mark.parametrize("case", CAPTURE_CASES, ids=lambda case: case.name)
def test_reference_capture_raises_the_rules_that_upstream_found(case: CaptureCase) -> None:
    assert difference(run_capture(case), case.expected) == ""


@needs_captures
def test_reference_capture_gives_the_line_that_upstream_printed() -> None:
    rules = RuleLoader()
    rules.load_text(
        "rules.yaml",
        "- rule: open\n  desc: d\n  condition: evt.type=open and fd.name=/dev/null\n"
        "  output: An open was seen (cport=%fd.cport command=%proc.cmdline)\n  priority: WARNING\n",
    )
    with open_capture(str(CAPTURES / "cat_write.scap")) as stream:
        [batch] = Capture(stream).batches()
    [output] = RuleEngine(rules.rules).process(batch)
    assert output.message == "An open was seen (cport=<NA> command=cat /dev/null)"
    assert output.time_ns == 1470327477882054739
    assert batch.hostname == "ubuntu"


# Where a capture has more than a live record, or names it otherwise.
TOLD_OTHERWISE = {"recvmsg", "mount", "prctl", "capset", "clone", "clone3", "fork", "vfork", "procexit"}


def test_events_have_the_parameters_that_live_events_have() -> None:
    current = current_events()
    for name, specs in parameter_table().items():
        if name not in TOLD_OTHERWISE | {"fchmodat2"}:
            assert [spec.name for spec in current[name].parameters] == [spec.name for spec in specs], name


def test_every_exit_has_an_entry_of_the_same_name() -> None:
    table = event_table()
    for code, spec in table.items():
        if spec.direction == "<":
            assert (table[code - 1].direction, table[code - 1].name) == (">", spec.name)


SHELL = thread(100, "bash", 50, arguments=("-i",), environment=("HOME=/root", "A=b"), cwd="/root")
PARENT = thread(50, "sshd", 1)
INIT = thread(1, "systemd", 0)
BASE = (users((0, "root"), (1000, "ada")), INIT, PARENT, SHELL)


def test_process_fields_come_from_the_list_and_from_its_ancestors() -> None:
    keys = "proc.name proc.pname proc.aname[2] proc.aname proc.cmdline proc.args proc.env[A] proc.cwd "
    keys += "proc.exepath proc.ppid user.name container.id proc.vpid thread.vtid proc.exe_ino "
    keys += "proc.is_exe_writable"
    found = one(*BASE, event(5, 100, 0, 3), keys=keys)
    assert found[:4] == ("bash", "sshd", "systemd", ("sshd", "systemd"))
    assert found[4:9] == ("bash -i", "-i", "b", "/root/", "/usr/bin/bash")
    assert found[9:] == (50, "root", "host", 100, 100, None, None)


LATE = struct.pack("<QIiBQQQBQQQB", 5, 34816, 1000, 1, 0, 1 << 21, 1 << 21, 1, 9, 8, 7, 0)


def test_members_that_came_late_are_read_as_far_as_they_are_there() -> None:
    keys = "proc.tty user.loginuid user.loginname proc.is_exe_writable thread.cap_effective proc.exe_ino"
    whole = one(users((1000, "ada")), thread(100, "sh", late=LATE), event(5, 100, 0), keys=keys)
    assert whole == (34816, 1000, "ada", True, "CAP_SYS_ADMIN", 9)
    # Before libs 0.10 the terminal and the start of the namespace were not there.
    early = LATE[12 : 12 + 29]
    assert one(thread(100, "sh", late=early), event(5, 100, 0), keys=keys)[:2] == (None, 1000)
    assert one(thread(100, "sh"), event(5, 100, 0), keys=keys) == (None, None, "<NA>", None, None, None)


def test_a_thread_that_the_capture_does_not_describe_has_no_values() -> None:
    keys = "proc.name proc.pname proc.exepath user.uid user.name proc.cwd evt.type"
    assert one(event(5, 7, 0, 3), keys=keys) == ("<NA>", None, None, None, "<NA>", None, "close")


@pytest.mark.parametrize("old", [True, False], ids=["old blocks", "new blocks"])
def test_the_entry_of_a_call_gives_what_its_exit_lacks(old: bool) -> None:
    blocks = (event(102, 100, -100, "../etc/shadow", 1, 0, old=old), event(103, 100, 4, old=old))
    keys = "evt.type fd.name fd.nameraw fd.num evt.arg.flags evt.arg.name "
    keys += "evt.is_open_read evt.is_open_write evt.dir"
    found = one(*BASE, *blocks, keys=keys)
    assert found == (
        *("openat", "/etc/shadow", "../etc/shadow", 4, "O_RDONLY", "/etc/shadow"),
        *(True, False, "<"),
    )


def test_the_entry_of_another_call_or_thread_is_not_used() -> None:
    exits = (event(4, 100, 9), event(70, 101, 8), event(71, 100, 0))
    assert one(*BASE, *exits, keys="evt.type fd.num evt.arg.fd") == ("fstat", None, None)


def test_a_failed_open_has_a_name_and_no_descriptor() -> None:
    keys = "fd.name fd.num fd.typechar evt.res evt.failed evt.rawres fs.path.name fd.type"
    blocks = event(307, 100, -2, -100, "x/../y", 6, 0o644)
    assert one(*BASE, blocks, keys=keys) == ("/root/y", -1, "f", "ENOENT", True, -2, None, None)


def test_paths_start_at_the_directory_that_a_descriptor_names() -> None:
    opened = event(307, 100, 5, -100, "/srv/data", 1 << 10, 0)
    keys = "fd.name evt.arg.dirfd fs.path.name"
    assert one(*BASE, opened, event(307, 100, 6, 5, "a", 1, 0), keys=keys) == (
        *("/srv/data/a", "<d>/srv/data", "/srv/data/a"),
    )
    gone = (opened, event(5, 100, 0, 5), event(303, 100, 0, 5, "a", 0x200))
    assert one(*BASE, *gone, keys="evt.arg.name evt.arg.flags fs.path.name") == ("a", "AT_REMOVEDIR", "a")


def test_bytes_that_moved_by_direction_and_kind() -> None:
    keys = (
        "evt.buflen evt.buflen.in evt.buflen.out evt.buflen.file evt.buflen.net.out evt.category evt.io_dir"
    )
    listed = descriptors(100, file_descriptor(3, "/etc/passwd"))
    assert one(*BASE, listed, event(7, 100, 4, b"data", 3, 4), keys=keys) == (
        *(4, 4, None, 4, None, "io-read", "r"),
    )
    assert one(*BASE, SOCKET, *CONNECT, event(29, 100, 9, b"x", 3, 1), keys=keys) == (
        *(9, None, 9, None, 9, "io-write", "w"),
    )
    created = one(
        *BASE, event(59, 100, 3, "x", 0o755), keys="evt.is_open_write evt.is_open_exec evt.category"
    )
    assert created == (False, True, "file")


def test_descriptors_are_listed_copied_and_closed() -> None:
    listed = descriptors(100, file_descriptor(3, "/etc/passwd"))
    read_it = event(9, 100, 4, b"data", 3, 4)
    keys = "fd.name fd.directory fd.filename fd.type fd.num evt.buffer evt.is_io_write fd.dev.major"
    assert one(*BASE, listed, read_it, keys=keys) == (
        *("/etc/passwd", "/etc", "passwd", "file", 3, b"data", True, 8),
    )
    copied = (listed, event(363, 100, 9, 3, 9), event(9, 100, 1, b"x", 9, 1))
    assert one(*BASE, *copied, keys="fd.name fd.num") == ("/etc/passwd", 9)
    closed = (listed, event(5, 100, 0, 3), event(9, 100, -9, b"", 3, 1))
    assert one(*BASE, *closed, keys="fd.name fd.num evt.res") == (None, 3, "EBADF")


def clone_exits(child: int, flags: int = 0) -> tuple[bytes, bytes]:
    """Both returns of a clone by thread 100, the child's first."""
    head = (
        "bash",
        ("-i",),
        child,
        child,
        100,
        "",
        1024,
        0,
        0,
        1,
        1,
        0,
        "bash",
        (),
        flags,
        0,
        0,
        child,
        child,
    )
    caller = ("bash", ("-i",), 100, 100, 50, "", 1024, 0, 0, 1, 1, 0, "bash", (), flags, 0, 0, 100, 100)
    return event(223, child, 0, *head, time_ns=2_000), event(223, 100, child, *caller, time_ns=3_000)


@pytest.mark.parametrize("order", [1, -1], ids=["child first", "parent first"])
def test_a_child_inherits_and_executes(order: int) -> None:
    listed = descriptors(100, file_descriptor(3, "/secret"), file_descriptor(4, "/shut", 1 | 1 << 12))
    execution = (
        "/bin/cat",
        ("/x",),
        200,
        200,
        100,
        "",
        9,
        0,
        0,
        5,
        6,
        7,
        "cat",
        ("cpu=/docker/" + CONTAINER,),
    )
    blocks = (
        *(listed, *clone_exits(200)[::order]),
        event(292, 200, "cat"),
        event(293, 200, 0, *execution, ("B=c",), 34816, 200, 1000, 1, 0, 0, 0, 11, 12, 13, 1000, "/bin/cat"),
        event(9, 200, 1, b"x", 3, 1, time_ns=5_000),
    )
    keys = "proc.name proc.pname proc.exepath proc.cmdline proc.env proc.tty user.name container.id fd.name"
    assert one(*BASE, *blocks, keys=keys) == (
        *("cat", "bash", "/bin/cat", "cat /x", "B=c", 34816, "<NA>", "a" * 12, "/secret"),
    )
    assert one(*BASE, *blocks, keys="proc.duration proc.cwd proc.is_exe_writable")[1:] == ("/root/", True)
    after = (*blocks, event(9, 200, 1, b"x", 4, 1))
    assert one(*BASE, *after, keys="fd.name") == (None,)


def test_a_failed_execution_changes_nothing() -> None:
    failed = event(293, 100, -2, "nope", ("x",), 100, 100, 50, "/", 9, 0, 0, 0, 0, 0, "nope")
    keys = "evt.type proc.name proc.args evt.res evt.arg.exe"
    assert one(*BASE, failed, keys=keys) == ("execve", "bash", "-i", "ENOENT", "nope")


def test_a_thread_shares_the_process_and_its_descriptors() -> None:
    listed = descriptors(100, file_descriptor(3, "/shared"))
    worker = thread(101, "worker", 50, pid=100)
    keys = "proc.name proc.pid thread.tid thread.ismain fd.name"
    assert one(*BASE, listed, worker, event(9, 101, 1, b"", 3, 1), keys=keys) == (
        *("bash", 100, 101, False, "/shared"),
    )


def test_children_of_an_ended_process_go_to_the_reaper_or_to_init() -> None:
    child = thread(200, "job", 100)
    for end, parent in ((event(186, 100, 0, 0, 0, 0, 50), "sshd"), (event(186, 100, 0), "systemd")):
        batch = read(*BASE, child, end, event(5, 200, 0, 3))[0]
        assert fields(batch, "evt.type", "proc.name", "proc.pname") == [
            ("procexit", "bash", "sshd"),
            ("close", "job", parent),
        ]


def test_a_loop_of_parents_ends() -> None:
    loop = (thread(8, "a", 9), thread(9, "b", 8))
    assert one(*loop, event(5, 8, 0), keys="proc.aname proc.aname[1] proc.aname[2]") == (("b",), "b", None)


CONNECT = (event(22, 100, 3), event(23, 100, 0, connection("10.0.0.1", 4242, "1.2.3.4", 22)))
SOCKET = event(19, 100, 3, 2, 1, 0)
NETWORK = "fd.name fd.type fd.l4proto fd.cport fd.sport fd.connected fd.is_server fd.num"


def test_ends_of_connections_and_who_is_the_server() -> None:
    assert one(*BASE, SOCKET, *CONNECT, keys=NETWORK) == (
        *("10.0.0.1:4242->1.2.3.4:22", "ipv4", "tcp", 4242, 22, True, False, 3),
    )
    keys = "fd.lport fd.rport fd.sip fd.ip fd.port"
    found = one(*BASE, SOCKET, *CONNECT, keys=keys)
    assert (found[:2], str(found[2]), tuple(map(str, found[3])), found[4]) == (
        *((4242, 22), "1.2.3.4", ("10.0.0.1", "1.2.3.4")),
        (4242, 22),
    )
    accepted = event(247, 100, 4, connection("9.9.9.9", 5, "10.0.0.1", 80), 0, 1, 128)
    assert one(*BASE, accepted, keys=NETWORK) == (
        *("9.9.9.9:5->10.0.0.1:80", "ipv4", "tcp", 5, 80, True, True, 4),
    )


def test_a_refused_connection_and_one_that_is_pending() -> None:
    refused = (SOCKET, event(22, 100, 3, address("1.2.3.4", 22)), event(23, 100, -111, b""))
    assert one(*BASE, *refused, keys="fd.name fd.connected fd.sport evt.res") == (
        *("1.2.3.4:22", False, 22, "ECONNREFUSED"),
    )
    pending = (SOCKET, event(23, 100, -115, connection("1.1.1.1", 1, "2.2.2.2", 2), 3))
    assert one(*BASE, *pending, keys="fd.connected evt.res") == (True, "EINPROGRESS")


def test_datagrams_change_the_name_of_a_socket() -> None:
    socket = event(19, 100, 3, 2, 2, 0)
    sent = [
        event(31, 100, 4, b"ping", 3, 4, connection("10.0.0.1", 1000, target, 53))
        for target in ("8.8.8.8", "8.8.8.8", "9.9.9.9")
    ]
    batch = read(*BASE, socket, *sent)[0]
    assert fields(batch, "fd.name_changed", "fd.name", "fd.l4proto")[1:] == [
        (True, "10.0.0.1:1000->8.8.8.8:53", "udp"),
        (False, "10.0.0.1:1000->8.8.8.8:53", "udp"),
        (True, "10.0.0.1:1000->9.9.9.9:53", "udp"),
    ]
    arrived = event(35, 100, 4, b"pong", connection("7.7.7.7", 9, "10.0.0.1", 53), 3, 4)
    assert one(*BASE, socket, arrived, keys="fd.name fd.is_server") == ("7.7.7.7:9->10.0.0.1:53", True)


def test_threads_without_a_known_process_do_not_share_descriptors() -> None:
    opened = event(307, 7, 3, -100, "/secret", 1, 0)
    assert one(opened, event(9, 7, 1, b"x", 3, 1), keys="fd.name") == ("/secret",)
    assert one(opened, event(9, 8, 1, b"x", 3, 1), keys="fd.name fd.num") == (None, 3)
    assert one(opened, event(186, 7, 0), event(9, 7, 1, b"x", 3, 1), keys="fd.name") == (None,)


def test_a_new_process_has_nothing_of_an_earlier_one_with_its_number() -> None:
    stale = (thread(200, "old", 50), descriptors(200, file_descriptor(9, "/old")))
    listed = descriptors(100, file_descriptor(3, "/new"))
    for returned in clone_exits(200):
        blocks = (*BASE, *stale, listed, returned)
        keys = "proc.name proc.pname fd.name"
        assert one(*blocks, event(9, 200, 1, b"x", 9, 1), keys=keys) == ("bash", "bash", None)
        assert one(*blocks, event(9, 200, 1, b"x", 3, 1), keys=keys) == ("bash", "bash", "/new")


def test_a_result_that_the_capture_does_not_have_is_missing() -> None:
    assert one(*BASE, event(4, 100, 7), event(5, 100), keys="evt.rawres evt.res fd.num") == (None, None, 7)


def test_changes_of_directory_users_and_names_are_followed() -> None:
    changes = (
        *(event(95, 100, 0, "sub/.."), event(95, 100, 0, "/var/log"), event(199, 100, 0, 1000)),
        *(event(401, 100, 0, 15, "renamed"), event(275, 100, 100), event(195, 100, 0, 7, 8, 9)),
    )
    keys = "proc.cwd user.uid user.name proc.name proc.sid group.gid evt.arg.rgid"
    assert one(*BASE, *changes, keys=keys) == ("/var/log/", 1000, "ada", "renamed", 100, 8, "7")
    assert one(*BASE, event(199, 100, -1, 1000), keys="user.uid evt.arg.uid") == (0, "ada")


DESCRIBED = (
    b'{"container":{"id":"' + b"a" * 12 + b'","name":"web","image":"reg:5000/app:1.2","privileged":true,'
    b'"Mounts":[{"Source":"/var/run","Destination":"/run","Mode":"","RW":true,"Propagation":"r"}],'
    b'"labels":{"io.kubernetes.pod.name":"pod-1","io.kubernetes.pod.namespace":"shop"}}}\0'
)


def test_containers_are_described_by_events_and_bad_descriptions_lose_only_themselves() -> None:
    inside = thread(300, "app", 1, cgroups=(f"memory=/docker/{CONTAINER}",))
    bad = (event(272, 1, "no json"), event(272, 1, '["a"]'), event(272, 1, '{"container":{"id":7}}'))
    blocks = (inside, *bad, event(272, 1, DESCRIBED), event(354, 1, 5, 5, "eve", "/", "/bin/sh", "a" * 12))
    keys = "container.name container.image.repository container.image.tag container.privileged "
    keys += "container.mount.dest[/var/*] container.mounts k8s.ns.name k8s.pod.name container.id container.ip"
    assert one(*blocks, event(5, 300, 0), keys=keys) == (
        *("web", "reg:5000/app", "1.2", True, "/run", "/var/run:/run::true:r", "shop", "pod-1"),
        *("a" * 12, None),
    )
    changed = event(199, 300, 0, 5)
    assert one(*blocks, changed, keys="user.name user.shell") == ("eve", "/bin/sh")
    large = event(324, 1, DESCRIBED, large=True)
    assert one(inside, large, event(5, 300, 0), keys="container.name") == ("web",)


def test_calls_without_an_event_have_the_name_of_their_number() -> None:
    generic = (event(0, 100, 1, 28), event(1, 100, 1))
    assert one(*BASE, *generic, keys="evt.type evt.rawres") == ("madvise", None)
    assert one(*BASE, event(1, 100, 1), keys="evt.type") == ("syscall",)


def test_unknown_numbers_and_blocks_are_skipped_and_counted() -> None:
    stream = io.BytesIO(b"".join((section(), block(0x999, b"x" * 9), event(5, 1, 0), event(4_001, 1))))
    capture = Capture(stream)
    assert [batch.count for batch in capture.batches()] == [1]
    assert (capture.events_count, capture.unknown_count) == (1, 1)


def test_parameters_on_one_line() -> None:
    made = event(417, 100, 0, -100, "dev\n", 0o644, 5)
    [line] = one(*BASE, made, keys="evt.args")
    assert line == (
        "res=0 dirfd=-100(AT_FDCWD) path=dev\\x0a(/root/dev\\x0a) "
        "mode=0644(S_IROTH|S_IRGRP|S_IWUSR|S_IRUSR) dev=5"
    )


def test_batches_have_a_size_and_numbers_that_go_on() -> None:
    events = [event(5, 100, 0, 3, time_ns=time) for time in (10, 20, 40, 80, 2_000_000_100)]
    batches = read(*BASE, *events, size=2)
    keys = ("evt.num", "evt.reltime", "evt.deltatime", "evt.reltime.s")
    found = [row for batch in batches for row in fields(batch, *keys)]
    assert found == [
        (1, 0, 0, 0),
        (2, 10, 10, 0),
        (3, 30, 20, 0),
        (4, 70, 40, 0),
        (5, 2_000_000_090, 2_000_000_020, 2),
    ]


def broken(data: bytes) -> str:
    with pytest.raises(CaptureError) as caught:
        list(Capture(io.BytesIO(data)).batches())
    return str(caught.value)


HEADER = section()
LONG = struct.pack("<II", 0x216, 0xFFFF_FFF0)
BROKEN = [
    (b"", "empty file, not a capture at byte 0"),
    (b"\x0a", "cut off in a block header at byte 0"),
    (block(0x201, b""), "block type 0x201 instead of a section header, not a capture at byte 0"),
    (section(magic=0x4D3C2B1A), "byte order 0x4d3c2b1a instead of 0x1a2b3c4d at byte 12"),
    (section(major=2), "capture version 2.2 is newer than 1 at byte 16"),
    (HEADER + b"\x16\x02", "cut off in a block header at byte 28"),
    (HEADER + LONG, "block of 4294967268 bytes is over the limit of 16777216 at byte 28"),
    (HEADER + event(5, 1, 0)[:-5], "cut off in a block of 52 bytes at byte 28"),
    (HEADER + struct.pack("<II", 0x216, 4), "block length 4 is less than its header at byte 28"),
    (HEADER + event(5, 1, 0)[:-4] + b"\1\0\0\0", "block lengths 52 and 1 differ at byte 28"),
    (HEADER + block(0x216, b"\0" * 8), "event of 8 bytes is less than its header at byte 36"),
    (HEADER + block(0x215, struct.pack("<I", 3)), "thread of 3 bytes at byte 40"),
    (HEADER + block(0x215, struct.pack("<I", 90)), "thread of 86 bytes, but only 0 are left at byte 40"),
    (HEADER + block(0x203, b"\0" * 24 + b"\x63\0\0\0"), "descriptor of unknown type 99 at byte 61"),
    (
        HEADER + event(5, 1, 0).replace(struct.pack("<I", 36), struct.pack("<I", 99)),
        "event says 99 bytes, block has 38 at byte 36",
    ),
]


@pytest.mark.parametrize(("data", "text"), BROKEN, ids=[text[:40] for _, text in BROKEN])
def test_a_bad_capture_says_what_is_wrong_and_where(data: bytes, text: str) -> None:
    assert broken(data) == text


def test_what_came_before_the_fault_has_been_given(tmp_path: Path) -> None:
    events = [event(5, 1, 0, time_ns=time * 7919) for time in range(1, 101)]
    path = CaptureFile().add(*events).write(tmp_path / "cut.scap")
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])
    with open_capture(path) as stream:
        batches = Capture(stream).batches()
        assert 20 < next(batches).count < 100
        with pytest.raises(CaptureError, match="cannot unpack: Compressed file ended before"):
            next(batches)


def test_lengths_of_parameters_that_do_not_add_up_are_refused() -> None:
    good = event(5, 1, 0, old=True)
    bad = good.replace(struct.pack("<H", 8), struct.pack("<H", 7), 1)
    assert bad != good
    assert "lengths of parameters do not make" in broken(HEADER + bad)
