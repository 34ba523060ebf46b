"""Sensors of hardware monitoring chips: the collector hwmon."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from agent.hostmetrics.paths import HostPaths, NoDataError, list_names, read_number, read_optional
from ingest.gathered import Family, Gathered, counter, gauge

CHIP_NAMES = gauge("node_hwmon_chip_names", "Names that drivers give to chips.", "chip", "chip_name")
SENSOR_LABEL = gauge("node_hwmon_sensor_label", "Names of sensors.", "chip", "sensor", "label")

KINDS = frozenset(
    (
        *("vrm", "beep_enable", "update_interval", "in", "cpu", "fan", "pwm", "temp", "curr", "power"),
        *("energy", "humidity", "intrusion"),
    )
)
_FILE = re.compile(r"^(?P<kind>[^0-9]+)(?P<index>[0-9]*)(_(?P<element>.+))?$")
_WHOLE_CHIP = {
    "vrm": ("node_hwmon_voltage_regulator_version", 1.0),
    "beep_enable": ("node_hwmon_beep_enabled", 1.0),
    "update_interval": ("node_hwmon_update_interval_seconds", 0.001),
}
_UNITS = {
    "in": ("_volts", 0.001),
    "cpu": ("_volts", 0.001),
    "temp": ("_celsius", 0.001),
    "curr": ("_amps", 0.001),
    "power": ("_watt", 1e-6),
    "energy": ("_joule_total", 1e-6),
    "humidity": ("", 1e-6),
}
_SPECIAL_UNITS = {
    ("temp", "type"): ("", 1.0),
    ("power", "accuracy"): ("", 1e-6),
    **{("power", f"average_interval{end}"): ("_seconds", 0.001) for end in ("", "_min", "_max")},
    **{("fan", element): ("_rpm", 1.0) for element in ("", "input", "min", "max", "target")},
}


def collect_hwmon(paths: HostPaths, out: Gathered) -> None:
    """Add every sensor of every chip. Raises NoDataError without chips."""
    names = paths.list_sys("class/hwmon")
    if not names:
        raise NoDataError("no hardware monitoring chip")
    for name in names:
        directory = f"{paths.sys}/class/hwmon/{name}"
        chip = _chip(directory, name)
        if chip_name := read_optional(f"{directory}/name"):
            out.add(CHIP_NAMES, 1.0, chip, _clean(chip_name))
        sensors = _sensors(directory)
        if not sensors:
            sensors = _sensors(f"{directory}/device")
        for (kind, index), elements in sensors.items():
            _add_sensor(out, chip, kind, f"{kind}{index}", elements)


def _chip(directory: str, name: str) -> str:
    """The device behind a chip by its bus and address, which stay the same over restarts."""
    if os.path.exists(f"{directory}/device"):
        device = os.path.realpath(f"{directory}/device")
        parent = os.path.basename(os.path.dirname(device))
        parts = [_clean(part) for part in (parent, os.path.basename(device))]
        return "_".join(part for part in parts if part)
    return _clean(read_optional(f"{directory}/name") or name)


def _clean(text: str) -> str:
    return re.sub(r"[^a-z0-9:_]", "_", text.lower()).strip("_")


def _sensors(directory: str) -> dict[tuple[str, str], dict[str, str]]:
    """Paths of files by kind and index, then by element (`input`, `max`, …, or empty)."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for file in list_names(directory):
        match = _FILE.match(file)
        if match is not None and match["kind"] in KINDS:
            key = (match["kind"], match["index"] or "0")
            found.setdefault(key, {})[match["element"] or ""] = f"{directory}/{file}"
    return found


def _add_sensor(out: Gathered, chip: str, kind: str, sensor: str, elements: Mapping[str, str]) -> None:
    label = read_optional(elements["label"]) if "label" in elements else None
    if label:
        out.add(SENSOR_LABEL, 1.0, chip, sensor, label)
    if kind in _WHOLE_CHIP:
        name, factor = _WHOLE_CHIP[kind]
        if "" in elements and (value := read_number(elements[""])) is not None:
            out.add(_family(name), value * factor, chip, sensor)
        return
    for element, path in elements.items():
        value = None if element == "label" else read_number(path)
        if value is None:
            continue
        name, factor = _name(kind, element, "" in elements)
        out.add(_family(name), value * factor, chip, sensor)


def _name(kind: str, element: str, has_plain: bool) -> tuple[str, float]:
    """Name of a sensor's value and what turns it into the name's unit."""
    name = f"node_hwmon_{kind}"
    if element == "input":
        name += "_input" if has_plain else ""
    elif element:
        name += "_" + re.sub(r"[^a-z0-9:_]", "_", element)
    if element in ("fault", "alarm"):
        return name, 1.0
    if element == "beep":
        return f"{name}_enabled", 1.0
    unit, factor = _SPECIAL_UNITS.get((kind, element)) or _UNITS.get(kind, ("", 1.0))
    return name + unit, factor


def _family(name: str) -> Family:
    make = counter if name.endswith("_total") else gauge
    return make(name, "Value of a sensor.", "chip", "sensor")
