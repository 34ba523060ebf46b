"""Loads the BPF program and keeps what belongs to it: the ring, the table of enabled calls, the counters."""

from __future__ import annotations

import json
import mmap
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.probe import headers, layout
from agent.probe.btf import BTF, BTFError
from agent.probe.loader import MAPS
from security.fields import syscalls

PAGE_BYTES = 4096
RING_PAGES = 4096
"""16 MiB: a burst of 60,000 typical records while the reader is away."""
STASH_ENTRIES = 8192
"""Threads that are inside a guarded call at the same moment."""
LOAD_SECONDS_LIMIT = 60.0
ANSWER_BYTES_LIMIT = 1 << 20
DESCRIPTORS_LIMIT = 32

TRACEPOINTS = (
    ("sys_enter", "on_sys_enter"),
    ("sys_exit", "on_sys_exit"),
    ("sched_process_exec", "on_exec"),
    ("task_newtask", "on_fork"),
    ("sched_process_exit", "on_exit"),
)


class ProbeError(RuntimeError):
    """There can be no probe on this host; the text says why in one line."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Records by CPU and kind since the start, uint64 (CPUs, `layout.COUNTER_KINDS`).

    A kind is a system call number, or `layout.CALL_LIMIT` plus a record kind.
    """

    sent: npt.NDArray[np.uint64]
    lost: npt.NDArray[np.uint64]


class Probe:
    """A loaded and attached program. One thread uses it; `close` detaches everything."""

    def __init__(
        self, descriptors: list[int], ring_pages: int, cpu_count: int, missing: Iterable[str]
    ) -> None:
        self.missing = tuple(missing)
        """Struct members and tracepoints this kernel lacks; what they feed stays empty."""
        self.ring_descriptor = descriptors[0]
        self.ring_bytes = ring_pages * PAGE_BYTES
        self._descriptors = descriptors
        self._cpu_count = cpu_count
        self._actions = self._map(descriptors[1], np.dtype(np.uint8), layout.CALL_LIMIT * 16)
        self._settings = self._map(descriptors[2], np.dtype(np.uint64), 8)
        counters = cpu_count * layout.COUNTER_KINDS
        self._sent = self._map(descriptors[3], np.dtype(np.uint64), counters)
        self._lost = self._map(descriptors[4], np.dtype(np.uint64), counters)

    @staticmethod
    def _map(descriptor: int, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        """A BPF array as a numpy array that shares its memory."""
        length = -(-count * dtype.itemsize // PAGE_BYTES) * PAGE_BYTES
        return np.frombuffer(mmap.mmap(descriptor, length, mmap.MAP_SHARED), dtype, count)

    def enable(self, calls: Iterable[str]) -> None:
        """Report exactly these system calls, by name. Executions, forks and exits of processes always are."""
        known = syscalls.numbers(platform.machine())
        unknown = sorted(set(calls) - known.keys())
        if unknown:
            raise ProbeError(f"no such system call: {', '.join(unknown)}")
        self._actions[:] = layout.action_rows((known[name], name) for name in calls).reshape(-1)

    def ignore(self, pid: int) -> None:
        """Report nothing of this process (the agent's own)."""
        self._settings[0] = pid

    def counters(self) -> Counters:
        """A copy of the counters as they are now."""
        shape = (self._cpu_count, layout.COUNTER_KINDS)
        return Counters(self._sent.reshape(shape).copy(), self._lost.reshape(shape).copy())

    def close(self) -> None:
        """Detach; the kernel frees the program when the last descriptor is gone."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        # The mappings hold the maps too; they go with the arrays.
        empty = np.zeros(0, np.uint64)
        self._settings = self._sent = self._lost = empty
        self._actions = np.zeros(0, np.uint8)


def unified_cgroup(path: Path = Path("/proc/self/cgroup")) -> bool:
    """Whether only the version 2 hierarchy holds controllers."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    return all(line.startswith("0::") for line in lines)


def load(btf: BTF | None = None, ring_pages: int = RING_PAGES) -> Probe:
    """Compile, load and attach the program, with no system call enabled yet. Takes about a second.

    Raises `ProbeError` when not root, or when BTF, headers, the compiler or the kernel's consent are missing.
    """
    if os.geteuid() != 0:
        raise ProbeError("the probe needs root")
    if ring_pages & (ring_pages - 1) or ring_pages < 1:
        raise ProbeError(f"the ring needs a power of two of pages, not {ring_pages}")
    machine = platform.machine()
    try:
        numbers = syscalls.numbers(machine)
        offsets = layout.resolve(btf or BTF.load(), unified_cgroup())
        found = headers.find(platform.release())
    except (BTFError, LookupError, headers.HeadersError) as error:
        raise ProbeError(str(error)) from error
    cpu_count = _possible_cpus()
    sizes = {"RING_PAGES": ring_pages, "STASH_ENTRIES": STASH_ENTRIES, "CPU_COUNT": cpu_count}
    calls = {f"NR_{name}": numbers[name] for name in ("execve", "execveat")}
    request = {
        "defines": {**offsets.defines, **sizes, **calls},
        "headers": {"kind": found.kind, "trees": [str(tree) for tree in found.trees]},
        "tracepoints": TRACEPOINTS,
    }
    answer, descriptors = _ask_loader(request)
    probe = Probe(descriptors, ring_pages, cpu_count, (*offsets.missing, *answer["failed"]))
    probe.ignore(os.getpid())
    return probe


def _possible_cpus() -> int:
    """Highest CPU number of this machine, plus one."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    return int(text.strip().replace(",", "-").split("-")[-1]) + 1


def _ask_loader(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """Run the loader process; returns its answer and the descriptors it passed on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        command = [sys.executable, "-m", "agent.probe.loader"]
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": paths}
        process = subprocess.Popen(
            command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        )
        try:
            theirs.close()
            ours.settimeout(LOAD_SECONDS_LIMIT)
            ours.sendall(json.dumps(request).encode())
            ours.shutdown(socket.SHUT_WR)
            data, descriptors, _, _ = socket.recv_fds(ours, ANSWER_BYTES_LIMIT, DESCRIPTORS_LIMIT)
            errors = process.communicate(timeout=LOAD_SECONDS_LIMIT)[1].decode("utf-8", "replace")
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            process.kill()
            process.communicate()
            raise ProbeError(f"loading the probe took more than {LOAD_SECONDS_LIMIT:.0f} s") from error
    answer = json.loads(data) if data else {"error": "the loader died"}
    if "error" in answer:
        for descriptor in descriptors:
            os.close(descriptor)
        raise ProbeError(_reason(answer["error"], errors))
    if len(descriptors) < len(MAPS):
        raise ProbeError(f"the loader passed {len(descriptors)} descriptors, at least {len(MAPS)} needed")
    return answer, descriptors


def _reason(error: str, log: str) -> str:
    """One line: the error, and the most telling line of what compiler or verifier printed."""
    if error.startswith(("ModuleNotFoundError", "ImportError")):
        return f"the BPF compiler is missing (Debian: python3-bpfcc): {error}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line] or lines[-2:-1]
    return "; ".join([f"the probe cannot be loaded: {error}", *telling[:1]])
