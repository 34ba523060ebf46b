"""Process groups from `/proc`: real processes, and ended ones whose counters stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.processgroups import GroupNames, GroupRule
from agent.processmetrics import ProcessGroupSource
from agent.processscan import ProcessScan
from ingest.gathered import Gathered

NAMES = {
    f"namedprocess_namegroup_{name}"
    for name in (
        *("num_procs", "num_threads", "cpu_seconds_total", "memory_bytes", "open_filedesc", "states"),
        *("read_bytes_total", "write_bytes_total", "major_page_faults_total", "minor_page_faults_total"),
        *("context_switches_total", "worst_fd_ratio", "oldest_start_time_seconds"),
        *("read_characters_total", "write_characters_total"),
    )
}
CHILD = """
import ctypes, os, threading, time
ctypes.CDLL(None).prctl(15, b"vtest-child", 0, 0, 0)
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
lasting = threading.Event()
threading.Thread(target=lasting.wait, daemon=True).start()
block = bytearray(40 << 20)
os.write(os.open("/dev/null", os.O_WRONLY), bytes(1 << 20))
end = time.process_time() + 0.15
while time.process_time() < end: pass
print(len(os.listdir("/proc/self/fd")) - 1, flush=True)
input()
"""


def values_of(source: ProcessGroupSource, group: str) -> dict[tuple[str, ...], float]:
    gathered = Gathered()
    source.collect(gathered)
    return {
        (name.removeprefix("namedprocess_namegroup_"), *labels[6:]): value
        for (name, _, labels), value in gathered.values.items()
        if labels[0] == group
    }


@pytest.fixture
def source() -> ProcessGroupSource:
    return ProcessGroupSource(ProcessScan(GroupNames([GroupRule("vtest", comm=frozenset({"vtest-child"}))])))


@pytest.fixture
def children() -> Iterator[list[tuple[subprocess.Popen[bytes], int]]]:
    started = []
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        started.append((child, int(child.stdout.readline())))
    yield started
    for child, _ in started:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            assert pipe is not None
            pipe.close()


def end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    child.wait(10)


def test_processes_of_a_name_count_together_and_stay_counted_after_their_end(
    source: ProcessGroupSource, children: list[tuple[subprocess.Popen[bytes], int]]
) -> None:
    found = values_of(source, "vtest")
    assert (found["num_procs",], found["num_threads",]) == (2, 4)
    assert found["states", "Sleeping"] == 2
    assert found["open_filedesc",] == sum(count for _, count in children)
    assert 0 < found["worst_fd_ratio",] < 1
    assert 0.28 <= found["cpu_seconds_total", "user"] + found["cpu_seconds_total", "system"] < 20
    assert found["memory_bytes", "resident"] > 80 << 20
    assert found["memory_bytes", "virtual"] > found["memory_bytes", "resident"]
    assert found["write_characters_total",] >= 2 << 20
    assert found["context_switches_total", "voluntary"] > 0
    assert found["minor_page_faults_total",] > 20_000
    assert 0 <= time.time() - found["oldest_start_time_seconds",] < 60
    end(children[0][0])
    after = values_of(source, "vtest")
    assert (after["num_procs",], after["num_threads",]) == (1, 2)
    assert after["minor_page_faults_total",] >= found["minor_page_faults_total",]
    end(children[1][0])
    assert values_of(source, "vtest") == {}


def test_the_names_are_those_of_process_exporter(source: ProcessGroupSource) -> None:
    gathered = Gathered()
    source.collect(gathered)
    assert gathered.families.keys() >= NAMES
    assert source.errors == {}


def test_groups_beyond_the_limit_are_shown_as_other() -> None:
    source = ProcessGroupSource(ProcessScan(GroupNames()), limit=1)
    gathered = Gathered()
    source.collect(gathered)
    shown = {
        labels[0]: value for (name, _, labels), value in gathered.values.items() if name.endswith("num_procs")
    }
    assert len(shown) == 2
    assert shown["other"] >= len(os.listdir("/proc/self/task"))


def write_process(proc: Path, pid: int, stat: str, cgroup: str = "") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(stat)
    (folder / "cmdline").write_bytes(b"app\0")
    (folder / "cgroup").write_text(cgroup)


def test_hostile_and_half_gone_processes_do_not_stop_a_scan(tmp_path: Path) -> None:
    numbers = "1 " * 19 + "4096 7 0"
    write_process(tmp_path, 10, f"10 (a) S (b\n) S {numbers}", f"0::/docker/{'c' * 64}")
    write_process(tmp_path, 11, "11 (cut) S 1 2")
    write_process(tmp_path, 12, "")
    (tmp_path / "13").mkdir()
    scan = ProcessScan(GroupNames(), str(tmp_path))
    source = ProcessGroupSource(scan, proc=str(tmp_path))
    gathered = Gathered()
    source.collect(gathered)
    assert [process.group for process in scan.processes] == [("a) S (b\\x0a", "c" * 64)]
    labels = next(key[2] for key in gathered.values if key[0] == "namedprocess_namegroup_num_procs")
    assert labels == ("a) S (b\\x0a", "c" * 12, "c" * 12, "", "", "")
