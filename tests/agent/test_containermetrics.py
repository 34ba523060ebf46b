"""Container metrics from made cgroup trees of the three layouts, and on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cgroups import CGROUP_DEPTH_LIMIT, detect_layout, find_containers, walk
from agent.containermetrics import ContainerNames, ContainerSource
from agent.hostmetrics.paths import HostPaths
from ingest.gathered import Gathered, GatheredWriter
from security.fields.containerids import container_of
from tests.ingest.fakestore import FakeStore

A, B, C = "a" * 64, "0123456789abcdef" * 4, "c" * 64
POD = "12345678-1234-1234-1234-123456789abc"
POD_SCOPE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice"

PATHS = [
    (f"/docker/{A}", A, "docker", ""),
    (f"/system.slice/docker-{A}.scope", A, "docker", ""),
    (f"/kubepods/burstable/pod{POD}/{A}", A, "docker", POD),
    (f"{POD_SCOPE}/crio-{A}.scope", A, "cri-o", POD),
    (f"/kubepods/pod{POD}/crio-{A}", A, "cri-o", POD),
    (f"{POD_SCOPE}/cri-containerd-{A}.scope", A, "containerd", POD),
    (f"/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{A}", A, "containerd", ""),
    (f"/user.slice/nerdctl-{A}.scope", A, "containerd", ""),
    (f"/machine.slice/libpod-{A}.scope", A, "podman", ""),
    (f"/machine.slice/libpod-{A}.scope/container", A, "podman", ""),
    (f"/libpod_parent/libpod-{A}", A, "podman", ""),
    (f"/user.slice/libpod-payload-{A}", A, "podman", ""),
    ("/lxc/web1", "web1", "lxc", ""),
    ("/lxc.payload.web1", "web1", "lxc", ""),
    ("/machine/web1.libvirt-lxc", "web1", "libvirt", ""),
    ("/default/my-redis", "my-redis", "containerd", ""),
]
NOT_CONTAINERS = [
    "/",
    "/docker",
    "/system.slice/ssh.service",
    f"/system.slice/docker-{A[:40]}.scope",
    f"/machine.slice/libpod-conmon-{A}.scope",
    f"{POD_SCOPE}/crio-conmon-{A}.scope",
    POD_SCOPE,
    f"/docker/{A}/init.scope",
    "/process_api/bc7a1213f8f248706b640caf61650ffd",
]

MEMORY_STAT_V1 = (
    "cache 1\nrss 2\npgfault 30\npgmajfault 4\ntotal_cache 500\ntotal_rss 300\ntotal_swap 7\n"
    "total_mapped_file 50\ntotal_inactive_file 200\ntotal_pgfault 33\ntotal_pgmajfault 5\n"
)
BLKIO_BYTES = "8:0 Read 4096\n8:0 Write 8192\n8:0 Total 12288\nTotal 12288\n"


def v1_files(path: str) -> dict[str, str]:
    """Files of one container in the v1 hierarchies below sys/fs/cgroup."""
    return {
        f"cpu,cpuacct{path}/cpuacct.usage": "2500000000\n",
        f"cpu,cpuacct{path}/cpuacct.stat": "user 150\nsystem 50\n",
        f"cpu,cpuacct{path}/cpu.shares": "512\n",
        f"cpu,cpuacct{path}/cpu.cfs_period_us": "100000\n",
        f"cpu,cpuacct{path}/cpu.cfs_quota_us": "50000\n",
        f"cpu,cpuacct{path}/cpu.stat": "nr_periods 10\nnr_throttled 3\nthrottled_time 4000000000\n",
        f"cpu,cpuacct{path}/cgroup.procs": "41\n42\n",
        f"memory{path}/memory.usage_in_bytes": "1000\n",
        f"memory{path}/memory.max_usage_in_bytes": "2000\n",
        f"memory{path}/memory.failcnt": "6\n",
        f"memory{path}/memory.limit_in_bytes": "9223372036854771712\n",
        f"memory{path}/memory.soft_limit_in_bytes": "4096\n",
        f"memory{path}/memory.stat": MEMORY_STAT_V1,
        f"memory{path}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        f"blkio{path}/blkio.throttle.io_service_bytes_recursive": BLKIO_BYTES,
        f"blkio{path}/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n",
        f"pids{path}/pids.current": "9\n",
        f"pids{path}/pids.max": "max\n",
    }


def v2_files(path: str) -> dict[str, str]:
    """Files of one container in the unified tree."""
    return {
        f"{path}/cpu.stat": "usage_usec 2500000\nuser_usec 1500000\nsystem_usec 500000\nnr_periods 10\n"
        "nr_throttled 3\nthrottled_usec 4000000\n",
        f"{path}/cpu.max": "50000 100000\n",
        f"{path}/cpu.weight": "20\n",
        f"{path}/cpu.pressure": "some avg10=0 avg60=0 avg300=0 total=1000000\nfull avg10=0 total=0\n",
        f"{path}/memory.current": "1000\n",
        f"{path}/memory.peak": "2000\n",
        f"{path}/memory.max": "max\n",
        f"{path}/memory.low": "4096\n",
        f"{path}/memory.swap.current": "7\n",
        f"{path}/memory.events": "low 0\nhigh 0\nmax 6\noom 1\noom_kill 2\n",
        f"{path}/memory.stat": "anon 300\nfile 500\nfile_mapped 50\ninactive_file 200\npgfault 33\n",
        f"{path}/io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n",
        f"{path}/pids.current": "9\n",
        f"{path}/pids.max": "max\n",
        f"{path}/cgroup.procs": "41\n",
        f"{path}/inner.service/cgroup.procs": "42\n",
    }


BOTH = {
    "container_cpu_user_seconds_total": 1.5,
    "container_cpu_system_seconds_total": 0.5,
    "container_cpu_cfs_periods_total": 10.0,
    "container_cpu_cfs_throttled_periods_total": 3.0,
    "container_cpu_cfs_throttled_seconds_total": 4.0,
    "container_spec_cpu_period": 100000.0,
    "container_spec_cpu_quota": 50000.0,
    "container_memory_usage_bytes": 1000.0,
    "container_memory_working_set_bytes": 800.0,
    "container_memory_max_usage_bytes": 2000.0,
    "container_memory_failcnt": 6.0,
    "container_memory_cache": 500.0,
    "container_memory_rss": 300.0,
    "container_memory_swap": 7.0,
    "container_memory_mapped_file": 50.0,
    "container_spec_memory_limit_bytes": 0.0,
    "container_spec_memory_reservation_limit_bytes": 4096.0,
    "container_oom_events_total": 2.0,
    "container_threads": 9.0,
    "container_threads_max": 0.0,
    "container_processes": 2.0,
    "container_last_seen": 1700000000.0,
}


def make(base: Path, cgroup_files: dict[str, str]) -> HostPaths:
    """A machine whose /sys/fs/cgroup holds these files, and two processes in one network namespace."""
    files = {f"sys/fs/cgroup/{name.lstrip('/')}": text for name, text in cgroup_files.items()}
    files["proc/diskstats"] = "   8       0 sda 1 1 1 1\n"
    for pid, start in ((41, 500), (42, 400)):
        files[f"proc/{pid}/stat"] = f"{pid} (a b) S " + " ".join(["0"] * 18) + f" {start} 0\n"
        files[f"proc/{pid}/net/dev"] = (
            "Inter-|\n face |\n    lo: " + "9 " * 16 + "\n  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n"
        )
        files[f"proc/{pid}/fd/0"] = ""
    for name, text in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for pid, namespace in ((1, 1), (41, 2), (42, 2)):
        os.makedirs(base / f"proc/{pid}/ns", exist_ok=True)
        os.symlink(f"net:[{namespace}]", base / f"proc/{pid}/ns/net")
    return HostPaths(f"{base}/proc", f"{base}/sys")


def gather(source: ContainerSource) -> dict[str, dict[str, float]]:
    """Values by metric, then by the labels without the metric's name."""
    out = Gathered()
    source.collect(out)
    found: dict[str, dict[str, float]] = {}
    for labels, value in out.labelled():
        found.setdefault(labels.metric_name, {})[str(labels.without("__name__"))] = value
    return found


def of_container(found: dict[str, dict[str, float]], container_id: str) -> dict[str, float]:
    """Values of the metrics that have one series a container."""
    text = f'container_id="{container_id}"'
    return {n: v for n, rows in found.items() for labels, v in rows.items() if text in labels}


@pytest.mark.parametrize(("path", "container_id", "runtime", "pod"), PATHS, ids=lambda row: str(row)[:40])
def test_paths_of_containers_are_known(path: str, container_id: str, runtime: str, pod: str) -> None:
    found = container_of(path)
    assert found is not None
    assert (found.id, found.runtime, found.pod_uid) == (container_id, runtime, pod)


@pytest.mark.parametrize("path", NOT_CONTAINERS)
def test_other_cgroups_are_no_containers(path: str) -> None:
    assert container_of(path) is None


def layouts() -> dict[str, dict[str, str]]:
    inner = f"/docker/{B}"
    return {
        "v1": v1_files(inner) | {"systemd/cgroup.procs": ""},
        "v2": v2_files(f"/system.slice/docker-{B}.scope") | {"cgroup.controllers": "cpu io memory pids\n"},
        "hybrid": v1_files(inner)
        | {"unified/cgroup.controllers": "", f"unified{inner}/cgroup.procs": "41\n42\n"},
    }


@pytest.mark.parametrize("name", ["v1", "v2", "hybrid"])
def test_one_container_has_the_same_metrics_in_every_layout(tmp_path: Path, name: str) -> None:
    paths = make(tmp_path, layouts()[name])
    assert detect_layout(paths.sys).name == name
    found = gather(ContainerSource(paths, now_seconds=lambda: 1.7e9))
    values = of_container(found, B[:12])
    assert {metric: values.get(metric) for metric in BOTH} == BOTH
    assert values["container_spec_cpu_shares"] == (500.0 if name == "v2" else 512.0)
    labels = {text.split('id="')[1] for text in found["container_cpu_usage_seconds_total"] if B[:12] in text}
    assert len(labels) == 1
    devices = found["container_fs_reads_bytes_total"]
    assert [v for k, v in devices.items() if 'device="/dev/sda"' in k] == [4096.0]
    assert [v for k, v in found["container_fs_writes_total"].items() if B[:12] in k] == [2.0]
    assert list(found["container_cpu_usage_seconds_total"].values()) == [2.5]
    assert list(found["container_network_receive_bytes_total"].values()) == [1.0]
    assert list(found["container_network_transmit_packets_dropped_total"].values()) == [8.0]


def test_controllers_of_a_hybrid_machine_may_live_in_the_unified_tree(tmp_path: Path) -> None:
    v1 = {k: v for k, v in v1_files(f"/docker/{B}").items() if not k.startswith("memory")}
    v2 = {f"unified{k}": v for k, v in v2_files(f"/docker/{B}").items() if "memory" in k}
    paths = make(tmp_path, v1 | v2 | {"unified/cgroup.controllers": "memory\n"})
    values = of_container(gather(ContainerSource(paths)), B[:12])
    assert values["container_memory_usage_bytes"] == 1000.0
    assert values["container_cpu_user_seconds_total"] == 1.5


def test_a_container_is_found_when_only_one_hierarchy_names_it(tmp_path: Path) -> None:
    files = {k: v for k, v in v1_files(f"/docker/{B}").items() if k.startswith("pids")}
    paths = make(tmp_path, files | {"memory/memory.usage_in_bytes": "5\n"})
    found = gather(ContainerSource(paths))
    assert of_container(found, B[:12])["container_threads"] == 9.0
    assert found["container_memory_usage_bytes"] == {'{id="/"}': 5.0}


def test_names_that_come_late_replace_the_series(tmp_path: Path) -> None:
    paths = make(tmp_path, layouts()["v2"])
    known: dict[str, ContainerNames] = {}
    source = ContainerSource(paths, known.get)
    store = FakeStore()
    writer = GatheredWriter(store)
    for t_ms in (1000, 2000):
        out = Gathered()
        source.collect(out)
        writer.write(out, t_ms)
        known[B] = ContainerNames("web", "nginx:1", "shop", "web-0", "nginx")
    rows = {k: v for k, v in store.all().items() if k.startswith("container_memory_rss{")}
    path = f"/system.slice/docker-{B}.scope"
    assert rows == {
        f'container_memory_rss{{container_id="{B[:12]}", id="{path}", name="{B[:12]}"}}': [
            (1000, 300.0),
            (2000, "stale"),
        ],
        f'container_memory_rss{{container="nginx", container_id="{B[:12]}", id="{path}", image="nginx:1",'
        ' name="web", namespace="shop", pod="web-0"}': [(2000, 300.0)],
    }


def test_containers_of_one_pod_share_the_traffic_of_their_first(tmp_path: Path) -> None:
    files = {"cgroup.controllers": "pids\n"}
    for letter, pid in ((A, 41), (C, 42)):
        files[f"{POD_SCOPE}/cri-containerd-{letter}.scope/cgroup.procs"] = f"{pid}\n"
    found = gather(ContainerSource(make(tmp_path, files)))
    assert len(found["container_processes"]) == 2
    assert [C[:12] in labels for labels in found["container_network_receive_bytes_total"]] == [True]


def test_containers_above_the_limit_are_counted(tmp_path: Path) -> None:
    files = {f"docker/{n:064x}/pids.current": "1\n" for n in range(5)} | {"cgroup.controllers": "pids\n"}
    found = gather(ContainerSource(make(tmp_path, files), container_limit=3))
    assert found["vedette_agent_containers_left_out"] == {"{}": 2.0}
    assert len(found["container_threads"]) == 3


def test_a_container_within_a_container_is_its_own(tmp_path: Path) -> None:
    files = {"cgroup.controllers": "pids\n", f"docker/{A}/pids.current": "5\n"}
    files[f"docker/{A}/docker/{C}/pids.current"] = "2\n"
    layout = detect_layout(make(tmp_path, files).sys)
    containers, left_out = find_containers(layout, 10)
    assert sorted(containers) == [A, C]
    assert left_out == 0


def test_walking_stops_at_the_depth_limit(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "/".join("d" for _ in range(CGROUP_DEPTH_LIMIT + 5)))
    assert max(path.count("d") for path in walk(str(tmp_path))) == CGROUP_DEPTH_LIMIT


def test_garbage_in_cgroup_files_is_left_out(tmp_path: Path) -> None:
    files = dict.fromkeys(v1_files(f"/docker/{B}"), "x\x00 y z\n-\n\n= 8:0\n")
    values = of_container(gather(ContainerSource(make(tmp_path, files))), B[:12])
    assert values["container_processes"] == 0.0
    assert "container_memory_usage_bytes" not in values


def test_a_machine_without_cgroups_says_so(tmp_path: Path) -> None:
    source = ContainerSource(HostPaths(f"{tmp_path}/proc", f"{tmp_path}/sys"))
    out = Gathered()
    source.collect(out)
    assert out.values == {}
    assert "no cgroup hierarchy" in source.errors["cgroups"]


@pytest.fixture
def live_container() -> Iterator[tuple[str, int]]:
    """A process with a network namespace of its own, in a cgroup named like a container's, everywhere."""
    layout = detect_layout()
    if layout.name == "none" or os.geteuid() != 0:
        pytest.skip("needs root and mounted cgroups")
    container_id = os.urandom(32).hex()
    made: list[str] = []
    process = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", WORKLOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        for hierarchy in layout.hierarchies:
            for directory in (f"{hierarchy.root}/docker", f"{hierarchy.root}/docker/{container_id}"):
                if not os.path.isdir(directory):
                    os.mkdir(directory)
                    made.append(directory)
            Path(f"{hierarchy.root}/docker/{container_id}/cgroup.procs").write_text(str(process.pid))
    except OSError as error:
        _remove(process, made)
        pytest.skip(f"cgroups are not writable: {error}")
    try:
        process.stdin.write(b"go\n")
        process.stdin.flush()
        process.stdout.readline()
        yield container_id, process.pid
    finally:
        _remove(process, made)


WORKLOAD = (
    "import sys, time; sys.stdin.readline(); held = bytearray(40 << 20); end = time.process_time() + 0.1\n"
    "while time.process_time() < end: pass\n"
    "print('ready', flush=True); sys.stdin.readline()"
)
"""Holds 40 MiB and uses a tenth of a second."""


def _remove(process: subprocess.Popen[bytes], made: list[str]) -> None:
    process.kill()
    process.wait(10)
    for stream in (process.stdin, process.stdout):
        stream.close()
    for directory in reversed(made):
        for _ in range(100):
            try:
                os.rmdir(directory)
                break
            except OSError:
                time.sleep(0.02)


@pytest.mark.root
def test_a_process_on_this_machine_is_measured_as_a_container(live_container: tuple[str, int]) -> None:
    container_id, pid = live_container
    found = gather(ContainerSource())
    values = of_container(found, container_id[:12])
    assert values["container_processes"] == 1.0
    assert values["container_file_descriptors"] >= 3.0
    controllers = {c for h in detect_layout().hierarchies for c in h.controllers}
    if "memory" in controllers:
        assert 40 << 20 < values["container_memory_usage_bytes"] < 400 << 20
        assert 40 << 20 < values["container_memory_rss"] <= values["container_memory_usage_bytes"]
    if "cpuacct" in controllers or "cpu" in controllers:
        cpu = [v for k, v in found["container_cpu_usage_seconds_total"].items() if container_id[:12] in k]
        assert 0.09 < cpu[0] < 30.0
    if "pids" in controllers:
        assert values["container_threads"] == 1.0
    with open(f"/proc/{pid}/net/dev") as file:
        others = [line for line in file.readlines()[2:] if not line.strip().startswith("lo:")]
    network = found.get("container_network_receive_bytes_total", {})
    assert len([k for k in network if container_id[:12] in k]) == len(others)
    assert '{id="/"}' in found["container_last_seen"]
