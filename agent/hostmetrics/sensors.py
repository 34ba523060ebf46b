"""Heat, power and health of the hardware: the collectors thermal_zone, hwmon, rapl, edac and nvme."""

from __future__ import annotations

import os
import re

from agent.hostmetrics.paths import HostPaths, NoDataError, list_names, read_number, read_optional
from ingest.gathered import Family, Gathered, counter, gauge

ZONE_TEMP = gauge("node_thermal_zone_temp", "Temperature of a zone in degrees Celsius.", "zone", "type")
COOLING_NOW = gauge("node_cooling_device_cur_state", "Step of a cooling device.", "name", "type")
COOLING_MAX = gauge("node_cooling_device_max_state", "Highest step of a cooling device.", "name", "type")

CHIP_NAMES = gauge("node_hwmon_chip_names", "Names that drivers give to chips.", "chip", "chip_name")
SENSOR_LABEL = gauge("node_hwmon_sensor_label", "Names of sensors.", "chip", "sensor", "label")

_SENSOR_FILE = re.compile(r"^(?P<kind>[a-z]+)(?P<index>\d*)(_(?P<property>.+))?$")
_HWMON_UNITS = {
    "temp": ("celsius", 0.001),
    "in": ("volts", 0.001),
    "fan": ("rpm", 1.0),
    "curr": ("amps", 0.001),
    "power": ("watt", 1e-6),
    "energy": ("joule_total", 1e-6),
    "humidity": ("percent", 1e-6),
    "freq": ("freq_mhz", 1e-6),
    "pwm": ("", 1.0),
    "beep": ("", 1.0),
    "intrusion": ("", 1.0),
}
_PLAIN_PROPERTIES = re.compile(r"(alarm|beep|enable|fault|type|offset_type)$")

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


def collect_hwmon(paths: HostPaths, out: Gathered) -> None:
    """Add every sensor of every chip. Raises NoDataError without chips."""
    names = paths.list_sys("class/hwmon")
    if not names:
        raise NoDataError("no hardware monitoring chip")
    for name in names:
        directory = f"{paths.sys}/class/hwmon/{name}"
        chip = _chip_name(directory, name)
        if chip_name := read_optional(f"{directory}/name"):
            out.add(CHIP_NAMES, 1.0, chip, _clean(chip_name))
        for file in list_names(directory):
            _add_sensor(out, chip, directory, file)


def _chip_name(directory: str, name: str) -> str:
    device = os.path.realpath(f"{directory}/device")
    if os.path.exists(f"{directory}/device"):
        parent = os.path.basename(os.path.dirname(device))
        parts = [_clean(part) for part in (parent, os.path.basename(device))]
        return "_".join(part for part in parts if part)
    return _clean(read_optional(f"{directory}/name") or name)


def _clean(text: str) -> str:
    return re.sub(r"[^a-z0-9:_]", "_", text.lower()).strip("_")


def _add_sensor(out: Gathered, chip: str, directory: str, file: str) -> None:
    match = _SENSOR_FILE.match(file)
    if match is None or match["kind"] not in _HWMON_UNITS or not match["index"]:
        return
    sensor = match["kind"] + match["index"]
    prop = match["property"] or ""
    if prop == "label":
        if text := read_optional(f"{directory}/{file}"):
            out.add(SENSOR_LABEL, 1.0, chip, sensor, text)
        return
    value = read_number(f"{directory}/{file}")
    if value is None:
        return
    family, factor = _hwmon_family(match["kind"], "" if prop in ("", "input") else prop)
    out.add(family, value * factor, chip, sensor)


def _hwmon_family(kind: str, prop: str) -> tuple[Family, float]:
    unit, factor = _HWMON_UNITS[kind]
    parts = ["node_hwmon", kind]
    if prop:
        parts.append(prop)
    if _PLAIN_PROPERTIES.search(prop):
        factor, unit = 1.0, ""
    if unit:
        parts.append(unit)
    name = "_".join(parts)
    make = counter if name.endswith("_total") else gauge
    return make(name, f"Sensor value {kind} {prop}".strip() + ".", "chip", "sensor"), factor


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
