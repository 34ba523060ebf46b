"""`make bench-security`: events a second through the fields and the stable rules, on one core.

The mix is that of a busy host (opens, executions and connections dominate), with skewed values: few process
names, many command lines and paths, some of them new in each batch. Events arrive as columns of dictionary
codes, as the agent delivers them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from security.columns import AnyColumn, Column, ColumnKey, Dictionary, EventBatch, ListColumn, NumberColumn
from security.engine import RuleEngine
from security.fields.table import NUMBER_TYPES, field_table
from security.rules.loader import RuleLoader

RULES = "/work/shared/data/falco-rules/falco_rules.yaml"
MIX = {
    "openat": 0.50,
    "execve": 0.12,
    "connect": 0.12,
    "sendto": 0.05,
    "recvfrom": 0.05,
    "unlinkat": 0.04,
    "socket": 0.04,
    "renameat2": 0.03,
    "dup2": 0.02,
    "ptrace": 0.01,
    "symlinkat": 0.01,
    "open": 0.01,
}
NAMES = (
    *("bash", "sh", "python3", "java", "node", "nginx", "postgres", "redis-server"),
    *("sshd", "systemd", "cron", "containerd", "runc", "kubelet", "cat", "ls"),
    *("grep", "sed", "awk", "curl", "git", "make", "gcc", "ld"),
    *("apt", "dpkg", "sudo", "su", "ps", "top", "find", "tar"),
    *("gzip", "ssh", "rsync", "perl"),
)
DIRECTORIES = (
    "/etc",
    "/usr/lib",
    "/usr/bin",
    "/proc/self",
    "/var/log",
    "/tmp",
    "/home/u/.cache",
    "/root/.ssh",
    "/opt/a",
)
TARGETS = {"mix": 300_000, "types no rule names": 1_000_000}
BOOLEANS = ("evt.is_open_read", "evt.is_open_write", "container.privileged", "proc.is_exe_upper_layer")


class Workload:
    """Makes batches. One thread; random, from a seed."""

    def __init__(self, seed: int, types: Sequence[str], weights: Sequence[float]) -> None:
        self.random = np.random.default_rng(seed)
        self.types = Dictionary(types)
        self.weights = np.array(weights) / np.sum(weights)
        self.dictionaries: dict[ColumnKey, Dictionary] = {}
        self.events_count = 0

    def _skewed(self, size: int, count: int) -> NDArray[np.int32]:
        ranks = (size ** self.random.random(count) - 1).astype(np.int32)
        return np.minimum(ranks, size - 1)

    def _texts(self, key: ColumnKey, count: int) -> tuple[NDArray[np.int32], Dictionary]:
        dictionary = self.dictionaries.setdefault(key, Dictionary())
        name = key[0]
        if not len(dictionary):
            for value in _vocabulary(name):
                dictionary.code(value)
        if name in ("fd.name", "proc.cmdline", "fd.directory"):
            for fresh in range(count // 1000):
                dictionary.code(f"{DIRECTORIES[fresh % len(DIRECTORIES)]}/new-{self.events_count + fresh}")
        return self._skewed(len(dictionary), count), dictionary

    def batch(self, count: int) -> EventBatch:
        """A batch of `count` events whose columns are made before they are asked for by the rules."""
        codes = self.random.choice(len(self.weights), count, p=self.weights).astype(np.int32)
        table = field_table("syscall")
        first = self.events_count + 1
        self.events_count += count

        def load(key: ColumnKey) -> AnyColumn | None:
            info = table.find(*key).info
            if info.type == "BOOL":
                return NumberColumn(self.random.random(count) < (0.3 if info.name in BOOLEANS else 0.01))
            if info.type in NUMBER_TYPES:
                return NumberColumn(self.random.integers(0, 1000, count))
            if info.type in ("IPADDR", "IPNET", "BYTEBUF"):
                return None
            values, dictionary = self._texts(key, count)
            if "Y" in info.flags and key[1] is None:
                offsets = np.arange(0, 3 * count + 1, 3, dtype=np.int64)
                flat = self._skewed(len(dictionary), 3 * count)
                return ListColumn(flat, offsets, np.ones(count, np.bool_), dictionary)
            return Column(values, dictionary)

        times = np.arange(count, dtype=np.int64) + 1_700_000_000_000_000_000
        return EventBatch("syscall", times, load, Column(codes, self.types), first)


def _vocabulary(name: str) -> list[str]:
    if name == "container.id":
        return ["host", *(f"{i:012x}" for i in range(40))]
    if name in ("fd.name", "fd.nameraw"):
        return [f"{directory}/file{i}" for i in range(2000) for directory in DIRECTORIES]
    if name == "fd.directory":
        return [f"{directory}/d{i}" for i in range(100) for directory in DIRECTORIES]
    if name in ("proc.cmdline", "proc.args", "proc.pcmdline", "proc.acmdline"):
        return [f"{name} --option={i} /path/{i}" for i in range(100) for name in NAMES]
    if name == "fd.typechar":
        return ["f", "4", "6", "u", "d", "p"]
    if name == "evt.arg":
        return [
            "O_RDONLY(1)",
            "O_RDONLY|O_CLOEXEC(4097)",
            "O_WRONLY|O_CREAT|O_TRUNC(22)",
            "AF_INET",
            "AF_UNIX",
        ]
    return list(NAMES)


def measure(engine: RuleEngine, batches: Sequence[EventBatch]) -> tuple[float, int]:
    """Events a second and matches."""
    matches = 0
    started = time.perf_counter()
    for batch in batches:
        matches += len(engine.match(batch))
    elapsed = time.perf_counter() - started
    return sum(batch.count for batch in batches) / elapsed, matches


def _loaded(workload: Workload, engine: RuleEngine, batches: int, size: int) -> list[EventBatch]:
    made = []
    for _ in range(batches):
        batch = workload.batch(size)
        for program in engine.rules.programs.values():
            for predicate in program.predicates:
                if predicate.operand.field is not None:
                    batch.column(predicate.operand.field.key)
        made.append(batch)
    return made


def main() -> None:
    """Print the figures and the mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", nargs="+", default=[RULES])
    parser.add_argument("--events", type=int, nargs="+", default=[1 << 16, 1 << 12, 1 << 8], help="a batch")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    loader = RuleLoader()
    for path in arguments.rules:
        if not loader.load_file(path).successful:
            raise SystemExit(loader.results[-1].summary())
    print(f"rules: {' '.join(arguments.rules)}")
    print(f"{len(loader.rules.of_source('syscall'))} rules enabled, seed {arguments.seed}")
    print("mix: " + ", ".join(f"{name} {share:.0%}" for name, share in MIX.items()))
    quiet = ("close", "read", "write", "futex")
    for size in arguments.events:
        _report("mix", loader, Workload(arguments.seed, tuple(MIX), tuple(MIX.values())), arguments, size)
        _report("types no rule names", loader, Workload(arguments.seed, quiet, (1, 2, 2, 1)), arguments, size)


def _report(
    title: str, loader: RuleLoader, workload: Workload, arguments: argparse.Namespace, size: int
) -> None:
    engine = RuleEngine(loader.rules)
    measure(engine, _loaded(workload, engine, 1, size))
    speeds = []
    for _ in range(arguments.runs):
        batches = _loaded(workload, engine, arguments.batches, size)
        speed, matches = measure(engine, batches)
        speeds.append(speed)
    started = time.perf_counter()
    outputs = sum(len(engine.outputs(batch, engine.match(batch)[:1000])) for batch in batches[:1])
    output_us = (time.perf_counter() - started) / max(1, outputs) * 1e6
    target = TARGETS[title]
    print(
        f"{title:20} {size:6} a batch: {max(speeds):12,.0f} events/s a core, worst {min(speeds):,.0f}, "
        f"target {target:,}; {matches / (arguments.batches * size):.2%} match"
        + (f", {output_us:.0f} µs an output" if outputs > 100 else "")
    )


if __name__ == "__main__":
    main()
