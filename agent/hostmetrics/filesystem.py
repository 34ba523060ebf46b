"""Space and inodes of mounted file systems: the collector filesystem."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

from agent.hostmetrics.paths import HostPaths, NoDataError
from ingest.gathered import Gathered, gauge

MOUNT_POINTS_IGNORED = re.compile(
    r"^/(dev|proc|run|sys|mnt|media|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)"
)
TYPES_IGNORED = re.compile(
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue"
    r"|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|tracefs)$"
)
TYPES_THAT_HANG = re.compile(r"^(nfs|cifs|smb|fuse|ceph|9p|gluster|afs|lustre|ocfs|gfs|beegfs)")
"""File systems whose server may be gone: they are asked in a thread of their own."""
ANSWER_SECONDS = 5.0
"""How long such a file system may take before it counts as failed."""
MOUNT_COUNT_LIMIT = 4096

_ESCAPE = re.compile(r"\\([0-7]{3})")
_LABELS = ("device", "mountpoint", "fstype")

SIZE = gauge("node_filesystem_size_bytes", "Size of the file system.", *_LABELS)
FREE = gauge("node_filesystem_free_bytes", "Free bytes.", *_LABELS)
AVAILABLE = gauge("node_filesystem_avail_bytes", "Free bytes for users other than root.", *_LABELS)
FILES = gauge("node_filesystem_files", "Inodes of the file system.", *_LABELS)
FILES_FREE = gauge("node_filesystem_files_free", "Free inodes.", *_LABELS)
READ_ONLY = gauge("node_filesystem_readonly", "Whether it is mounted read-only.", *_LABELS)
DEVICE_ERROR = gauge("node_filesystem_device_error", "Whether it could not be asked.", *_LABELS)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table, escapes undone."""

    device: str
    mount_point: str
    type: str
    options: tuple[str, ...]


def read_mounts(paths: HostPaths) -> list[Mount]:
    """The mount table of process 1, or our own where that may not be read."""
    try:
        text = paths.read_proc("1/mounts")
    except (NoDataError, OSError):
        text = paths.read_proc("self/mounts")
    mounts = []
    for line in text.splitlines()[:MOUNT_COUNT_LIMIT]:
        fields = line.split()
        if len(fields) >= 4:
            device, point = _unescape(fields[0]), _unescape(fields[1])
            mounts.append(Mount(device, point, fields[2], tuple(fields[3].split(","))))
    return mounts


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


class FilesystemCollector:
    """Remembers mounts that do not answer, so that each holds at most one thread."""

    def __init__(self, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> None:
        self._statvfs = statvfs
        self._stuck: dict[str, threading.Thread] = {}

    def __call__(self, paths: HostPaths, out: Gathered) -> None:
        """Add sizes; a mount that fails has `device_error` 1 and nothing else."""
        seen: set[tuple[str, str, str]] = set()
        for mount in read_mounts(paths):
            point = _below_root(mount.mount_point, paths.rootfs)
            labels = (mount.device, point, mount.type)
            if MOUNT_POINTS_IGNORED.match(point) or TYPES_IGNORED.match(mount.type) or labels in seen:
                continue
            seen.add(labels)
            seen_at = mount.mount_point if point != mount.mount_point else f"{paths.rootfs}{point}"
            found = self._ask(seen_at, mount.type)
            out.add(DEVICE_ERROR, float(found is None), *labels)
            if found is None:
                continue
            block = float(found.f_bsize)
            out.add(SIZE, found.f_blocks * block, *labels)
            out.add(FREE, found.f_bfree * block, *labels)
            out.add(AVAILABLE, found.f_bavail * block, *labels)
            out.add(FILES, found.f_files, *labels)
            out.add(FILES_FREE, found.f_ffree, *labels)
            out.add(READ_ONLY, float("ro" in mount.options), *labels)

    def _ask(self, path: str, kind: str) -> os.statvfs_result | None:
        if not TYPES_THAT_HANG.match(kind):
            return self._statvfs_or_none(path)
        if (thread := self._stuck.pop(path, None)) and thread.is_alive():
            self._stuck[path] = thread
            return None
        answer: list[os.statvfs_result | None] = []
        thread = threading.Thread(
            target=lambda: answer.append(self._statvfs_or_none(path)), name="statvfs", daemon=True
        )
        thread.start()
        thread.join(ANSWER_SECONDS)
        if thread.is_alive():
            self._stuck[path] = thread
        return answer[0] if answer else None

    def _statvfs_or_none(self, path: str) -> os.statvfs_result | None:
        try:
            return self._statvfs(path)
        except OSError:
            return None


def _below_root(path: str, rootfs: str) -> str:
    if not rootfs or rootfs == "/" or not (path == rootfs or path.startswith(f"{rootfs}/")):
        return path
    return path[len(rootfs) :] or "/"
