"""Names of flag bits and enumerators, as security rules compare them (security-surface.md 4.1).

Open flags are renumbered so that each name is one bit: read is bit 0, write bit 1, O_RDWR both.
"""

from __future__ import annotations

import errno
import os

OPEN_BITS: tuple[tuple[str, int], ...] = (
    ("O_LARGEFILE", 1 << 11),
    ("O_DIRECTORY", 1 << 10),
    ("O_DIRECT", 1 << 9),
    ("O_TRUNC", 1 << 8),
    ("O_SYNC", 1 << 7),
    ("O_NONBLOCK", 1 << 6),
    ("O_EXCL", 1 << 5),
    ("O_DSYNC", 1 << 4),
    ("O_APPEND", 1 << 3),
    ("O_CREAT", 1 << 2),
    ("O_RDWR", 3),
    ("O_WRONLY", 2),
    ("O_RDONLY", 1),
    ("O_CLOEXEC", 1 << 12),
    ("O_TMPFILE", 1 << 13),
    ("O_F_CREATED", 1 << 14),
    ("FD_UPPER_LAYER", 1 << 15),
    ("FD_LOWER_LAYER", 1 << 16),
)
"""In the order in which they are written."""

_KERNEL_OPEN: tuple[tuple[int, int], ...] = (
    (os.O_CREAT, 1 << 2),
    (os.O_APPEND, 1 << 3),
    (os.O_DSYNC, 1 << 4),
    (os.O_EXCL, 1 << 5),
    (os.O_NONBLOCK, 1 << 6),
    (os.O_SYNC & ~os.O_DSYNC, 1 << 7),
    (os.O_TRUNC, 1 << 8),
    (os.O_DIRECT, 1 << 9),
    (os.O_DIRECTORY, 1 << 10),
    (0o100000, 1 << 11),
    (os.O_CLOEXEC, 1 << 12),
    (os.O_TMPFILE & ~os.O_DIRECTORY, 1 << 13),
)

MODE_BITS = tuple(
    (name, 1 << bit)
    for bit, name in enumerate(
        (
            *("S_IXOTH", "S_IWOTH", "S_IROTH", "S_IXGRP", "S_IWGRP", "S_IRGRP"),
            *("S_IXUSR", "S_IWUSR", "S_IRUSR", "S_ISVTX", "S_ISGID", "S_ISUID"),
        )
    )
)

CLONE_BITS: tuple[tuple[str, int], ...] = (
    ("CLONE_FILES", 0x400),
    ("CLONE_FS", 0x200),
    ("CLONE_IO", 0x80000000),
    ("CLONE_NEWCGROUP", 0x2000000),
    ("CLONE_NEWIPC", 0x8000000),
    ("CLONE_NEWNET", 0x40000000),
    ("CLONE_NEWNS", 0x20000),
    ("CLONE_NEWPID", 0x20000000),
    ("CLONE_NEWTIME", 0x80),
    ("CLONE_NEWUSER", 0x10000000),
    ("CLONE_NEWUTS", 0x4000000),
    ("CLONE_PARENT", 0x8000),
    ("CLONE_PTRACE", 0x2000),
    ("CLONE_SIGHAND", 0x800),
    ("CLONE_SYSVSEM", 0x40000),
    ("CLONE_THREAD", 0x10000),
    ("CLONE_UNTRACED", 0x800000),
    ("CLONE_VFORK", 0x4000),
    ("CLONE_VM", 0x100),
)
_CAPTURE_CLONE_NAMES = (
    *("CLONE_FILES", "CLONE_FS", "CLONE_IO", "CLONE_NEWIPC", "CLONE_NEWNET", "CLONE_NEWNS"),
    *("CLONE_NEWPID", "CLONE_NEWUTS", "CLONE_PARENT", "CLONE_PARENT_SETTID", "CLONE_PTRACE"),
    *("CLONE_SIGHAND", "CLONE_SYSVSEM", "CLONE_THREAD", "CLONE_UNTRACED", "CLONE_VM", "CLONE_INVERTED"),
    *("NAME_CHANGED", "CLOSED", "ACTIVE", "CLONE_NEWUSER", "PIPE_SRC", "PIPE_DST"),
    *("CLONE_CHILD_CLEARTID", "CLONE_CHILD_SETTID", "CLONE_SETTLS", "CLONE_STOPPED", "CLONE_VFORK"),
    *("CLONE_NEWCGROUP", "CHILD_IN_PIDNS", "IS_MAIN_THREAD"),
)
CAPTURE_CLONE_BITS = tuple((name, 1 << bit) for bit, name in enumerate(_CAPTURE_CLONE_NAMES))
"""The numbering of capture files."""
NAMESPACE_BITS = tuple((name, bit) for name, bit in CLONE_BITS if name.startswith("CLONE_NEW"))
EXECUTION_BITS: tuple[tuple[str, int], ...] = (
    ("EXE_WRITABLE", 1),
    ("EXE_UPPER_LAYER", 2),
    ("EXE_FROM_MEMFD", 4),
    ("EXE_LOWER_LAYER", 8),
)
MEMFD_BITS = (("MFD_CLOEXEC", 1), ("MFD_ALLOW_SEALING", 2), ("MFD_HUGETLB", 4))
AT_BITS: tuple[tuple[str, int], ...] = (
    ("AT_SYMLINK_NOFOLLOW", 0x100),
    ("AT_REMOVEDIR", 0x200),
    ("AT_SYMLINK_FOLLOW", 0x400),
    ("AT_EMPTY_PATH", 0x1000),
)
RENAME_BITS = (("RENAME_NOREPLACE", 1), ("RENAME_EXCHANGE", 2), ("RENAME_WHITEOUT", 4))

FAMILIES = {
    0: "AF_UNSPEC",
    1: "AF_UNIX",
    2: "AF_INET",
    4: "AF_IPX",
    5: "AF_APPLETALK",
    9: "AF_X25",
    10: "AF_INET6",
    15: "AF_KEY",
    16: "AF_NETLINK",
    17: "AF_PACKET",
    29: "AF_CAN",
    31: "AF_BLUETOOTH",
    38: "AF_ALG",
    40: "AF_VSOCK",
    44: "AF_XDP",
}
PTRACE_REQUESTS = {
    0: "PTRACE_TRACEME",
    1: "PTRACE_PEEKTEXT",
    2: "PTRACE_PEEKDATA",
    3: "PTRACE_PEEKUSR",
    4: "PTRACE_POKETEXT",
    5: "PTRACE_POKEDATA",
    6: "PTRACE_POKEUSR",
    7: "PTRACE_CONT",
    8: "PTRACE_KILL",
    9: "PTRACE_SINGLESTEP",
    12: "PTRACE_GETREGS",
    13: "PTRACE_SETREGS",
    14: "PTRACE_GETFPREGS",
    15: "PTRACE_SETFPREGS",
    16: "PTRACE_ATTACH",
    17: "PTRACE_DETACH",
    24: "PTRACE_SYSCALL",
    0x4200: "PTRACE_SETOPTIONS",
    0x4201: "PTRACE_GETEVENTMSG",
    0x4202: "PTRACE_GETSIGINFO",
    0x4203: "PTRACE_SETSIGINFO",
    0x4204: "PTRACE_GETREGSET",
    0x4205: "PTRACE_SETREGSET",
    0x4206: "PTRACE_SEIZE",
    0x4207: "PTRACE_INTERRUPT",
    0x4208: "PTRACE_LISTEN",
    0x4209: "PTRACE_PEEKSIGINFO",
}
CAPTURE_PTRACE_REQUESTS = dict(
    enumerate(
        (
            *("PTRACE_TRACEME", "PTRACE_PEEKTEXT", "PTRACE_PEEKDATA", "PTRACE_PEEKUSR", "PTRACE_POKETEXT"),
            *("PTRACE_POKEDATA", "PTRACE_POKEUSR", "PTRACE_CONT", "PTRACE_KILL", "PTRACE_SINGLESTEP"),
            *("PTRACE_ATTACH", "PTRACE_DETACH", "PTRACE_SYSCALL", "PTRACE_SETOPTIONS", "PTRACE_GETEVENTMSG"),
            *("PTRACE_GETSIGINFO", "PTRACE_SETSIGINFO", "PTRACE_GETREGSET", "PTRACE_SETREGSET"),
            *("PTRACE_SEIZE", "PTRACE_INTERRUPT", "PTRACE_LISTEN", "PTRACE_PEEKSIGINFO"),
            *("PTRACE_GETSIGMASK", "PTRACE_SETSIGMASK", "PTRACE_GETREGS", "PTRACE_SETREGS"),
            *("PTRACE_GETFPREGS", "PTRACE_SETFPREGS"),
        ),
        start=1,
    )
)
"""The numbering of capture files."""
_CAPABILITIES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT
SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL
SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITY_BITS = tuple((f"CAP_{name}", 1 << bit) for bit, name in enumerate(_CAPABILITIES.split()))
BPF_COMMANDS = dict(
    enumerate(
        (
            *("BPF_MAP_CREATE", "BPF_MAP_LOOKUP_ELEM", "BPF_MAP_UPDATE_ELEM", "BPF_MAP_DELETE_ELEM"),
            *("BPF_MAP_GET_NEXT_KEY", "BPF_PROG_LOAD", "BPF_OBJ_PIN", "BPF_OBJ_GET", "BPF_PROG_ATTACH"),
            *("BPF_PROG_DETACH", "BPF_PROG_TEST_RUN", "BPF_PROG_GET_NEXT_ID", "BPF_MAP_GET_NEXT_ID"),
            *("BPF_PROG_GET_FD_BY_ID", "BPF_MAP_GET_FD_BY_ID", "BPF_OBJ_GET_INFO_BY_FD", "BPF_PROG_QUERY"),
            *("BPF_RAW_TRACEPOINT_OPEN", "BPF_BTF_LOAD", "BPF_BTF_GET_FD_BY_ID", "BPF_TASK_FD_QUERY"),
            *("BPF_MAP_LOOKUP_AND_DELETE_ELEM", "BPF_MAP_FREEZE", "BPF_BTF_GET_NEXT_ID"),
            *("BPF_MAP_LOOKUP_BATCH", "BPF_MAP_LOOKUP_AND_DELETE_BATCH", "BPF_MAP_UPDATE_BATCH"),
            *("BPF_MAP_DELETE_BATCH", "BPF_LINK_CREATE", "BPF_LINK_UPDATE", "BPF_LINK_GET_FD_BY_ID"),
            *("BPF_LINK_GET_NEXT_ID", "BPF_ENABLE_STATS", "BPF_ITER_CREATE", "BPF_LINK_DETACH"),
            "BPF_PROG_BIND_MAP",
        )
    )
)


def open_flags(flags: int) -> int:
    """The kernel's open flags in the numbering of `OPEN_BITS`."""
    access = flags & os.O_ACCMODE
    found = (1, 2, 3, 0)[access]
    for kernel, ours in _KERNEL_OPEN:
        if kernel and flags & kernel == kernel:
            found |= ours
    return found


def bit_names(value: int, table: tuple[tuple[str, int], ...]) -> str:
    """Names of the bits that are set, joined by `|`; a name of several bits hides those of its parts."""
    names = []
    for name, bits in table:
        if value & bits == bits:
            names.append(name)
            value &= ~bits
    return "|".join(names)


def capability_names(mask: int) -> str:
    """Names of capabilities joined by blanks, as `thread.cap_effective` shows them."""
    return " ".join(name for name, bit in CAPABILITY_BITS if mask & bit)


def error_name(result: int) -> str:
    """Symbol of a negative result, empty for a success."""
    return errno.errorcode.get(-result, "") if result < 0 else ""
