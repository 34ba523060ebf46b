"""Every family of Debian's node exporter on this machine, compared with ours of the same moment."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import pytest

from agent.hostmetrics import powersupply
from agent.hostmetrics.paths import HostPaths
from agent.hostmetrics.registry import HostSource, default_collectors
from ingest.gathered import Gathered
from tests.agent import nodeexporter
from tests.e2e.processes import lasting_port
from tsdb.labels import Labels

PORT = lasting_port()

LACKING = {
    r"(go|process|promhttp)_.*": "about the exporter's own process, not about the host",
    r"node_exporter_build_info": "names the program; ours is prometheus_build_info",
    r"node_(btrfs|xfs|zfs|bcache)_.*": "counters of single file systems: not built",
    r"node_(nfs|nfsd|ipvs|infiniband|fibrechannel|tape|systemd)_.*": "hardware or service"
    " that the machine of the project has not: not built, because it could not be compared",
}
"""What the exporter may show and ours does not, and why."""

COLLECTORS_LACKING = {
    *("bcache", "btrfs", "fibrechannel", "infiniband", "ipvs", "nfs", "nfsd"),
    *("systemd", "tapestats", "xfs", "zfs"),
}

TOLERANCES = {
    r"node_(entropy_available_bits|procs_running|procs_blocked|disk_io_now)": (0.0, 256.0),
    r"node_(load\d+)": (0.5, 2.0),
    r"node_scrape_collector_duration_seconds": (0.0, 60.0),
    r"node_(memory|vmstat|sockstat|netstat|filefd|filesystem|udp|nf_conntrack|arp)_.*": (0.3, 64 << 20),
    r"node_(cpu|schedstat|pressure)_.*": (0.05, 5.0),
    r"node_(time_seconds|timex_.*)": (1e-6, 5.0),
    r".*": (0.05, 1000.0),
}
"""Relative and absolute difference allowed, for what moves between two readings; the first match counts."""

STEADY = re.compile(
    r"node_(boot_time_seconds|network_(mtu|flags|iface|info|up|type|speed|protocol|address|name|carrier).*"
    r"|disk_info|os_.*|uname_info|filesystem_(size_bytes|files|readonly|device_error)|filefd_maximum"
    r"|memory_(MemTotal|SwapTotal|CommitLimit|VmallocTotal|Hugepagesize)_bytes|time_zone.*|time_clock.*"
    r"|timex_(tick|status|sync).*|selinux.*|nf_conntrack_entries_limit|entropy_pool_size_bits|textfile.*"
    r"|cpu_(frequency|scaling).*_(min|max)_hertz)"
)
"""Values that must be equal to the last bit."""


@pytest.fixture(scope="module")
def pages() -> tuple[dict[Labels, float], Gathered, dict[str, str]]:
    if not nodeexporter.installed():
        pytest.skip("Debian's prometheus-node-exporter is not installed")
    source = HostSource()
    source.collect(Gathered())
    with nodeexporter.running(PORT) as url:
        theirs = nodeexporter.scrape(url)
        ours = Gathered()
        source.collect(ours)
        types = nodeexporter.types(url)
    assert not source.errors
    return theirs, ours, types


def lacking(name: str) -> str | None:
    return next((why for pattern, why in LACKING.items() if re.fullmatch(pattern, name)), None)


def by_name(rows: dict[Labels, float]) -> dict[str, dict[Labels, float]]:
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    for labels, value in rows.items():
        found[labels.metric_name][labels] = value
    return found


def test_every_family_of_node_exporter_is_there_or_has_a_reason(
    pages: tuple[dict[Labels, float], Gathered, dict[str, str]],
) -> None:
    theirs, ours = by_name(pages[0]), by_name(dict(pages[1].labelled()))
    missing = sorted(name for name in theirs if name not in ours)
    for name in missing:
        print(f"lacking {name}: {lacking(name)}")
    assert len(theirs) > 150
    assert [name for name in missing if lacking(name) is None] == []
    assert sorted(name for name in ours if name not in theirs) == []


def test_label_sets_are_those_of_node_exporter(
    pages: tuple[dict[Labels, float], Gathered, dict[str, str]],
) -> None:
    ours, wrong = by_name(dict(pages[1].labelled())), []
    for name, rows in by_name(pages[0]).items():
        if name in ours:
            theirs = {row for row in rows if row.get("collector") not in COLLECTORS_LACKING}
            wrong += [str(labels) for labels in theirs ^ set(ours[name])]
    assert wrong == []


def test_values_are_those_of_node_exporter_within_tolerance(
    pages: tuple[dict[Labels, float], Gathered, dict[str, str]],
) -> None:
    ours, wrong = dict(pages[1].labelled()), []
    compared = 0
    for labels, value in pages[0].items():
        if labels not in ours:
            continue
        compared += 1
        name = labels.metric_name
        relative, absolute = next(t for pattern, t in TOLERANCES.items() if re.fullmatch(pattern, name))
        if STEADY.fullmatch(name):
            relative = absolute = 0.0
        if abs(ours[labels] - value) > max(relative * abs(value), absolute):
            wrong.append(f"{labels}: theirs {value}, ours {ours[labels]}")
    assert wrong == []
    assert compared > 300


def test_types_are_those_of_node_exporter(
    pages: tuple[dict[Labels, float], Gathered, dict[str, str]],
) -> None:
    ours = {name: family.type for name, family in pages[1].families.items()}
    assert {n: t for n, t in pages[2].items() if n in ours and ours[n] != t} == {}


RECORDED = {
    "proc/diskstats": "   8  0 sda 10 1 4 2000 20 2 8 500 3 700 2700 5 6 7 8 9 10\n",
    "udev/b8:0": "S:disk/by-id/x\nE:ID_MODEL=Fast\nE:ID_SERIAL_SHORT=X1\nE:ID_FS_TYPE=ext4\nE:ID_FS_UUID=u\n"
    "E:ID_FS_USAGE=filesystem\nE:ID_FS_VERSION=1.0\nE:DM_NAME=vg-lv\nE:DM_UUID=LVM-1\nE:DM_VG_NAME=vg\n"
    "E:DM_LV_NAME=lv\nE:ID_ATA=1\nE:ID_ATA_WRITE_CACHE=1\nE:ID_ATA_WRITE_CACHE_ENABLED=0\n"
    "E:ID_ATA_ROTATION_RATE_RPM=7200\nE:ID_WWN=0x5\nE:ID_PATH=pci-1\nE:ID_REVISION=R2\n",
    "proc/stat": "cpu  9 9 9 9 0 0 0 0 0 0\ncpu0 200 10 50 1000 20 3 4 5 6 7\nintr 987 1 2\nctxt 55\n"
    "btime 1700000000\nprocesses 44\nprocs_running 2\nprocs_blocked 1\nsoftirq 1 1 1 1 1 1 1 1 1 1 1\n",
    "proc/schedstat": "version 15\ntimestamp 15819019232\ncpu0 498494191 0 3533438552 2553969831 3853684107"
    " 2465731542 2045936778163039 343796328169361 4767485306\n",
    "proc/mdstat": "Personalities : [raid1] [raid6]\nmd0 : active raid1 sdb1[1] sda1[0]\n"
    "      248896 blocks [2/2] [UU]\n\nmd6 : active raid1 sdb2[2](F) sdc[1](S) sda2[0]\n"
    "      195310144 blocks [2/1] [U_]\n      [=>...................]  recovery =  8.5% (16775552/195310144)"
    " finish=17.0min speed=259783K/sec\n\nmd3 : active raid6 sda1[3] sdh1[2] sdg1[1] sdf1[0] sdd1[4](S)\n"
    "      5853468288 blocks super 1.2 level 6, 64k chunk, algorithm 2 [4/4] [UUUU]\n\n"
    "md127 : active raid1 sdi2[0] sdj2[1]\n      312319552 blocks [2/2] [UU]\n\n"
    "md4 : inactive raid1 sda3[0](F) sdb3[1](S)\n      4883648 blocks [2/2] [UU]\n\n"
    "md120 : active linear sda1[1] sdb1[0]\n      2095104 blocks super 1.2 0k rounding\n\n"
    "md101 : active (read-only) raid0 sdb[2] sdd[1] sdc[0]\n      322560 blocks super 1.2 512k chunks\n\n"
    "md219 : inactive sdb[2](S) sdc[1](S) sda[0](S)\n      7932 blocks super external:imsm\n\n"
    "md8 : active raid1 sdb1[1] sda1[0] sdc[2](S) sde[3](S)\n      195310144 blocks [2/2] [UU]\n"
    "      [=>...................]  resync =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec\n\n"
    "md9 : active raid1 sdc2[2] sdd2[3] sdb2[1] sda2[0] sde[4](F) sdf[5](F) sdg[6](S)\n"
    "      523968 blocks super 1.2 [4/4] [UUUU]\n      resync=DELAYED\n\n"
    "md201 : active raid1 sda3[0] sdb3[1]\n      1993728 blocks super 1.2 [2/2] [UU]\n"
    "      [=>...................]  check =  5.7% (114176/1993728) finish=0.2min speed=114176K/sec\n\n"
    "unused devices: <none>\n",
    "proc/meminfo": "MemTotal:  2048 kB\nActive(anon):  3 kB\nHugePages_Total:  7\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "800000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "2400001\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_cur_freq": "1200195\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq": "1200000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3300000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_transition_latency": "0\n",
    "sys/devices/system/cpu/cpu0/cpufreq/related_cpus": "0\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_available_governors": "performance powersave\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_setspeed": "<unsupported>\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "30\n",
    "sys/devices/system/cpu/cpu0/topology/core_id": "3\n",
    "sys/devices/system/cpu/cpu0/topology/physical_package_id": "1\n",
    "sys/class/net/bonding_masters": "bond0\n",
    "sys/class/net/bond0/bonding/slaves": "eth0 eth1\n",
    "sys/class/net/bond0/lower_eth0/bonding_slave/mii_status": "up\n",
    "sys/class/net/bond0/lower_eth1/bonding_slave/mii_status": "down\n",
    "sys/class/thermal/thermal_zone0/temp": "45000\n",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg\n",
    "sys/class/thermal/thermal_zone0/policy": "step_wise\n",
    "sys/class/thermal/thermal_zone0/mode": "enabled\n",
    "sys/class/thermal/cooling_device0/cur_state": "2\n",
    "sys/class/thermal/cooling_device0/max_state": "10\n",
    "sys/class/thermal/cooling_device0/type": "Processor\n",
    **{
        f"sys/class/hwmon/hwmon0/{name}": f"{text}\n"
        for name, text in {
            "name": "coretemp",
            "temp1_input": "41000",
            "temp1_max": "84000",
            "temp1_crit": "100000",
            "temp1_crit_alarm": "0",
            "temp1_label": "Package id 0",
            "temp1_type": "1",
            "fan2_input": "1200",
            "fan2_min": "300",
            "fan2_alarm": "1",
            "fan2_target": "9",
            "fan2_pulses": "2",
            "in0_input": "1250",
            "in0_max": "1744",
            "in0_beep": "0",
            "curr1_input": "350",
            "power1_input": "5000000",
            "power1_average": "7000000",
            "power1_average_interval": "1000",
            "power1_accuracy": "50",
            "energy1_input": "9000000",
            "humidity1_input": "45000",
            "freq1_input": "1500000000",
            "freq1_label": "sclk",
            "freq2_input": "900000000",
            "vrm": "85",
            "cpu0_vid": "1250",
            "pwm1": "178",
            "pwm1_enable": "5",
            "intrusion0_alarm": "0",
            "beep_enable": "1",
            "update_interval": "1000",
        }.items()
    },
    "sys/class/powercap/intel-rapl:0/energy_uj": "5000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "118821284256\n",
    "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "proc/sys/kernel/random/entropy_avail": "1337\n",
    "sys/devices/system/edac/mc/mc0/ce_count": "2\n",
    "sys/devices/system/edac/mc/mc0/ce_noinfo_count": "3\n",
    "sys/devices/system/edac/mc/mc0/ue_count": "5\n",
    "sys/devices/system/edac/mc/mc0/ue_noinfo_count": "6\n",
    "sys/devices/system/edac/mc/mc0/csrow0/ce_count": "7\n",
    "sys/devices/system/edac/mc/mc0/csrow0/ue_count": "8\n",
    **{
        f"sys/class/nvme/nvme0/{name}": f"{text}\n"
        for name, text in {"firmware_rev": "1B2Q", "model": "Quick", "serial": "S6", "state": "live"}.items()
    },
    **{
        f"sys/class/dmi/id/{name}": f"{name} 1\n"
        for name in (
            "bios_date",
            "bios_release",
            "board_name",
            "chassis_serial",
            "product_uuid",
            "sys_vendor",
        )
    },
    **{
        f"sys/class/power_supply/{device}/{name}": f"{text}\n"
        for device, files in {
            "AC": {"type": "Mains", "online": "1"},
            "BAT0": {
                "type": "Battery",
                "status": "Charging",
                "present": "1",
                "technology": "Li-ion",
                "cycle_count": "12",
                "capacity": "98",
                "capacity_level": "Normal",
                "energy_full": "50060000",
                "energy_now": "49450000",
                "power_now": "4830000",
                "voltage_now": "12229000",
                "voltage_min_design": "10800000",
                "current_now": "15000",
                "charge_full": "3000000",
                "temp": "305",
                **{name: "2000000" for name in powersupply.VALUES if name.startswith(("charge_", "volt"))},
                **{name: "10" for name in powersupply.VALUES if name.startswith(("temp", "time", "cap"))},
                **{name: "3000000" for name in powersupply.VALUES if name.startswith(("energy", "const"))},
                **{name: "4000" for name in powersupply.VALUES if name.startswith(("curr", "inp", "pre"))},
                "manufacturer": "LGC",
                "model_name": "LNV-45N1",
                "serial_number": "38109",
            },
        }.items()
        for name, text in files.items()
    },
}
"""Hardware that the machine of the project has not, as files below proc, sys and udev."""

RECORDED_COLLECTORS = (
    *("bonding", "cpu", "cpufreq", "diskstats", "dmi", "edac", "hwmon", "meminfo", "nvme", "rapl"),
    *("schedstat", "stat", "thermal_zone", "mdadm", "powersupplyclass"),
)


def test_recorded_hardware_gives_the_series_that_node_exporter_gives(tmp_path: Path) -> None:
    if not nodeexporter.installed():
        pytest.skip("Debian's prometheus-node-exporter is not installed")
    for name, text in RECORDED.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    paths = HostPaths(f"{tmp_path}/proc", f"{tmp_path}/sys", f"{tmp_path}/root", f"{tmp_path}/udev")
    arguments = [
        *("--collector.disable-defaults", *(f"--collector.{name}" for name in RECORDED_COLLECTORS)),
        *(f"--path.procfs={paths.proc}", f"--path.sysfs={paths.sys}", f"--path.udev.data={paths.udev}"),
    ]
    with nodeexporter.running(PORT, *arguments) as url:
        theirs = nodeexporter.scrape(url)
    source = HostSource(paths, {n: c for n, c in default_collectors().items() if n in RECORDED_COLLECTORS})
    out = Gathered()
    source.collect(out)
    assert source.errors == {}
    shown = {str(labels): value for labels, value in theirs.items() if is_recorded(labels.metric_name)}
    ours = {str(labels): value for labels, value in out.labelled() if is_recorded(labels.metric_name)}
    assert ours == pytest.approx(shown)
    assert len(ours) > 150


def is_recorded(name: str) -> bool:
    """Whether the exporter's metric depends on the recorded files only."""
    return name.startswith("node_") and not re.match("node_(scrape|exporter)_", name)
