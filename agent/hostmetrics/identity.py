"""What the machine is: the collectors uname, os, dmi and selinux."""

from __future__ import annotations

import os
import re
import shlex

from agent.hostmetrics.paths import HostPaths, NoDataError, read_number, read_optional, read_text
from ingest.gathered import Gathered, gauge

UNAME_LABELS = ("sysname", "release", "version", "machine", "nodename", "domainname")
UNAME = gauge("node_uname_info", "Names that the kernel gives itself.", *UNAME_LABELS)

OS_FIELDS = (
    *("build_id", "id", "id_like", "image_id", "image_version", "name", "pretty_name"),
    *("variant", "variant_id", "version", "version_codename", "version_id"),
)
OS_INFO = gauge("node_os_info", "Fields of the os-release file.", *OS_FIELDS)
OS_VERSION = gauge("node_os_version", "Version of the system as a number.", "id", "id_like", "name")
_VERSION = re.compile(r"[0-9]+\.?[0-9]*")

DMI_FILES = {
    **{name: name for name in ("bios_date", "bios_release", "bios_vendor", "bios_version")},
    **{f"board_{name}": f"board_{name}" for name in ("asset_tag", "name", "serial", "vendor", "version")},
    **{f"chassis_{name}": f"chassis_{name}" for name in ("asset_tag", "serial", "vendor", "version")},
    **{f"product_{name}": f"product_{name}" for name in ("family", "name", "serial", "sku", "uuid")},
    "product_version": "product_version",
    "sys_vendor": "system_vendor",
}
DMI = gauge("node_dmi_info", "What the firmware says of the machine.", *DMI_FILES.values())

SELINUX_ENABLED = gauge("node_selinux_enabled", "Whether SELinux is on.")
SELINUX_CONFIG_MODE = gauge("node_selinux_config_mode", "Mode of the configuration.")
SELINUX_CURRENT_MODE = gauge("node_selinux_current_mode", "Mode in force.")
_SELINUX_MODES = {"enforcing": 1.0, "permissive": 0.0, "disabled": -1.0}


def collect_uname(paths: HostPaths, out: Gathered) -> None:
    """Add the names of the kernel."""
    names = os.uname()
    domain = read_optional(f"{paths.proc}/sys/kernel/domainname") or "(none)"
    out.add(UNAME, 1.0, names.sysname, names.release, names.version, names.machine, names.nodename, domain)


def read_os_release(text: str) -> dict[str, str]:
    """Fields of an os-release file, names in lower case, quotes undone."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if not separator or name.startswith("#"):
            continue
        try:
            found[name.lower()] = "".join(shlex.split(value))
        except ValueError:
            found[name.lower()] = value
    return found


class OsCollector:
    """Reads the file again only when it has changed."""

    def __init__(self) -> None:
        self._stamp: tuple[str, int] | None = None
        self._release: dict[str, str] = {}

    def __call__(self, paths: HostPaths, out: Gathered) -> None:
        """Add name and version. Raises NoDataError where no file says them."""
        self._refresh(paths)
        release = self._release
        out.add(OS_INFO, 1.0, *(release.get(field, "") for field in OS_FIELDS))
        version = _VERSION.match(release.get("version_id", ""))
        if version:
            names = (release.get(field, "") for field in ("id", "id_like", "name"))
            out.add(OS_VERSION, float(version[0]), *names)

    def _refresh(self, paths: HostPaths) -> None:
        for path in (f"{paths.rootfs}/etc/os-release", f"{paths.rootfs}/usr/lib/os-release"):
            try:
                stamp = (path, os.stat(path).st_mtime_ns)
            except OSError:
                continue
            if stamp != self._stamp:
                self._release, self._stamp = read_os_release(read_text(path)), stamp
            return
        raise NoDataError("no os-release file")


def collect_dmi(paths: HostPaths, out: Gathered) -> None:
    """Add what the firmware says; files that may not be read are empty labels."""
    if not paths.list_sys("class/dmi/id"):
        raise NoDataError("no DMI")
    out.add(DMI, 1.0, *(read_optional(f"{paths.sys}/class/dmi/id/{file}") or "" for file in DMI_FILES))


def collect_selinux(paths: HostPaths, out: Gathered) -> None:
    """Add whether SELinux is on and, if so, its modes."""
    current = read_number(f"{paths.sys}/fs/selinux/enforce")
    out.add(SELINUX_ENABLED, float(current is not None))
    if current is None:
        return
    out.add(SELINUX_CURRENT_MODE, current)
    for line in (read_optional(f"{paths.rootfs}/etc/selinux/config") or "").splitlines():
        name, _, mode = line.partition("=")
        if name.strip() == "SELINUX" and mode.strip() in _SELINUX_MODES:
            out.add(SELINUX_CONFIG_MODE, _SELINUX_MODES[mode.strip()])
