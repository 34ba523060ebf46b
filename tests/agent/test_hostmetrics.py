"""Collectors of the host's metrics on recorded trees, and on texts that no kernel writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.hostmetrics import cpu, disk, filesystem, hwmon, identity, load, memory, network, sensors, sockets
from agent.hostmetrics.paths import FILE_BYTES_LIMIT, HostPaths, NoDataError, read_text
from agent.hostmetrics.pressure import collect_pressure
from agent.hostmetrics.registry import Collect, HostSource
from agent.hostmetrics.textfile import TextFileCollector
from ingest.gathered import Gathered, GatheredWriter
from tests.ingest.fakestore import FakeStore

TREE = {
    "proc/stat": "cpu  9 9 9 9\ncpu0 200 10 50 1000 20 3 4 5 6 7\ncpu1 1 2 3 4\nintr 987 1 2\nctxt 55\n"
    "btime 1700000000\nprocesses 44\nprocs_running 2\nprocs_blocked 1\n",
    "proc/loadavg": "0.50 0.25 0.12 2/300 4242\n",
    "proc/meminfo": "MemTotal:  2048 kB\nActive(anon):  3 kB\nHugePages_Total:  7\n",
    "proc/vmstat": "nr_free_pages 9\npgfault 11\noom_kill 2\npgpgin 3\n",
    "proc/diskstats": "   8  0 sda 10 1 4 2000 20 2 8 500 3 700 2700 5 6 7 8 9 10\n"
    "   8  1 sda1 1 1 1 1 1 1 1 1 1 1 1\n   7 0 loop0 0 0 0 0 0 0 0 0 0 0 0\n",
    "udev/b8:0": "S:disk\nE:ID_MODEL=Fast\nE:ID_SERIAL_SHORT=X1\nE:ID_FS_TYPE=ext4\nE:ID_FS_UUID=u\n"
    "E:DM_NAME=vg-lv\nE:ID_ATA=1\nE:ID_ATA_WRITE_CACHE=1\n",
    "proc/net/dev": "Inter-| Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"
    "  eth0: 100 2 3 4 5 6 7 8 200 12 13 14 15 16 17 18\n",
    "proc/net/arp": "IP address HW\n10.0.0.1 0x1 0x2 aa * eth0\n10.0.0.2 0x1 0x2 bb * eth0\n",
    "proc/net/netstat": "TcpExt: SyncookiesSent Other\nTcpExt: 1 3\nIpExt: InOctets\nIpExt: 9\n",
    "proc/net/snmp": "Ip: Forwarding DefaultTTL\nIp: 1 64\nUdp: InDatagrams\nUdp: 5\n",
    "proc/net/snmp6": "Ip6InOctets \t 77\nUdp6NoPorts 3\nUdpLite6InErrors 4\n",
    "proc/net/sockstat": "sockets: used 21\nTCP: inuse 4 orphan 0 mem 2\n",
    "proc/net/softnet_stat": "0000000a 00000002 00000003\n",
    "proc/net/udp": "  sl  local\n 1: 00000000:0044 00000000:0000 07 00000010:00000020 00:0 0\n",
    "proc/net/stat/nf_conntrack": "entries found drop\n0 1 a\n0 2 b\n",
    "proc/sys/net/netfilter/nf_conntrack_count": "3\n",
    "proc/sys/net/netfilter/nf_conntrack_max": "99\n",
    "proc/sys/fs/file-nr": "1000\t0\t9999\n",
    "proc/pressure/cpu": "some avg10=0.00 avg60=0 avg300=0 total=2500000\nfull avg10=0 total=1\n",
    "proc/schedstat": "version 15\ncpu0 0 0 0 0 0 0 1000000000 2000000000 3\n",
    "proc/1/mounts": "/dev/sda1 /data\\040x ext4 ro,relatime 0 0\nproc /proc proc rw 0 0\n"
    "server:/x /remote nfs4 rw 0 0\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5\n",
    "sys/devices/system/cpu/cpu0/topology/core_id": "3\n",
    "sys/devices/system/cpu/cpu0/topology/physical_package_id": "1\n",
    "sys/class/net/eth0/operstate": "up\n",
    "sys/class/net/eth0/speed": "1000\n",
    "sys/class/net/eth0/flags": "0x1003\n",
    "sys/class/net/bonding_masters": "bond0\n",
    "sys/class/net/bond0/bonding/slaves": "eth0 eth1\n",
    "sys/class/net/bond0/lower_eth0/bonding_slave/mii_status": "up\n",
    "sys/class/net/bond0/lower_eth1/bonding_slave/mii_status": "down\n",
    "sys/class/thermal/thermal_zone0/temp": "45000\n",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg\n",
    "sys/class/hwmon/hwmon0/name": "coretemp\n",
    "sys/class/hwmon/hwmon0/temp1_input": "41000\n",
    "sys/class/hwmon/hwmon0/temp1_crit": "100000\n",
    "sys/class/hwmon/hwmon0/temp1_crit_alarm": "1\n",
    "sys/class/hwmon/hwmon0/temp1_label": "Package id 0\n",
    "sys/class/hwmon/hwmon0/fan2_input": "1200\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "5000000\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/devices/system/edac/mc/mc0/ce_count": "2\n",
    "sys/devices/system/edac/mc/mc0/csrow1/ue_count": "1\n",
    "sys/class/nvme/nvme0/model": "Quick\n",
    "sys/fs/selinux/enforce": "1",
    "root/etc/selinux/config": "SELINUX=permissive\n",
    "root/etc/os-release": "# text\nNAME=\"Test OS\"\nID=test\nVERSION_ID='12.4 rolling'\n",
    "root/text/a.prom": '# TYPE done gauge\ndone{job="x"} 5',
    "root/text/broken.prom": "what is this\n",
}

EXPECTED: list[tuple[Collect, dict[str, float]]] = [
    (
        cpu.CpuCollector(),
        {
            'node_cpu_seconds_total{cpu="0", mode="user"}': 2.0,
            'node_cpu_seconds_total{cpu="1", mode="steal"}': 0.0,
            'node_cpu_guest_seconds_total{cpu="0", mode="nice"}': 0.07,
            'node_cpu_core_throttles_total{core="3", package="1"}': 5.0,
        },
    ),
    (cpu.collect_frequency, {'node_cpu_scaling_frequency_hertz{cpu="0"}': 2.4e9}),
    (
        cpu.collect_schedstat,
        {
            'node_schedstat_running_seconds_total{cpu="0"}': 1.0,
            'node_schedstat_timeslices_total{cpu="0"}': 3.0,
        },
    ),
    (load.collect_load, {"node_load1": 0.5, "node_load15": 0.12}),
    (load.collect_stat, {"node_intr_total": 987.0, "node_procs_blocked": 1.0}),
    (load.collect_open_files, {"node_filefd_allocated": 1000.0, "node_filefd_maximum": 9999.0}),
    (
        memory.collect_meminfo,
        {
            "node_memory_MemTotal_bytes": 2097152.0,
            "node_memory_Active_anon_bytes": 3072.0,
            "node_memory_HugePages_Total": 7.0,
        },
    ),
    (memory.collect_vmstat, {"node_vmstat_pgfault": 11.0, "node_vmstat_oom_kill": 2.0}),
    (
        disk.collect_diskstats,
        {
            'node_disk_read_bytes_total{device="sda"}': 2048.0,
            'node_disk_flush_requests_time_seconds_total{device="sda"}': 0.01,
            'node_disk_info{device="sda", major="8", minor="0", model="Fast", serial="X1"}': 1.0,
            'node_disk_filesystem_info{device="sda", type="ext4", uuid="u"}': 1.0,
            'node_disk_device_mapper_info{device="sda", name="vg-lv"}': 1.0,
            'node_disk_ata_write_cache{device="sda"}': 1.0,
        },
    ),
    (
        network.collect_traffic,
        {
            'node_network_receive_bytes_total{device="eth0"}': 100.0,
            'node_network_transmit_compressed_total{device="eth0"}': 18.0,
        },
    ),
    (
        network.collect_properties,
        {
            'node_network_speed_bytes{device="eth0"}': 125e6,
            'node_network_flags{device="eth0"}': 4099.0,
            'node_network_up{device="eth0"}': 1.0,
            'node_network_info{device="eth0", operstate="up"}': 1.0,
        },
    ),
    (network.collect_arp, {'node_arp_entries{device="eth0"}': 2.0}),
    (
        network.collect_bonding,
        {'node_bonding_slaves{master="bond0"}': 2.0, 'node_bonding_active{master="bond0"}': 1.0},
    ),
    (
        sockets.collect_netstat,
        {
            "node_netstat_TcpExt_SyncookiesSent": 1.0,
            "node_netstat_IpExt_InOctets": 9.0,
            "node_netstat_Ip_Forwarding": 1.0,
            "node_netstat_Ip6_InOctets": 77.0,
            "node_netstat_UdpLite6_InErrors": 4.0,
        },
    ),
    (sockets.collect_sockstat, {"node_sockstat_sockets_used": 21.0, "node_sockstat_TCP_mem": 2.0}),
    (sockets.collect_softnet, {'node_softnet_processed_total{cpu="0"}': 10.0}),
    (
        sockets.collect_udp_queues,
        {'node_udp_queues{ip="v4", queue="tx"}': 16.0, 'node_udp_queues{ip="v4", queue="rx"}': 32.0},
    ),
    (
        sockets.collect_conntrack,
        {"node_nf_conntrack_entries_limit": 99.0, "node_nf_conntrack_stat_drop": 21.0},
    ),
    (collect_pressure, {"node_pressure_cpu_waiting_seconds_total": 2.5}),
    (sensors.collect_thermal, {'node_thermal_zone_temp{type="x86_pkg", zone="0"}': 45.0}),
    (
        hwmon.collect_hwmon,
        {
            'node_hwmon_chip_names{chip="coretemp", chip_name="coretemp"}': 1.0,
            'node_hwmon_temp_celsius{chip="coretemp", sensor="temp1"}': 41.0,
            'node_hwmon_temp_crit_celsius{chip="coretemp", sensor="temp1"}': 100.0,
            'node_hwmon_sensor_label{chip="coretemp", label="Package id 0", sensor="temp1"}': 1.0,
            'node_hwmon_fan_rpm{chip="coretemp", sensor="fan2"}': 1200.0,
        },
    ),
    (
        sensors.collect_edac,
        {
            'node_edac_correctable_errors_total{controller="0"}': 2.0,
            'node_edac_csrow_uncorrectable_errors_total{controller="0", csrow="1"}': 1.0,
        },
    ),
    (sensors.collect_nvme, {'node_nvme_info{device="nvme0", model="Quick"}': 1.0}),
    (
        identity.collect_selinux,
        {"node_selinux_enabled": 1.0, "node_selinux_current_mode": 1.0, "node_selinux_config_mode": 0.0},
    ),
    (
        identity.OsCollector(),
        {
            'node_os_info{id="test", name="Test OS", version_id="12.4 rolling"}': 1.0,
            'node_os_version{id="test", name="Test OS"}': 12.4,
        },
    ),
    (
        TextFileCollector("/text"),
        {'done{job="x"}': 5.0, "node_textfile_scrape_error": 1.0},
    ),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> HostPaths:
    base = tmp_path_factory.mktemp("host")
    write_tree(base, TREE)
    return HostPaths(f"{base}/proc", f"{base}/sys", f"{base}/root", f"{base}/udev")


def write_tree(base: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def gather(collect: Collect, paths: HostPaths) -> dict[str, float]:
    out = Gathered()
    collect(paths, out)
    return {str(labels): value for labels, value in out.labelled()}


@pytest.mark.parametrize("row", EXPECTED, ids=lambda row: next(iter(row[1])))
def test_collector_reads_the_recorded_tree(tree: HostPaths, row: tuple[Collect, dict[str, float]]) -> None:
    found = gather(row[0], tree)
    assert {name: found.get(name) for name in row[1]} == pytest.approx(row[1])


def test_partitions_and_loop_devices_and_the_loopback_are_left_out(tree: HostPaths) -> None:
    names = " ".join([*gather(disk.collect_diskstats, tree), *gather(network.collect_traffic, tree)])
    assert "sda1" not in names
    assert "loop0" not in names
    assert '"lo"' not in names


def test_a_file_system_that_fails_has_an_error_and_no_sizes(tree: HostPaths) -> None:
    def broken(path: str) -> os.statvfs_result:
        raise OSError("gone")

    found = gather(filesystem.FilesystemCollector(broken), tree)
    data = '{device="/dev/sda1", fstype="ext4", mountpoint="/data x"}'
    remote = '{device="server:/x", fstype="nfs4", mountpoint="/remote"}'
    assert found == {
        f"node_filesystem_device_error{data}": 1.0,
        f"node_filesystem_device_error{remote}": 1.0,
    }


def test_a_remote_file_system_that_hangs_holds_one_thread_only(
    tree: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, asked = threading.Event(), []

    def hanging(path: str) -> os.statvfs_result:
        if path == f"{tree.rootfs}/remote":
            asked.append(path)
            release.wait(30)
        return os.statvfs("/")

    monkeypatch.setattr(filesystem, "ANSWER_SECONDS", 0.05)
    collector = filesystem.FilesystemCollector(hanging)
    for _ in range(3):
        found = gather(collector, tree)
    release.set()
    assert asked == [f"{tree.rootfs}/remote"]
    assert [v for n, v in found.items() if "device_error" in n and "/remote" in n] == [1.0]
    assert [v for n, v in found.items() if "readonly" in n and "/data" in n] == [1.0]


def test_processor_times_do_not_step_back_unless_the_processor_was_replaced(tmp_path: Path) -> None:
    collector, idle = cpu.CpuCollector(), []
    for ticks in (1000, 900, 1100, 10):
        write_tree(tmp_path, {"proc/stat": f"cpu0 1 1 1 {ticks} 1 1 1 1 1 1\n"})
        found = gather(collector, HostPaths(f"{tmp_path}/proc", f"{tmp_path}/sys"))
        idle.append(found['node_cpu_seconds_total{cpu="0", mode="idle"}'])
    assert idle == [10.0, 10.0, 11.0, 0.1]


def test_a_kernel_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "big", "wb") as file:
        file.truncate(FILE_BYTES_LIMIT + 1)
    with pytest.raises(ValueError, match=str(FILE_BYTES_LIMIT)):
        read_text(f"{tmp_path}/big")


def test_an_empty_machine_fails_every_collector_quietly_and_garbage_loudly(tmp_path: Path) -> None:
    paths = HostPaths(f"{tmp_path}/proc", f"{tmp_path}/sys", f"{tmp_path}/root", f"{tmp_path}/udev")
    source = HostSource(paths)
    source.collect(Gathered())
    assert source.errors == {}
    write_tree(tmp_path, dict.fromkeys(TREE, "\x00ÿ no numbers: here = at all\n" * 3))
    out = Gathered()
    source.collect(out)
    assert {"cpu", "loadavg", "meminfo"} & set(source.errors)
    shown = {str(labels): value for labels, value in out.labelled()}
    assert shown['node_scrape_collector_success{collector="loadavg"}'] == 0.0


FRAGMENTS = st.lists(
    st.sampled_from(
        (
            *(
                "cpu0 ",
                "eth0: ",
                "1 ",
                "0x1 ",
                "-1 ",
                "9" * 400,
                "f" * 300,
                "nan ",
                " : ",
                "\n",
                "\0",
                "[2/2] ",
            ),
            *(
                "md0 : active ",
                "blocks ",
                "E:ID_FS_TYPE=",
                "é",
                "\udcff",
                "=",
                "some total=",
                "/ ext4 rw 0 0",
            ),
        )
    ),
    max_size=30,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TREE)), FRAGMENTS, st.integers(0, 200))
def test_no_text_of_the_kernel_stops_a_collection(name: str, text: str, keep: int) -> None:
    with tempfile.TemporaryDirectory() as base:
        write_tree(Path(base), TREE)
        kept = TREE[name][:keep].encode()
        (Path(base) / name).write_bytes(kept + text.encode("utf-8", "surrogateescape"))
        source = HostSource(HostPaths(f"{base}/proc", f"{base}/sys", f"{base}/root", f"{base}/udev"))
        out = Gathered()
        source.collect(out)
    written = GatheredWriter(FakeStore()).write(out, 1000)
    assert written.stored_count == len(out.values)
    assert len(source.errors) <= 2


def test_missing_files_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(NoDataError):
        read_text(f"{tmp_path}/nothing")


_IN_A_CONTAINER = """
import json
from agent.containers import UserNames
from agent.hostmetrics.filesystem import SIZE, FilesystemCollector
from agent.hostmetrics.paths import HostPaths, root_of_host
from ingest.gathered import Gathered
out = Gathered()
FilesystemCollector()(HostPaths(), out)
sizes = {key[2][1]: value for key, value in out.values.items() if key[0] == SIZE.name}
print(json.dumps([root_of_host(), UserNames().user(0, None, 0), sizes.get("/")]))
"""


@pytest.mark.root
def test_in_a_container_with_the_hosts_processes_files_are_the_hosts() -> None:
    """Process 1 has this host's files; the agent beside it has an empty /etc, as an image has another one."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    inner = 'mount -t tmpfs -o size=1m none /etc && exec "$0" -c "$1"'
    outer = f'unshare --mount sh -c \'{inner}\' "$0" "$1"; exit $?'
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", outer, sys.executable, _IN_A_CONTAINER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    root, name, size = json.loads(done.stdout)
    found = os.statvfs("/")
    assert (root, name, size) == ("/proc/1/root", "root", float(found.f_blocks * found.f_frsize))
