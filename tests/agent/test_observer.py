"""Probe, ring and table together: containers by cgroup, pid namespaces, bursts, and counters with names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.events import Events
from agent.observer import BUSY_PAUSE_SECONDS, PAUSE_SECONDS, Observer, boot_clock_ns, counts
from agent.probe import program
from agent.probe.layout import CALL_LIMIT, COUNT_COMPAT, COUNTER_KINDS, KIND_EXEC
from agent.processes import Process

CONTAINER = "7" * 64


@pytest.fixture(scope="module")
def observer() -> Iterator[Observer]:
    if os.geteuid() != 0:
        pytest.skip("the probe needs root")
    try:
        probe = program.load()
    except program.ProbeError as error:
        pytest.skip(f"no probe on this host: {error}")
    observer = Observer(probe)
    observer.start(["unlink", "openat"])
    yield observer
    observer.close()


def collect(observer: Observer, until_ns: int) -> list[Events]:
    """All batches up to a moment; the window of the order of time has to pass first."""
    found = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        now = boot_clock_ns()
        events = observer.step()
        if events is not None:
            found.append(events)
        # Other processes never stop making events: enough is what is due after the moment and the window.
        if now > until_ns + 50_000_000 and (events is None or events.batch.header["time_ns"][-1] > until_ns):
            return found
        time.sleep(observer.pause_seconds)
    raise AssertionError("the ring never became empty")


def run(observer: Observer, command: list[str], cwd: Path) -> tuple[Process, list[Events]]:
    started = subprocess.Popen(command, cwd=cwd)
    assert started.wait(30) == 0
    batches = collect(observer, boot_clock_ns())
    process = observer.table.current(started.pid)
    assert process is not None
    return process, batches


def test_counters_have_the_names_of_calls_and_tracepoints() -> None:
    values = np.zeros((2, COUNTER_KINDS), np.uint64)
    values[1, 59], values[0, CALL_LIMIT + KIND_EXEC], values[0, COUNT_COMPAT], values[0, 511] = 3, 4, 5, 6
    assert {(item.cpu, item.kind, item.value) for item in counts(values, "x86_64")} == {
        (1, "execve", 3),
        (0, "sched_process_exec", 4),
        (0, "compat_call", 5),
        (0, "syscall_511", 6),
    }


@pytest.mark.root
def test_batches_are_in_order_and_complete(observer: Observer, tmp_path: Path) -> None:
    script = "import os\nfor i in range(3000):\n open('f', 'w').close(); os.unlink('f')"
    process, batches = run(observer, [sys.executable, "-S", "-c", script], tmp_path)
    times = np.concatenate([events.batch.header["time_ns"] for events in batches])
    assert (np.diff(times.astype(np.int64)) >= 0).all()
    unlinks = [events.batch.header["pid"][events.rows_of("unlink")] == process.pid for events in batches]
    assert sum(int(found.sum()) for found in unlinks) == 3000
    assert process.ended_ns > process.started_ns > 0


@pytest.mark.root
def test_a_busy_ring_is_looked_at_more_often(observer: Observer, tmp_path: Path) -> None:
    collect(observer, boot_clock_ns())
    observer.step()
    assert observer.pause_seconds == PAUSE_SECONDS
    script = "for i in range(12000): open('/dev/null').close()"
    subprocess.run([sys.executable, "-S", "-c", script], cwd=tmp_path, check=True)
    observer.step()
    assert observer.pause_seconds == BUSY_PAUSE_SECONDS


@pytest.mark.root
def test_a_process_in_a_containers_cgroup_has_its_id(observer: Observer, tmp_path: Path) -> None:
    roots = [
        root for root in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup") if Path(root, "cgroup.procs").exists()
    ]
    if not roots:
        pytest.skip("no control group hierarchy to make a container in")
    group = Path(roots[0], "docker", CONTAINER)
    try:
        group.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"control groups cannot be made: {error}")
    try:
        command = f"echo $$ > {group}/cgroup.procs && exec /bin/true"
        process, _ = run(observer, ["/bin/sh", "-c", command], tmp_path)
    finally:
        group.rmdir()
    assert process.container is not None
    assert (process.container.id, process.container.runtime) == (CONTAINER, "docker")
    assert process.container.shown_id == CONTAINER[:12]
    assert process.cgroup == f"/docker/{CONTAINER}"


@pytest.mark.root
def test_a_pid_namespace_shows_the_inner_pid(observer: Observer, tmp_path: Path) -> None:
    unshared, batches = run(observer, ["unshare", "--pid", "--fork", "/bin/sh", "-c", "true; true"], tmp_path)
    inner = [process for process in observer.table if process.ppid == unshared.pid]
    assert [(process.vpid, process.comm) for process in inner] == [(1, "sh")]
    assert inner[0].namespace_start_ns == inner[0].start_ns
    assert batches


@pytest.mark.root
def test_a_root_of_its_own_is_where_paths_begin(observer: Observer, tmp_path: Path) -> None:
    (tmp_path / "jail/etc").mkdir(parents=True)
    (tmp_path / "jail/etc/conf").touch()
    script = f"import os; os.chroot({str(tmp_path / 'jail')!r}); os.chdir('/etc'); open('conf')"
    process, batches = run(observer, [sys.executable, "-S", "-c", script], tmp_path)
    opened = [
        (events.path(row, 1), descriptor.name)
        for events in batches
        for row in events.rows_of("openat").tolist()
        if events.batch.header["pid"][row] == process.pid and (descriptor := events.descriptor(row))
    ]
    assert ("/etc/conf", "/etc/conf") in opened
    assert process.cwd == "/etc"
