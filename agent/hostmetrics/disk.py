"""Block devices: the collector diskstats."""

from __future__ import annotations

import re

from agent.hostmetrics.paths import HostPaths, NoDataError, read_text
from ingest.gathered import Family, Gathered, counter, gauge

DEVICES_IGNORED = re.compile(r"^(ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$")
SECTOR_BYTES = 512.0
_MILLISECOND = 0.001

COLUMNS: tuple[tuple[Family, float], ...] = tuple(
    (make(f"node_disk_{name}", text, "device"), factor)
    for make, name, text, factor in (
        (counter, "reads_completed_total", "Reads completed.", 1.0),
        (counter, "reads_merged_total", "Reads merged.", 1.0),
        (counter, "read_bytes_total", "Bytes read.", SECTOR_BYTES),
        (counter, "read_time_seconds_total", "Seconds of all reads.", _MILLISECOND),
        (counter, "writes_completed_total", "Writes completed.", 1.0),
        (counter, "writes_merged_total", "Writes merged.", 1.0),
        (counter, "written_bytes_total", "Bytes written.", SECTOR_BYTES),
        (counter, "write_time_seconds_total", "Seconds of all writes.", _MILLISECOND),
        (gauge, "io_now", "Requests in flight.", 1.0),
        (counter, "io_time_seconds_total", "Seconds with a request in flight.", _MILLISECOND),
        (counter, "io_time_weighted_seconds_total", "Seconds weighted by requests.", _MILLISECOND),
        (counter, "discards_completed_total", "Discards completed.", 1.0),
        (counter, "discards_merged_total", "Discards merged.", 1.0),
        (counter, "discarded_sectors_total", "Sectors discarded.", 1.0),
        (counter, "discard_time_seconds_total", "Seconds of all discards.", _MILLISECOND),
        (counter, "flush_requests_total", "Flushes completed.", 1.0),
        (counter, "flush_requests_time_seconds_total", "Seconds of all flushes.", _MILLISECOND),
    )
)
"""Columns of diskstats after the device's name, and what turns them into the family's unit."""

INFO = gauge(
    "node_disk_info",
    "What udev knows of a block device.",
    *("device", "major", "minor", "path", "wwn", "model", "serial", "revision"),
)
FILESYSTEM_INFO = gauge(
    "node_disk_filesystem_info", "File system on a device.", "device", "type", "usage", "uuid", "version"
)
MAPPER_INFO = gauge(
    "node_disk_device_mapper_info",
    "Device mapper volume.",
    *("device", "name", "uuid", "vg_name", "lv_name", "lv_layer"),
)
ATA = {
    "ID_ATA_WRITE_CACHE": gauge("node_disk_ata_write_cache", "Whether the disk has a write cache.", "device"),
    "ID_ATA_WRITE_CACHE_ENABLED": gauge(
        "node_disk_ata_write_cache_enabled", "Whether the write cache is on.", "device"
    ),
    "ID_ATA_ROTATION_RATE_RPM": gauge(
        "node_disk_ata_rotation_rate_rpm", "Revolutions a minute, 0 for solid state.", "device"
    ),
}


def collect_diskstats(paths: HostPaths, out: Gathered) -> None:
    """Add the counters of every device that is not a partition, a loop or a RAM disk."""
    for line in paths.read_proc("diskstats").splitlines():
        fields = line.split()
        if len(fields) < 4 or DEVICES_IGNORED.match(fields[2]):
            continue
        major, minor, device = fields[:3]
        for (family, factor), value in zip(COLUMNS, fields[3:], strict=False):
            out.add(family, float(value) * factor, device)
        _add_udev(udev_properties(paths, major, minor), out, device, major, minor)


def udev_properties(paths: HostPaths, major: str, minor: str) -> dict[str, str]:
    """What udev's database says of a block device; empty where there is no database."""
    try:
        text = read_text(f"{paths.udev}/b{major}:{minor}")
    except (NoDataError, OSError):
        return {}
    lines = (line[2:].partition("=") for line in text.splitlines() if line.startswith("E:"))
    return {name: value for name, _, value in lines}


def _add_udev(udev: dict[str, str], out: Gathered, device: str, major: str, minor: str) -> None:
    def get(*names: str) -> tuple[str, ...]:
        return tuple(udev.get(name, "") for name in names)

    path, wwn, model, revision = get("ID_PATH", "ID_WWN", "ID_MODEL", "ID_REVISION")
    serial = udev.get("SCSI_IDENT_SERIAL") or udev.get("ID_SERIAL_SHORT", "")
    out.add(INFO, 1.0, device, major, minor, path, wwn, model, serial, revision)
    if udev.get("ID_FS_TYPE"):
        out.add(
            FILESYSTEM_INFO,
            1.0,
            device,
            *get("ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_UUID", "ID_FS_VERSION"),
        )
    if udev.get("DM_NAME"):
        names = get("DM_NAME", "DM_UUID", "DM_VG_NAME", "DM_LV_NAME", "DM_LV_LAYER")
        out.add(MAPPER_INFO, 1.0, device, *names)
    if udev.get("ID_ATA"):
        for name, family in ATA.items():
            if udev.get(name, "").isdigit():
                out.add(family, float(udev[name]), device)
