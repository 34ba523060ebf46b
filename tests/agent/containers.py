"""Real containers for tests: a folder with busybox, started by Debian's runc or podman."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BUSYBOX = "/bin/busybox"


def need(*programs: str) -> None:
    """Skip where a program of Debian is missing or the test does not run as root."""
    if os.geteuid() != 0:
        pytest.skip("starting a container needs root")
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (scripts/system-packages)")


def make_root(folder: Path) -> Path:
    """A root folder with nothing but busybox."""
    target = folder / "rootfs" / "bin"
    target.mkdir(parents=True)
    shutil.copy(BUSYBOX, target / "busybox")
    return folder / "rootfs"


@contextlib.contextmanager
def runc_container(folder: Path, name: str, cgroup: str, *command: str) -> Iterator[Path]:
    """A running container of `runc`; gives the folder of its bundle, ends it afterwards."""
    need("runc", "busybox")
    make_root(folder)
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/busybox", *command]}
    config["linux"]["cgroupsPath"] = cgroup
    config["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": str(folder),
            "options": ["rbind", "ro", "rprivate"],
        }
    )
    config["annotations"] = {"org.opencontainers.image.ref.name": "example.org/busy:1.36"}
    (folder / "config.json").write_text(json.dumps(config))
    # A pipe would stay open as long as the container runs.
    with (folder / "runc.log").open("wb") as log:
        run = ["runc", "run", "-d", "--bundle", str(folder), name]
        done = subprocess.run(run, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    if done.returncode:
        pytest.skip(f"runc cannot run a container here: {(folder / 'runc.log').read_text().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["runc", "delete", "-f", name], check=True)


@dataclass(frozen=True)
class Podman:
    """Podman with its own storage below `folder`, and its API on a socket."""

    folder: Path

    @property
    def socket(self) -> str:
        return str(self.folder / "api.sock")

    @property
    def command(self) -> list[str]:
        folders = [f"--{name}={self.folder / name}" for name in ("root", "runroot", "tmpdir")]
        return [
            *("podman", "--log-level=error", "--runtime=runc", "--storage-driver=vfs"),
            *("--cgroup-manager=cgroupfs", "--events-backend=none", *folders),
        ]

    def run(self, *arguments: str) -> str:
        """Output of one command."""
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return done.stdout.strip()


@contextlib.contextmanager
def podman_service() -> Iterator[Podman]:
    """Podman's API running for a test."""
    need("podman", "runc", "busybox")
    # Podman refuses folders with long names.
    podman = Podman(Path(tempfile.mkdtemp(prefix="vpod")))
    process = subprocess.Popen(
        [*podman.command, "system", "service", "--time=0", f"unix://{podman.socket}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while not os.path.exists(podman.socket):
            assert process.poll() is None, "podman's service ended"
            assert time.monotonic() < deadline, "podman's service did not listen in 20 s"
            time.sleep(0.05)
        yield podman
    finally:
        process.terminate()
        process.wait(10)
        subprocess.run([*podman.command, "rm", "-fa", "-t", "0"], capture_output=True)
        subprocess.run([*podman.command, "rmi", "-fa"], capture_output=True)
        shutil.rmtree(podman.folder, ignore_errors=True)
