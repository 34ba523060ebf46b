"""The system's clock and how it is steered: the collectors time and timex."""

from __future__ import annotations

import ctypes
import functools
import time

from agent.hostmetrics.paths import HostPaths, NoDataError, read_optional
from ingest.gathered import Gathered, counter, gauge

_MICROSECONDS = 1_000_000.0
_NANOSECONDS = 1_000_000_000.0
_SCALED_PPM = 1_000_000.0 * 65536.0
_STATUS_NANO = 0x2000
_TIME_ERROR = 5

NOW = gauge("node_time_seconds", "Unix time of the system.")
ZONE = gauge("node_time_zone_offset_seconds", "Offset of the time zone.", "time_zone")
SOURCE_AVAILABLE = gauge(
    "node_time_clocksource_available_info", "Clock source that could be used.", "device", "clocksource"
)
SOURCE_CURRENT = gauge("node_time_clocksource_current_info", "Clock source in use.", "device", "clocksource")

_TIMEX = {
    name: (counter if name.endswith("_total") else gauge)(f"node_timex_{name}", text)
    for name, text in (
        ("offset_seconds", "Offset from the reference clock."),
        ("frequency_adjustment_ratio", "Adjustment of the local frequency."),
        ("maxerror_seconds", "Largest error."),
        ("estimated_error_seconds", "Estimated error."),
        ("status", "Status bits of the clock."),
        ("loop_time_constant", "Time constant of the phase-locked loop."),
        ("tick_seconds", "Seconds between ticks."),
        ("pps_frequency_hertz", "Frequency of the pulse."),
        ("pps_jitter_seconds", "Jitter of the pulse."),
        ("pps_shift_seconds", "Length of the pulse's interval."),
        ("pps_stability_hertz", "Stability of the pulse."),
        ("pps_jitter_total", "Times the jitter was over its limit."),
        ("pps_calibration_total", "Calibration intervals."),
        ("pps_error_total", "Calibration errors."),
        ("pps_stability_exceeded_total", "Times the stability was over its limit."),
        ("tai_offset_seconds", "Offset of International Atomic Time."),
        ("sync_status", "Whether the clock follows a reference."),
    )
}


class _TimeVal(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class _TimeX(ctypes.Structure):
    """struct timex of adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _TimeVal),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def collect_time(paths: HostPaths, out: Gathered) -> None:
    """Add the time, the zone and the clock sources."""
    now = time.time()
    local = time.localtime(now)
    out.add(NOW, now)
    out.add(ZONE, local.tm_gmtoff, local.tm_zone)
    for name in paths.list_sys("devices/system/clocksource"):
        directory = f"{paths.sys}/devices/system/clocksource/{name}"
        device = name.removeprefix("clocksource")
        if device == name:
            continue
        for source in (read_optional(f"{directory}/available_clocksource") or "").split():
            out.add(SOURCE_AVAILABLE, 1.0, device, source)
        for source in (read_optional(f"{directory}/current_clocksource") or "").split():
            out.add(SOURCE_CURRENT, 1.0, device, source)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def collect_timex(paths: HostPaths, out: Gathered) -> None:
    """Add the state of the kernel's clock discipline. Raises NoDataError where it may not be asked."""
    state = _TimeX()
    returned = _libc().adjtimex(ctypes.byref(state))
    if returned < 0:
        raise NoDataError(f"adjtimex failed with error {ctypes.get_errno()}")
    unit = _NANOSECONDS if state.status & _STATUS_NANO else _MICROSECONDS
    values = {
        "offset_seconds": state.offset / unit,
        "frequency_adjustment_ratio": 1.0 + state.freq / _SCALED_PPM,
        "maxerror_seconds": state.maxerror / _MICROSECONDS,
        "estimated_error_seconds": state.esterror / _MICROSECONDS,
        "status": state.status,
        "loop_time_constant": state.constant,
        "tick_seconds": state.tick / _MICROSECONDS,
        "pps_frequency_hertz": state.ppsfreq / _SCALED_PPM,
        "pps_jitter_seconds": state.jitter / unit,
        "pps_shift_seconds": state.shift,
        "pps_stability_hertz": state.stabil / _SCALED_PPM,
        "pps_jitter_total": state.jitcnt,
        "pps_calibration_total": state.calcnt,
        "pps_error_total": state.errcnt,
        "pps_stability_exceeded_total": state.stbcnt,
        "tai_offset_seconds": state.tai,
        "sync_status": float(returned != _TIME_ERROR),
    }
    for name, value in values.items():
        out.add(_TIMEX[name], value)
