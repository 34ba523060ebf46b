"""Heat, power and health of the hardware: the collectors thermal_zone, rapl, edac and nvme."""

from __future__ import annotations

import re

from agent.hostmetrics.paths import HostPaths, NoDataError, list_names, read_number, read_optional
from ingest.gathered import Gathered, counter, gauge

ZONE_TEMP = gauge("node_thermal_zone_temp", "Temperature of a zone in degrees Celsius.", "zone", "type")
COOLING_NOW = gauge("node_cooling_device_cur_state", "Step of a cooling device.", "name", "type")
COOLING_MAX = gauge("node_cooling_device_max_state", "Highest step of a cooling device.", "name", "type")

EDAC_CONTROLLER = {
    "ce_count": counter("node_edac_correctable_errors_total", "Corrected errors.", "controller"),
    "ue_count": counter("node_edac_uncorrectable_errors_total", "Errors not corrected.", "controller"),
}
EDAC_ROW = {
    "ce_count": counter(
        "node_edac_csrow_correctable_errors_total", "Corrected errors of a row.", "controller", "csrow"
    ),
    "ue_count": counter(
        "node_edac_csrow_uncorrectable_errors_total", "Errors of a row not corrected.", "controller", "csrow"
    ),
}
NVME_FILES = ("firmware_rev", "model", "serial", "state")
NVME = gauge(
    "node_nvme_info", "Identity of an NVMe disk.", "device", "firmware_revision", "model", "serial", "state"
)


def collect_thermal(paths: HostPaths, out: Gathered) -> None:
    """Add temperatures of zones and steps of cooling devices."""
    for name in paths.list_sys("class/thermal"):
        directory = f"{paths.sys}/class/thermal/{name}"
        kind = read_optional(f"{directory}/type") or ""
        if name.startswith("thermal_zone"):
            if (value := read_number(f"{directory}/temp")) is not None:
                out.add(ZONE_TEMP, value / 1000.0, name.removeprefix("thermal_zone"), kind)
        elif name.startswith("cooling_device"):
            device = name.removeprefix("cooling_device")
            for file, family in (("cur_state", COOLING_NOW), ("max_state", COOLING_MAX)):
                if (value := read_number(f"{directory}/{file}")) is not None:
                    out.add(family, value, device, kind)


def collect_rapl(paths: HostPaths, out: Gathered) -> None:
    """Add energy used by power domains in joules. Raises NoDataError without them."""
    zones = [name for name in paths.list_sys("class/powercap") if ":" in name]
    if not zones:
        raise NoDataError("no RAPL power domain")
    for zone in zones:
        directory = f"{paths.sys}/class/powercap/{zone}"
        microjoules = read_number(f"{directory}/energy_uj")
        name = read_optional(f"{directory}/name")
        if microjoules is None or not name:
            continue
        base, _, last = name.rpartition("-")
        kind, index = (base, last) if base and last.isdigit() else (name, zone.rpartition(":")[2])
        family = counter(
            f"node_rapl_{re.sub('[^a-zA-Z0-9_]', '_', kind)}_joules_total", "Joules used.", "index", "path"
        )
        out.add(family, microjoules / 1e6, index, directory)


def collect_edac(paths: HostPaths, out: Gathered) -> None:
    """Add memory errors by controller and row."""
    root = "devices/system/edac/mc"
    for controller in (name for name in paths.list_sys(root) if re.fullmatch(r"mc\d+", name)):
        directory = f"{paths.sys}/{root}/{controller}"
        index = controller[2:]
        for file, family in EDAC_CONTROLLER.items():
            if (value := read_number(f"{directory}/{file}")) is not None:
                out.add(family, value, index)
        for file, family in EDAC_ROW.items():
            noinfo = read_number(f"{directory}/{file.replace('_count', '_noinfo_count')}")
            if noinfo is not None:
                out.add(family, noinfo, index, "unknown")
            for row in (name for name in list_names(directory) if re.fullmatch(r"csrow\d+", name)):
                if (value := read_number(f"{directory}/{row}/{file}")) is not None:
                    out.add(family, value, index, row[5:])


def collect_nvme(paths: HostPaths, out: Gathered) -> None:
    """Add the identity of NVMe disks. Raises NoDataError without them."""
    devices = paths.list_sys("class/nvme")
    if not devices:
        raise NoDataError("no NVMe disk")
    for device in devices:
        directory = f"{paths.sys}/class/nvme/{device}"
        out.add(NVME, 1.0, device, *(read_optional(f"{directory}/{file}") or "" for file in NVME_FILES))
