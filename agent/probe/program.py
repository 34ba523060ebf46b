"""Loads the BPF program and keeps what belongs to it: the ring, the table of enabled calls, the counters."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.probe import headers, layout
from agent.probe.btf import BTF, BTFError
from agent.probe.callcosts import CALLS, COST, COST_AMOUNTS, LEFT_OVER_ENTRIES, CostMap
from agent.probe.loader import MAPS
from agent.probe.ringbuffer import RingReader
from security.fields import syscalls

PAGE_BYTES = 4096
RING_PAGES = 4096
"""16 MiB: a burst of 60,000 typical records while the reader is away."""
STASH_ENTRIES = 8192
"""Threads that are inside a guarded call at the same moment."""
COST_ENTRIES = 8192
"""Processes times classes of calls that are measured between two drains; what exceeds it is for nobody."""
UNKNOWN_OPTION = 0x7644_7450
"""No option of prctl: the kernel refuses it."""
OWN_CALLS = 200
OWN_CALL_PAUSE_SECONDS = 0.005
"""Between looks for one's own call: a record of another CPU that is not finished hides it for a moment."""
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
        self.host_pid = os.getpid()
        """The agent's own pid as records have it; in a pid namespace it is not that of `os.getpid`."""
        self.ring_descriptor = descriptors[0]
        self.ring_bytes = ring_pages * PAGE_BYTES
        self._descriptors = descriptors
        self._cpu_count = cpu_count
        self._actions = self._map(descriptors[1], np.dtype(np.uint8), layout.CALL_LIMIT * 16)
        self._settings = self._map(descriptors[2], np.dtype(np.uint64), 8)
        counters = cpu_count * layout.COUNTER_KINDS
        self._sent = self._map(descriptors[3], np.dtype(np.uint64), counters)
        self._lost = self._map(descriptors[4], np.dtype(np.uint64), counters)
        self._costs = tuple(CostMap(descriptor) for descriptor in descriptors[5:7])
        self._left_over = self._map(descriptors[7], COST_AMOUNTS, LEFT_OVER_ENTRIES)
        self._left_over_before = self._left_over.copy()
        self._reported: tuple[tuple[int, str], ...] = ()
        self._measured: tuple[tuple[int, int], ...] = ()

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
        self._reported = tuple((known[name], name) for name in calls)
        self._write_actions()

    def measure(self, calls: Iterable[str]) -> None:
        """Count exactly these of `callcosts.CALLS` with bytes and durations, reported or not."""
        known = syscalls.numbers(platform.machine())
        self._measured = tuple((known[name], CALLS[name]) for name in calls if name in known)
        self._write_actions()

    def _write_actions(self) -> None:
        self._actions[:] = layout.action_rows(self._reported, self._measured).reshape(-1)

    def take_costs(self) -> npt.NDArray[Any]:
        """`callcosts.COST` by process and class: what was counted between the last two calls of this method.

        The kernel counts into one of two maps. The one taken here is not written to since the last call, so
        that nothing is lost between reading and deleting; calls should be 20 ms or more apart.
        """
        writing = int(self._settings[1])
        taken = self._costs[1 - writing].take()
        self._settings[1] = 1 - writing
        return np.concatenate([taken, self._take_left_over()])

    def _take_left_over(self) -> npt.NDArray[Any]:
        """What had no place in a map since the last call, as entries of pid 0."""
        now, before = self._left_over.copy(), self._left_over_before
        self._left_over_before = now
        found = np.zeros(len(now), COST)
        found["class"] = np.arange(len(now))
        for name in COST_AMOUNTS.names or ():
            found[name] = now[name] - before[name]
        return found[found["calls"] > 0]

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
        self._left_over = self._left_over_before = np.zeros(0, COST_AMOUNTS)


def unified_cgroup(path: Path = Path("/proc/self/cgroup")) -> bool:
    """Whether only the version 2 hierarchy holds controllers."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    return all(line.startswith("0::") for line in lines)


def load(btf: BTF | None = None, ring_pages: int = RING_PAGES, *, direct: bool = True) -> Probe:
    """Compile, load and attach the program, with no system call enabled yet. Takes about a second.

    `direct` False reads all members by probe reads, as on kernels that refuse plain loads.

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
    sizes["COST_ENTRIES"] = COST_ENTRIES
    calls = {f"NR_{name}": numbers[name] for name in ("execve", "execveat")}
    request = {
        "defines": {**offsets.defines, **sizes, **calls},
        "headers": {"kind": found.kind, "trees": [str(tree) for tree in found.trees]},
        "tracepoints": TRACEPOINTS,
        "direct": direct,
    }
    answer, descriptors = _ask_loader(request)
    probe = Probe(descriptors, ring_pages, cpu_count, (*offsets.missing, *answer["failed"]))
    probe.host_pid = _own_number(probe)
    probe.ignore(probe.host_pid)
    return probe


def _own_number(probe: Probe) -> int:
    """The agent's pid in the kernel's numbers: a record of a call that only the agent makes tells it.

    Raises ProbeError when no record of it comes: then nothing else would come either.
    """
    mark = int.from_bytes(os.urandom(8), "little")
    libc = ctypes.CDLL(None)
    ring = RingReader(probe.ring_descriptor, probe.ring_bytes)
    try:
        probe.enable(["prctl"])
        for _ in range(OWN_CALLS):
            libc.prctl(UNKNOWN_OPTION, ctypes.c_ulong(mark), 0, 0, 0)
            batch = ring.read()
            found = [] if batch is None else batch.header["pid"][batch.header["args"][:, 1] == mark]
            if len(found):
                return int(found[0])
            time.sleep(OWN_CALL_PAUSE_SECONDS)
    finally:
        probe.enable([])
        ring.close()
    probe.close()
    raise ProbeError("the probe was loaded but sees no system calls")


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
