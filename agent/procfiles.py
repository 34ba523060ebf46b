"""A process as `/proc` shows it: what the table is seeded from, and the last resort for one it never saw."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICK_NS = 10_000_000
"""`/proc` gives start times in hundredths of a second."""
FILE_BYTES_LIMIT = 65_536
ARGUMENT_BYTES_LIMIT = 4096
CGROUP_CONTROLLERS = ("memory", "pids", "cpu")
"""Version 1 hierarchies by preference, the same as in the kernel program."""


@dataclass(frozen=True, slots=True)
class ProcessFiles:
    """Fields of one process; texts are empty where a file could not be read (kernel threads)."""

    pid: int
    ppid: int
    start_ns: int
    pgid: int
    sid: int
    tty: int
    comm: str
    uids: tuple[int, int]
    gids: tuple[int, int]
    capabilities: tuple[int, int, int]
    vpid: int
    vpgid: int
    loginuid: int
    arguments: bytes
    environment: bytes
    exe_path: str
    cwd: str
    cgroups: tuple[str, ...]
    """Paths of all hierarchies, the one to show first."""


def pids(proc: Path) -> list[int]:
    """Processes that exist now."""
    return [int(name) for name in os.listdir(proc) if name.isdigit()]


def read(pid: int, proc: Path = Path("/proc")) -> ProcessFiles | None:
    """All of a process, None when it is gone or half gone."""
    folder = proc / str(pid)
    stat = _bytes(folder / "stat", FILE_BYTES_LIMIT).decode("utf-8", "surrogateescape")
    status = _status(folder / "status")
    head, _, tail = stat.rpartition(")")
    fields = tail.split()
    if len(fields) < 20 or "Uid" not in status:
        return None
    uids, gids = (tuple(int(word) for word in status[name].split()[:2]) for name in ("Uid", "Gid"))
    login = _bytes(folder / "loginuid", 32).strip()
    return ProcessFiles(
        pid=pid,
        ppid=int(fields[1]),
        start_ns=int(fields[19]) * TICK_NS,
        pgid=int(fields[2]),
        sid=int(fields[3]),
        tty=int(fields[4]),
        comm=head.partition("(")[2],
        uids=(uids[0], uids[1]),
        gids=(gids[0], gids[1]),
        capabilities=_capabilities(status),
        vpid=int(status.get("NSpid", str(pid)).split()[-1]),
        vpgid=int(status.get("NSpgid", fields[2]).split()[-1]),
        loginuid=int(login) if login.isdigit() and login != b"4294967295" else -1,
        arguments=_bytes(folder / "cmdline", ARGUMENT_BYTES_LIMIT),
        environment=_bytes(folder / "environ", ARGUMENT_BYTES_LIMIT),
        exe_path=_link(folder / "exe"),
        cwd=_link(folder / "cwd"),
        cgroups=cgroup_paths(_bytes(folder / "cgroup", FILE_BYTES_LIMIT)),
    )


def cgroup_paths(data: bytes) -> tuple[str, ...]:
    """Paths of a `/proc/PID/cgroup` file, the preferred hierarchy first."""
    found: dict[str, str] = {}
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    order = [name for name in (*CGROUP_CONTROLLERS, "") if name in found]
    return tuple(found[name] for name in (*order, *sorted(found.keys() - set(order))))


def _capabilities(status: dict[str, str]) -> tuple[int, int, int]:
    inheritable, permitted, effective = (
        int(status.get(f"Cap{name}", "0"), 16) for name in ("Inh", "Prm", "Eff")
    )
    return inheritable, permitted, effective


def _status(path: Path) -> dict[str, str]:
    lines = _bytes(path, FILE_BYTES_LIMIT).decode("utf-8", "surrogateescape").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(limit) or b""
    except OSError:
        return b""


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
