"""Debian's containerd with folders of its own, and pods started through its CRI as a kubelet does."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.runtimes.crimessages import RUNTIME
from agent.runtimes.grpc import CallError, UnaryChannel
from ingest.remotewrite.protobuf import length_delimited, varint_field
from ingest.remotewrite.wire import as_bytes, read_fields
from tests.agent.containers import BUSYBOX, need

PAUSE = "vedette.test/pause:1"
CNI_PLUGINS = "/usr/lib/cni"
_START_SECONDS = 30


def text(number: int, value: str) -> bytes:
    return length_delimited(number, value.encode())


def mapping(number: int, entries: Mapping[str, str]) -> bytes:
    pairs = (length_delimited(number, text(1, key) + text(2, value)) for key, value in entries.items())
    return b"".join(pairs)


def first_text(answer: bytes) -> str:
    """Field 1 of an answer: the new id."""
    for number, _, value, at in read_fields(memoryview(answer)):
        if number == 1:
            return bytes(as_bytes(value, at)).decode()
    raise AssertionError("no id in the answer")


@dataclass
class Containerd:
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    sandboxes: list[str] = field(default_factory=list)

    @property
    def socket(self) -> str:
        return str(self.folder / "c.sock")

    def start(self) -> None:
        """Start, and wait until the CRI answers. Raises RuntimeError when it does not run here."""
        log = (self.folder / "log").open("ab")
        command = ["containerd", "-c", str(self.folder / "config.toml")]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.call("Status", b"")
                return
            except (OSError, ValueError) as error:
                ended = self.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    self.stop()
                    tail = (self.folder / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"containerd does not run: {error}\n{tail}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def call(self, method: str, message: bytes) -> bytes:
        with UnaryChannel(self.socket, 30) as channel:
            return channel.call(f"{RUNTIME}{method}", message)

    def ctr(self, *arguments: str) -> str:
        command = ["ctr", "-a", self.socket, "-n", "k8s.io", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def add_image(self, name: str) -> str:
        """An image with busybox as its only file; gives its manifest's digest."""
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as files:
            files.add(BUSYBOX, "bin/busybox")
        content = layer.getvalue()
        config = {
            "architecture": "amd64",
            "os": "linux",
            # The name makes images differ that hold the same file.
            "config": {"Cmd": ["/bin/busybox", "sleep", "300"], "Labels": {"name": name}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
        }
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
        archive = self.folder / "image.tar"
        with tarfile.open(archive, "w") as files:
            for member, data in (
                ("layer.tar", content),
                ("config.json", json.dumps(config).encode()),
                ("manifest.json", json.dumps(manifest).encode()),
            ):
                entry = tarfile.TarInfo(member)
                entry.size = len(data)
                files.addfile(entry, io.BytesIO(data))
        self.ctr("images", "import", "--snapshotter", "native", str(archive))
        row = next(line for line in self.ctr("images", "ls").splitlines() if line.startswith(name))
        return next(word for word in row.split() if word.startswith("sha256:"))

    def run_sandbox(
        self, pod: Mapping[str, str], labels: Mapping[str, str], annotations: Mapping[str, str], mode: int
    ) -> tuple[str, bytes]:
        """A pod's sandbox: its id and its configuration. `mode` 2 is the host's network, 0 one of its own.

        Skips the test where none can run.
        """
        metadata = text(1, pod["name"]) + text(2, pod["uid"]) + text(3, pod["namespace"])
        options = varint_field(1, mode)
        config = b"".join(
            (
                length_delimited(1, metadata),
                text(3, str(self.folder / "pods")),
                mapping(6, labels),
                mapping(7, annotations),
                length_delimited(8, length_delimited(2, length_delimited(1, options))),
            )
        )
        try:
            sandbox = first_text(self.call("RunPodSandbox", length_delimited(1, config)))
        except CallError as error:
            pytest.skip(f"containerd cannot run a pod here: {error}")
        self.sandboxes.append(sandbox)
        return sandbox, config

    def run_container(
        self, sandbox: str, sandbox_config: bytes, name: str, image: str, labels: Mapping[str, str]
    ) -> str:
        """A running container with /tmp of this test mounted read-only at /data."""
        mount = text(1, "/data") + text(2, str(self.folder)) + varint_field(3, 1)
        config = b"".join(
            (
                length_delimited(1, text(1, name)),
                length_delimited(2, text(1, image)),
                length_delimited(7, mount),
                mapping(9, labels),
                text(11, f"{name}.log"),
            )
        )
        message = text(1, sandbox) + length_delimited(2, config) + length_delimited(3, sandbox_config)
        container = first_text(self.call("CreateContainer", message))
        self.call("StartContainer", text(1, container))
        return container


def _write_config(folder: Path) -> None:
    (folder / "net.d").mkdir()
    (folder / "pods").mkdir()
    ipam = {"type": "host-local", "dataDir": str(folder / "ipam"), "subnet": "10.213.77.0/24"}
    network = {"cniVersion": "0.4.0", "name": "vedettetest", "plugins": [{"type": "ptp", "ipam": ipam}]}
    (folder / "net.d" / "10-test.conflist").write_text(json.dumps(network))
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    (folder / "config.toml").write_text(
        f"""version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/t.sock"
{cri}]
  sandbox_image = "{PAUSE}"
  disable_tcp_service = true
  restrict_oom_score_adj = true
{cri}.cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{folder}/net.d"
{cri}.containerd]
  snapshotter = "native"
"""
    )


@contextlib.contextmanager
def containerd() -> Iterator[Containerd]:
    """A containerd for a test; skips where it cannot run."""
    need("containerd", "runc", "busybox")
    # Socket paths must be short.
    folder = Path(tempfile.mkdtemp(prefix="vcd"))
    service = Containerd(folder)
    _write_config(folder)
    try:
        try:
            service.start()
        except RuntimeError as error:
            pytest.skip(str(error))
        service.add_image(PAUSE)
        yield service
    finally:
        for sandbox in service.sandboxes:
            for method in ("StopPodSandbox", "RemovePodSandbox"):
                with contextlib.suppress(OSError, ValueError):
                    service.call(method, text(1, sandbox))
        service.stop()
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if line.split()[1].startswith(str(folder)):
                subprocess.run(["umount", "-l", line.split()[1]], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def has_own_networks() -> bool:
    """Whether pods can get a network of their own: there are plug-ins, and the kernel lets us make one."""
    if not os.path.exists(f"{CNI_PLUGINS}/ptp"):
        return False
    pair = ["ip", "link", "add", "vedprobe0", "type", "veth", "peer", "name", "vedprobe1"]
    if subprocess.run(pair, capture_output=True).returncode:
        return False
    subprocess.run(["ip", "link", "del", "vedprobe0"], check=True)
    return True
