"""All processes of the host with their groups, from `/proc`, at one moment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from agent import procfiles
from agent.processes import Process
from agent.processgroups import Group, GroupNames
from agent.procfiles import TICK_NS
from security.fields.containerids import container_of

PROCESSES_LIMIT = 20_000
"""Processes of one scan; the rest is counted and left out."""


@dataclass(frozen=True, slots=True)
class ScannedProcess:
    """One process: its group, and the fields of its stat file from the state (the third) on."""

    pid: int
    start_ticks: int
    comm: str
    group: Group
    stat: tuple[str, ...]


@dataclass(slots=True)
class _Known:
    comm: str
    arguments: bytes
    group: Group


class ProcessScan:
    """Reads the processes; a group is worked out again only when name or arguments changed. One thread."""

    def __init__(self, names: GroupNames, proc: str = "/proc") -> None:
        self._names = names
        self._proc = proc
        self._known: dict[tuple[int, int], _Known] = {}
        self.processes: list[ScannedProcess] = []
        """What the last `run` found."""
        self.left_out_count = 0

    def run(self) -> list[ScannedProcess]:
        """Read all processes now."""
        pids = sorted(int(name) for name in os.listdir(self._proc) if name.isdigit())
        self.left_out_count = max(len(pids) - PROCESSES_LIMIT, 0)
        known, self._known = self._known, {}
        found = (self._read(pid, known) for pid in pids[:PROCESSES_LIMIT])
        self.processes = [process for process in found if process is not None]
        return self.processes

    def _read(self, pid: int, known: dict[tuple[int, int], _Known]) -> ScannedProcess | None:
        head, _, tail = self._text(pid, "stat").rpartition(")")
        fields = tuple(tail.split())
        if len(fields) < 22:
            return None
        comm, start = head.partition("(")[2], int(fields[19])
        arguments = self._bytes(pid, "cmdline")
        entry = known.get((pid, start))
        if entry is None or entry.comm != comm or entry.arguments != arguments:
            entry = _Known(comm, arguments, self._group(pid, comm, arguments, int(fields[1]), start))
        self._known[pid, start] = entry
        return ScannedProcess(pid, start, comm, entry.group, fields)

    def _group(self, pid: int, comm: str, arguments: bytes, ppid: int, start: int) -> Group:
        containers = (container_of(path) for path in procfiles.cgroup_paths(self._bytes(pid, "cgroup")))
        return self._names.group(
            Process(
                pid,
                start * TICK_NS,
                ppid,
                0,
                comm,
                arguments=arguments,
                exe_path=self._exe(pid),
                container=next((found for found in containers if found), None),
            )
        )

    def _exe(self, pid: int) -> str:
        try:
            return os.readlink(f"{self._proc}/{pid}/exe")
        except OSError:
            return ""

    def _text(self, pid: int, name: str) -> str:
        return self._bytes(pid, name).decode("utf-8", "surrogateescape")

    def _bytes(self, pid: int, name: str) -> bytes:
        try:
            with open(f"{self._proc}/{pid}/{name}", "rb", buffering=0) as file:
                return file.read(procfiles.ARGUMENT_BYTES_LIMIT) or b""
        except OSError:
            return b""
