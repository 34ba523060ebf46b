"""Batteries and power supplies: the collector powersupplyclass."""

from __future__ import annotations

from agent.hostmetrics.paths import HostPaths, read_number, read_optional
from ingest.gathered import Family, Gathered, gauge

_MICRO = 1e-6
_TENTH = 0.1

_PLAIN = (
    "authentic",
    "calibrate",
    "capacity",
    "capacity_alert_max",
    "capacity_alert_min",
    "online",
    "present",
)
_MICRO_SAME_NAME = (
    *("current_boot", "current_max", "voltage_boot", "voltage_max", "voltage_max_design", "voltage_min"),
    *("voltage_min_design", "voltage_ocv", "energy_empty", "energy_empty_design", "energy_full"),
    *("energy_full_design", "charge_control_limit", "charge_control_limit_max", "charge_counter"),
    *("charge_empty", "charge_empty_design", "charge_full", "charge_full_design", "charge_term_current"),
    *("constant_charge_current", "constant_charge_current_max", "constant_charge_voltage"),
    *("constant_charge_voltage_max", "input_current_limit", "precharge_current"),
)
_RENAMED = {
    "cycle_count": ("cyclecount", 1.0),
    "current_now": ("current_ampere", _MICRO),
    "energy_now": ("energy_watthour", _MICRO),
    "power_now": ("power_watt", _MICRO),
    "voltage_now": ("voltage_volt", _MICRO),
    "charge_now": ("charge_ampere", _MICRO),
    "time_to_empty_now": ("time_to_empty_seconds", 1.0),
    "time_to_full_now": ("time_to_full_seconds", 1.0),
    **{f"temp{end}": (f"temp{end}_celsius", _TENTH) for end in ("", "_alert_max", "_alert_min", "_ambient")},
    **{
        f"temp_{end}": (f"temp_{end}_celsius", _TENTH) for end in ("ambient_max", "ambient_min", "max", "min")
    },
}

VALUES: dict[str, tuple[Family, float]] = {
    file: (gauge(f"node_power_supply_{name}", f"Attribute {file} of the supply.", "power_supply"), factor)
    for file, (name, factor) in (
        *((file, (file, 1.0)) for file in _PLAIN),
        *((file, (file, _MICRO)) for file in _MICRO_SAME_NAME),
        *_RENAMED.items(),
    )
}
INFO_FILES = (
    *("capacity_level", "charge_type", "health", "manufacturer", "model_name", "serial_number", "status"),
    *("technology", "type", "usb_type", "scope"),
)
INFO = gauge("node_power_supply_info", "Identity and state of the supply.", "power_supply", *INFO_FILES)


def collect_power_supplies(paths: HostPaths, out: Gathered) -> None:
    """Add what each supply tells of itself."""
    for device in paths.list_sys("class/power_supply"):
        directory = f"{paths.sys}/class/power_supply/{device}"
        out.add(INFO, 1.0, device, *(read_optional(f"{directory}/{file}") or "" for file in INFO_FILES))
        for file, (family, factor) in VALUES.items():
            if (value := read_number(f"{directory}/{file}")) is not None:
                out.add(family, value * factor, device)
