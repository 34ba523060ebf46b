"""Where actions run: root folders that are overlays of the host's, a network of their own, runc containers.

A container's id is its control group's name, as a runtime would set it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.agent.live.actions import CONFINED, CONTAINER, HOST, Action

TIMEOUT_SECONDS = 60.0
ADDRESSES = ("198.51.100.7", "169.254.169.254")
CONTAINER_ID = "c0ffee" + "1" * 58
CONFINED_ID = "c0ffee" + "2" * 58
_PRELUDE = """\
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PY=%(python)s
T=$(mktemp -d)
named() { name=$1; shift; mkdir -p $T/bin; ln -s $PY $T/bin/$name; $T/bin/$name "$@"; }
code() { name=$1; shift; named $name -S -c "$@"; }
"""
_CAPABILITIES = ("SYS_ADMIN", "NET_RAW", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "MKNOD")


class SandboxError(RuntimeError):
    """There can be no sandbox here; the text says why."""


@dataclass(frozen=True)
class Sandbox:
    """Folders of one run."""

    folder: Path
    """On a file system of its own, since an overlay may not lie within its lower layer."""

    def prepare(self, place: str, actions: Sequence[Action]) -> Path:
        """A root folder for a place with the scripts of its actions in it."""
        home = self.folder / place.replace(" ", "-")
        root = home / "rootfs"
        for name in ("upper", "work", "rootfs"):
            (home / name).mkdir(parents=True)
        options = f"lowerdir=/,upperdir={home}/upper,workdir={home}/work"
        _run("mount", "-t", "overlay", "overlay", "-o", options, str(root))
        scripts = root / "actions"
        scripts.mkdir()
        prelude = _PRELUDE % {"python": os.path.realpath("/usr/bin/python3")}
        for action in actions:
            (scripts / f"{action.name}.sh").write_text(f"{prelude}{action.script}\n:\n")
        lines = [
            f"sh /actions/{action.name}.sh >/actions/{action.name}.log 2>&1 </dev/null &"
            for action in actions
        ]
        (scripts / "all.sh").write_text("\n".join([*lines, "wait", ""]))
        return root

    def logs(self, place: str, action: Action) -> str:
        """What an action printed."""
        path = self.folder / place.replace(" ", "-") / "rootfs" / "actions" / f"{action.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def bundle(self, place: str, identity: str, capabilities: Sequence[str]) -> Path:
        """The OCI bundle of a container."""
        home = self.folder / place.replace(" ", "-")
        names = [f"CAP_{name}" for name in capabilities]
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": 0, "gid": 0},
                "args": ["/bin/sh", "/actions/all.sh"],
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "capabilities": {"bounding": names, "effective": names, "permitted": names},
            },
            "root": {"path": "rootfs"},
            "hostname": "box",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
            ],
            "linux": {
                "cgroupsPath": f"/docker/{identity}",
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "resources": {"devices": [{"allow": True, "access": "rwm"}]},
            },
        }
        (home / "config.json").write_text(json.dumps(config))
        return home


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A sandbox on a tmpfs of its own. Raises SandboxError when this host does not allow one."""
    for program in ("runc", "unshare", "ip"):
        if shutil.which(program) is None:
            raise SandboxError(f"{program} is not installed (scripts/system-packages)")
    folder = Path(tempfile.mkdtemp(prefix="vedette-live-"))
    try:
        _run("mount", "-t", "tmpfs", "tmpfs", str(folder))
        try:
            yield Sandbox(folder)
        finally:
            _unmount(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unmount(folder: Path) -> None:
    lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    inside = [line.split()[1] for line in lines if line.split()[1].startswith(str(folder))]
    for path in sorted(inside, key=len, reverse=True):
        subprocess.run(["umount", "-l", path], check=False)


def run_actions(box: Sandbox, actions: Sequence[Action]) -> None:
    """Run all actions of all places, those of one place at the same time, and wait for their end."""
    started = []
    containers = {
        CONTAINER: (CONTAINER_ID, _CAPABILITIES),
        CONFINED: (CONFINED_ID, ("SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE")),
    }
    for place in sorted({action.place for action in actions}):
        own = [action for action in actions if action.place == place]
        root = box.prepare(place, own)
        if place == HOST:
            steps = (
                f"mount -t tmpfs tmpfs {root}/dev",
                f"mknod -m 666 {root}/dev/null c 1 3",
                f"mknod -m 666 {root}/dev/urandom c 1 9",
                f"mkdir {root}/dev/shm",
                f"mount --bind /proc {root}/proc",
                f"mount -t tmpfs tmpfs {root}/tmp",
                f"exec chroot {root} /bin/sh /actions/all.sh",
            )
            inside = " && ".join(steps)
        else:
            identity, capabilities = containers[place]
            home = box.bundle(place, identity, capabilities)
            inside = (
                f"exec runc --root {home}/state run --bundle {home} vedette-{identity[6:9]}-{os.getpid()}"
            )
        network = "".join(f"ip addr add {address}/32 dev lo && " for address in ADDRESSES)
        command = ["unshare", "--mount", "--net", "sh", "-c", f"ip link set lo up && {network}{inside}"]
        started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
    try:
        for process in started:
            process.wait(TIMEOUT_SECONDS)
    finally:
        for process in started:
            process.kill()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SandboxError(f"{' '.join(command[:4])}: {done.stderr.strip()}")
