"""What the BPF program and its reader agree on: kernel offsets, record layout, the action of each call.

`header`, `process`, `descriptor` and `tuple` mirror the structs of records.h field by field.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from agent.probe.btf import BTF, BTFError

CALL_LIMIT = 512
COUNTER_KINDS = CALL_LIMIT + 8
COUNT_NO_STASH = CALL_LIMIT + 4
COUNT_COMPAT = CALL_LIMIT + 5
COUNT_NO_COST = CALL_LIMIT + 6

KIND_CALL, KIND_EXEC, KIND_FORK, KIND_EXIT = range(4)

SLOTS = (
    *("path1", "path2", "dir1", "dir2", "fd_path", "fd", "socket", "address"),
    *("data", "cwd", "exe", "args", "env", "process", "cgroup", "extra"),
)
(
    PATH1,
    PATH2,
    DIR1,
    DIR2,
    FD_PATH,
    FD,
    SOCKET,
    ADDRESS,
    DATA,
    CWD,
    EXE,
    ARGS,
    ENV,
    PROCESS,
    CGROUP,
    EXTRA,
) = range(len(SLOTS))

HEADER = np.dtype(
    [
        ("time_ns", "<u8"),
        ("start_ns", "<u8"),
        ("result", "<i8"),
        ("args", "<u8", (6,)),
        *((name, "<u4") for name in ("pid", "tid", "ppid", "uid", "gid")),
        *((name, "<u2") for name in ("kind", "nr", "cpu", "faults")),
        ("size", "<u4"),
        ("comm", "S16"),
        ("parent_start_ns", "<u8"),
    ]
)
"""Start of every record. Times are CLOCK_BOOTTIME; `faults` has a bit for each unreadable slot."""

PROCESS_STRUCT = np.dtype(
    [
        *((f"cap_{name}", "<u8") for name in ("inheritable", "permitted", "effective")),
        ("exe_inode", "<u8"),
        *((name, "<i8") for name in ("exe_ctime_ns", "exe_mtime_ns")),
        *((name, "<u8") for name in ("major_faults", "minor_faults", "size_pages", "rss_pages")),
        *((name, "<u8") for name in ("swap_pages", "fd_limit", "namespace_start_ns")),
        *((name, "<u4") for name in ("uid", "euid", "gid", "egid", "loginuid", "session_id")),
        *((name, "<u4") for name in ("tty", "pgid", "sid", "vpid", "vtid", "vpgid", "vsid")),
        *((name, "<u4") for name in ("exe_mode", "exe_uid", "exe_gid", "exe_magic")),
        *((name, "<u4") for name in ("exe_links", "exe_upper", "exe_pseudo")),
    ]
)
DESCRIPTOR_STRUCT = np.dtype(
    [("inode", "<u8")]
    + [(name, "<u4") for name in ("device", "mode", "magic", "links", "flags", "upper", "pseudo")]
    + [("open_mode", "<u4")]
)
FILE_CREATED = 1 << 20
"""Bit of `open_mode`: this open made the file (the kernel's FMODE_CREATED)."""
TUPLE_STRUCT = np.dtype(
    [
        *((name, "<u2") for name in ("family", "type", "protocol", "state")),
        *((name, "<u2") for name in ("local_port", "remote_port")),
        *((name, "<u4") for name in ("queue", "queue_limit", "unused")),
        *((name, "u1", (16,)) for name in ("local", "remote")),
    ]
)

_REQUIRED: tuple[tuple[str, str], ...] = (
    *(("task_struct", name) for name in ("tgid", "pid", "comm", "real_parent", "group_leader")),
    *(("task_struct", name) for name in ("start_boottime", "cred", "files", "fs", "mm", "signal")),
    *(("cred", name) for name in ("uid", "euid", "gid", "egid")),
    *(("path", name) for name in ("mnt", "dentry")),
    *(("fs_struct", name) for name in ("root", "pwd")),
    *(("dentry", name) for name in ("d_parent", "d_name.name")),
    *(("mount", name) for name in ("mnt", "mnt_parent", "mnt_mountpoint")),
    ("vfsmount", "mnt_root"),
    ("files_struct", "fdt"),
    *(("fdtable", name) for name in ("fd", "max_fds")),
    *(("file", name) for name in ("f_path", "f_inode", "private_data")),
    *(("inode", name) for name in ("i_sb", "i_ino", "i_mode")),
    ("super_block", "s_magic"),
    ("super_block", "s_dev"),
    ("signal_struct", "live"),
)
"""Without these there is no probe."""

_OPTIONAL: tuple[tuple[str, str], ...] = (
    *(("task_struct", name) for name in ("loginuid", "sessionid", "thread_pid", "cgroups")),
    *(("task_struct", name) for name in ("maj_flt", "min_flt", "exit_code")),
    *(("cred", name) for name in ("cap_inheritable", "cap_permitted", "cap_effective")),
    *(("mm_struct", name) for name in ("exe_file", "arg_start", "arg_end", "env_start", "env_end")),
    ("mm_struct", "total_vm"),
    ("file", "f_flags"),
    ("file", "f_mode"),
    *(("inode", name) for name in ("i_nlink", "i_uid", "i_gid")),
    *(("pid", name) for name in ("level", "numbers")),
    *(("upid", name) for name in ("nr", "ns")),
    ("pid_namespace", "child_reaper"),
    *(("signal_struct", name) for name in ("pids", "rlim", "tty", "group_exit_code")),
    *(("tty_struct", name) for name in ("driver", "index")),
    *(("tty_driver", name) for name in ("major", "minor_start")),
    ("css_set", "dfl_cgrp"),
    ("cgroup_subsys_state", "cgroup"),
    ("cgroup", "kn"),
    ("kernfs_node", "name"),
    *(("socket", name) for name in ("sk", "type")),
    *(("sock", name) for name in ("sk_protocol", "sk_ack_backlog", "sk_max_ack_backlog")),
    *(("sock_common", f"skc_{name}") for name in ("family", "state", "rcv_saddr", "daddr", "num", "dport")),
    *(("sock_common", f"skc_v6_{name}") for name in ("rcv_saddr", "daddr")),
)
"""Name of the macro is OFF_struct_member; where one is missing, the field it feeds stays empty."""

_RENAMED: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("OFF_task_struct_status", (("task_struct", "thread_info.status"),)),
    ("OFF_kernfs_node_parent", (("kernfs_node", "__parent"), ("kernfs_node", "parent"))),
    ("OFF_inode_ctime_sec", (("inode", "i_ctime_sec"), ("inode", "__i_ctime"), ("inode", "i_ctime"))),
    (
        "OFF_inode_ctime_nsec",
        (("inode", "i_ctime_nsec"), ("inode", "__i_ctime.tv_nsec"), ("inode", "i_ctime.tv_nsec")),
    ),
    ("OFF_inode_mtime_sec", (("inode", "i_mtime_sec"), ("inode", "__i_mtime"), ("inode", "i_mtime"))),
    (
        "OFF_inode_mtime_nsec",
        (("inode", "i_mtime_nsec"), ("inode", "__i_mtime.tv_nsec"), ("inode", "i_mtime.tv_nsec")),
    ),
    ("OFF_mm_struct_rss_stat", (("mm_struct", "rss_stat[0].count"), ("mm_struct", "rss_stat.count[0]"))),
)
"""Members whose name depends on the version: the first that exists wins."""

_SPANS: dict[str, tuple[str, ...]] = {
    "file": ("f_inode", "f_flags", "f_mode"),
    "inode": ("i_mode", "i_sb", "i_ino", "i_nlink"),
    "super_block": ("s_dev", "s_magic"),
    "dentry": ("d_parent", "d_name.name"),
}
"""Members that are read together, from the first to the last in one piece."""
SPAN_LIMIT = 512
"""Bytes of such a piece; the members lie within 104 in Linux 6.18."""

_REGISTERS = {
    "arg1": "di",
    "arg2": "si",
    "arg3": "dx",
    "arg4": "r10",
    "arg5": "r8",
    "arg6": "r9",
    "nr": "orig_ax",
}
_CGROUP_CONTROLLERS = ("memory_cgrp_id", "pids_cgrp_id", "cpu_cgrp_id")


@dataclass(frozen=True, slots=True)
class Offsets:
    """Macros for the compiler, and the members this kernel lacks."""

    defines: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def _macro(struct: str, member: str) -> str:
    return f"OFF_{struct}_{member.replace('.', '_')}"


def resolve(btf: BTF, unified_cgroup: bool) -> Offsets:
    """All offsets of the program. Raises `BTFError` when one is missing that nothing works without.

    `unified_cgroup` says that container paths stand in the version 2 hierarchy.
    """
    defines = {_macro(struct, member): btf.offset(struct, member) for struct, member in _REQUIRED}
    for name, register in _REGISTERS.items():
        defines[f"OFF_pt_regs_{name}"] = btf.offset("pt_regs", register)
    choices = [(_macro(*pair), (pair,)) for pair in _OPTIONAL]
    missing: list[str] = []
    for macro, alternatives in (*choices, *_RENAMED):
        found = [pair for pair in alternatives if btf.has(*pair)]
        defines[macro] = btf.offset(*found[0]) if found else -1
        if not found:
            missing.append(".".join(alternatives[0]))
    defines |= _spans(defines)
    defines["SIZE_upid"] = btf.size("upid")
    defines["RSS_STRIDE"] = 8
    if btf.has("mm_struct", "rss_stat[1].count"):
        defines["RSS_STRIDE"] = btf.offset("mm_struct", "rss_stat[1]") - btf.offset(
            "mm_struct", "rss_stat[0]"
        )
    defines["OFF_ovl_upper"] = -1
    if btf.has("ovl_inode", "__upperdentry"):
        inside = btf.offset("ovl_inode", "vfs_inode")
        defines["OFF_ovl_upper"] = btf.offset("ovl_inode", "__upperdentry") - inside
    defines["OFF_css_set_subsys"] = -1 if unified_cgroup else _controller_offset(btf)
    return Offsets(defines, tuple(missing))


def _spans(defines: dict[str, int]) -> dict[str, int]:
    """Start and size of the pieces of `_SPANS`, in whole words."""
    found = {"SPAN_LIMIT": SPAN_LIMIT}
    for struct, members in _SPANS.items():
        offsets = [defines[_macro(struct, member)] for member in members]
        begin = min(offset for offset in offsets if offset >= 0) & ~7
        size = (max(offsets) | 7) + 1 - begin
        if size > SPAN_LIMIT:
            raise BTFError(f"members of struct {struct} are {size} bytes apart, the limit is {SPAN_LIMIT}")
        found |= {f"SPAN_{struct}_from": begin, f"SPAN_{struct}_size": size}
    return found


def _controller_offset(btf: BTF) -> int:
    """Where a css_set points to the state of a controller that container runtimes always set up."""
    for name in _CGROUP_CONTROLLERS:
        try:
            return btf.offset("css_set", f"subsys[{btf.enumerator(name)}]")
        except BTFError:
            continue
    return -1


AT_ENTER, LENGTH_POINTER, MESSAGE, OPEN_HOW, CREDENTIALS = 1, 2, 4, 8, 32
RESULT = 7
NO_DIRECTORY = 8


@dataclass(frozen=True, slots=True)
class Action:
    """What is copied for a system call. Arguments count from 1, 0 is none, `RESULT` is the return value.

    `dirs[i]` is the descriptor that `paths[i]` is relative to; `NO_DIRECTORY` marks a text that is no path.
    """

    paths: tuple[int, int] = (0, 0)
    dirs: tuple[int, int] = (0, 0)
    fd: int = 0
    address: int = 0
    length: int = 0
    data: int = 0
    flags: int = 0

    def packed(self) -> tuple[int, ...]:
        """The bytes of `struct action` of an enabled call."""
        row = (1, *self.paths, *self.dirs, self.fd, self.address, self.length, self.data, self.flags)
        return row + (0,) * (16 - len(row))


_PATH = Action(paths=(1, 0))
_AT_PATH = Action(paths=(2, 0), dirs=(1, 0))
_TWO_PATHS = Action(paths=(1, 2))
_FD = Action(fd=1)
_NEW_FD = Action(fd=RESULT)
_NOTHING = Action()
_IDENTITY = Action(flags=CREDENTIALS)

ACTIONS: dict[str, Action] = {
    "open": Action(paths=(1, 0), fd=RESULT, flags=AT_ENTER),
    "creat": Action(paths=(1, 0), fd=RESULT, flags=AT_ENTER),
    "openat": Action(paths=(2, 0), dirs=(1, 0), fd=RESULT, flags=AT_ENTER),
    "openat2": Action(paths=(2, 0), dirs=(1, 0), fd=RESULT, flags=AT_ENTER | OPEN_HOW),
    "execve": Action(paths=(1, 0), flags=AT_ENTER),
    "execveat": Action(paths=(2, 0), dirs=(1, 0), flags=AT_ENTER),
    "connect": Action(fd=1, address=2, length=3, flags=AT_ENTER),
    "bind": Action(fd=1, address=2, length=3),
    "accept": _NEW_FD,
    "accept4": _NEW_FD,
    "listen": _FD,
    "socket": _NEW_FD,
    "sendto": Action(fd=1, address=5, length=6, data=2),
    "sendmsg": Action(fd=1, flags=MESSAGE),
    "recvfrom": Action(fd=1, address=5, length=6, data=2, flags=LENGTH_POINTER),
    "recvmsg": Action(fd=1, flags=MESSAGE),
    "dup": _FD,
    "dup2": _FD,
    "dup3": _FD,
    "symlink": Action(paths=(1, 2), dirs=(NO_DIRECTORY, 0)),
    "symlinkat": Action(paths=(1, 3), dirs=(NO_DIRECTORY, 2)),
    "link": _TWO_PATHS,
    "linkat": Action(paths=(2, 4), dirs=(1, 3)),
    "rename": _TWO_PATHS,
    "renameat": Action(paths=(2, 4), dirs=(1, 3)),
    "renameat2": Action(paths=(2, 4), dirs=(1, 3)),
    "unlink": _PATH,
    "unlinkat": _AT_PATH,
    "rmdir": _PATH,
    "mkdir": _PATH,
    "mkdirat": _AT_PATH,
    "mknod": _PATH,
    "mknodat": _AT_PATH,
    "chmod": _PATH,
    "fchmod": _FD,
    "fchmodat": _AT_PATH,
    "fchmodat2": _AT_PATH,
    "chown": _PATH,
    "lchown": _PATH,
    "fchown": _FD,
    "fchownat": _AT_PATH,
    "chdir": _PATH,
    "fchdir": _FD,
    "chroot": _PATH,
    "mount": Action(paths=(1, 2), dirs=(NO_DIRECTORY, 0)),
    "umount2": _PATH,
    "memfd_create": Action(paths=(1, 0), dirs=(NO_DIRECTORY, 0), fd=RESULT),
    "setns": _FD,
    "finit_module": Action(paths=(2, 0), dirs=(NO_DIRECTORY, 0), fd=1),
    "init_module": Action(paths=(3, 0), dirs=(NO_DIRECTORY, 0)),
    **dict.fromkeys(("clone", "clone3", "fork", "vfork", "kill", "prctl", "setsid", "setpgid"), _NOTHING),
    **dict.fromkeys(("setuid", "setgid", "setresuid", "setresgid", "setreuid", "setregid"), _IDENTITY),
    **dict.fromkeys(("setfsuid", "setfsgid", "capset"), _IDENTITY),
    **dict.fromkeys(("unshare", "ptrace", "bpf", "userfaultfd"), _NOTHING),
}
"""Every system call with an event of its own (security-surface.md 4.1 and what users' rules name)."""


MEASURED_COLUMN = 10
"""Place of the class of a measured call in a row of the table."""


def action_rows(
    calls: Iterable[tuple[int, str]], measured: Iterable[tuple[int, int]] = ()
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The table the program looks calls up in, uint8 (`CALL_LIMIT`, 16).

    `calls` are numbers and names of those to report; `measured` numbers and values of `callcosts.CALLS`.
    """
    rows = np.zeros((CALL_LIMIT, 16), np.uint8)
    for number, name in calls:
        rows[number] = ACTIONS.get(name, _NOTHING).packed()
    for number, value in measured:
        rows[number, MEASURED_COLUMN] = value
    return rows
