"""Container records from real Podman and runc, from files as containerd and CRI-O write them; late ones."""

from __future__ import annotations

import asyncio
import json
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import UnixStreamServer
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent.containermetrics import ContainerSource
from agent.runtimes import lookup
from agent.runtimes.bundles import OciBundles
from agent.runtimes.engineapi import EngineApi, unix_ns
from agent.runtimes.info import ContainerInfo, ImageReference, Mount, parse_image
from agent.runtimes.lookup import ContainerLookup
from ingest.gathered import Gathered
from tests.agent.containers import make_root, podman_service, runc_container

POD = "1" * 64
MEMBER = "2" * 64


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("nginx", ("nginx", "", "")),
        ("nginx:1.25", ("nginx", "1.25", "")),
        ("reg.example:5000/team/app", ("reg.example:5000/team/app", "", "")),
        ("reg.example:5000/team/app:v1@sha256:aa", ("reg.example:5000/team/app", "v1", "sha256:aa")),
        ("docker.io/library/redis@sha256:bb", ("docker.io/library/redis", "", "sha256:bb")),
        ("sha256:cc", ("", "", "sha256:cc")),
        ("", ("", "", "")),
    ],
)
def test_an_image_name_is_taken_apart(reference: str, parts: tuple[str, str, str]) -> None:
    assert parse_image(reference) == ImageReference(*parts)


def test_times_of_runtimes_keep_their_nanoseconds() -> None:
    assert unix_ns("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert unix_ns("1970-01-01T01:00:00.000000007+01:00") == 7
    assert unix_ns("2026-11-28T02:00:56.51162008Z") % 1_000_000_000 == 511_620_080
    assert [unix_ns(text) for text in ("", "soon", "2026-11-28T02:00:56")] == [0, 0, 0]


@pytest.mark.root
def test_podman_tells_everything_about_a_real_container(tmp_path: Path) -> None:
    with podman_service() as podman:
        with tarfile.open(tmp_path / "image.tar", "w") as image:
            image.add(make_root(tmp_path), ".")
        image_id = podman.run("import", "-q", str(tmp_path / "image.tar"), "reg.example:5000/team/busy:1.36")
        limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
        mount = f"--volume={tmp_path}:/data:ro"
        started = ("run", "-d", "--name=web1", "--network=host", "--label=app=web", mount, *limits)
        try:
            whole_id = podman.run(*started, "reg.example:5000/team/busy:1.36", "/bin/busybox", "sleep", "60")
        except RuntimeError as error:
            pytest.skip(f"podman cannot run a container here: {error}")
        api = EngineApi("podman", podman.socket)
        info = api.find(whole_id)
        assert info is not None
        assert (info.id, info.runtime, info.name) == (whole_id, "podman", "web1")
        assert (info.image, info.repository) == (
            "reg.example:5000/team/busy:1.36",
            "reg.example:5000/team/busy",
        )
        assert (info.tag, f"sha256:{info.image_id}") == ("1.36", image_id)
        assert info.digest.startswith("sha256:")
        assert (info.privileged, info.host_network, info.host_pid) == (False, True, False)
        assert info.mounts == (Mount(str(tmp_path), "/data", "", False, "rprivate"),)
        assert str(info.mounts[0]) == f"{tmp_path}:/data::false:rprivate"
        assert dict(info.labels) == {"app": "web"}
        assert abs(info.created_unix_ns / 1e9 - time.time()) < 60
        assert api.find("f" * 64) is None
        containers = ContainerLookup([api])
        source = ContainerSource(names_of=containers.names_of)
        source.collect(Gathered())
        containers.resolve(whole_id)
        gathered = Gathered()
        source.collect(gathered)
        rows = [labels.to_dict() for labels, _ in gathered.labelled()]
        named = next(
            row for row in rows if row["__name__"] == "container_processes" and whole_id in row["id"]
        )
        assert (named["name"], named["image"]) == ("web1", info.image)


@pytest.mark.root
def test_a_container_of_runc_is_described_by_its_bundle(tmp_path: Path) -> None:
    by_cgroup = "a" * 64
    with runc_container(tmp_path, "vedette-plain", f"/docker/{by_cgroup}", "sleep", "60"):
        info = OciBundles().find("vedette-plain")
        assert info is not None
        assert (info.runtime, info.name, info.repository, info.tag) == (
            *("runc", "vedette-plain", "example.org/busy", "1.36"),
        )
        assert (info.privileged, info.host_network, info.host_pid) == (False, False, False)
        assert info.mounts == (Mount(str(tmp_path), "/data", "", False, "rprivate"),)
        assert abs(info.created_unix_ns / 1e9 - time.time()) < 60
        found = OciBundles().find(by_cgroup)
        assert found is not None
        assert (found.id, found.name) == (by_cgroup, "vedette-plain")
    assert OciBundles().find("vedette-plain") is None


def write_bundle(path: Path, annotations: dict[str, str], **config: Any) -> None:
    path.parent.mkdir(parents=True)
    namespaces = [{"type": name} for name in ("pid", "ipc", "mount", "uts", "network")]
    linux = {"namespaces": namespaces, "maskedPaths": ["/proc/kcore"]}
    path.write_text(json.dumps({"ociVersion": "1.0.2", "linux": linux, "annotations": annotations, **config}))


def test_containers_of_a_pod_are_found_in_the_bundles_of_containerd(tmp_path: Path) -> None:
    tasks = tmp_path / "run/containerd/io.containerd.runtime.v2.task/k8s.io"
    prefix = "io.kubernetes.cri."
    pod = {
        f"{prefix}sandbox-id": POD,
        f"{prefix}sandbox-name": "web-7d",
        f"{prefix}sandbox-namespace": "shop",
        f"{prefix}sandbox-uid": "0b4e",
    }
    write_bundle(tasks / POD / "config.json", {**pod, f"{prefix}container-type": "sandbox", "team": "blue"})
    member = {
        **pod,
        f"{prefix}container-type": "container",
        f"{prefix}container-name": "front",
        f"{prefix}image-name": "docker.io/library/nginx:1.25",
    }
    bounding = ["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_NET_RAW"]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "rslave", "rw"]},
    ]
    write_bundle(
        tasks / MEMBER / "config.json",
        member,
        process={"capabilities": {"bounding": bounding}},
        mounts=mounts,
        linux={"namespaces": [{"type": "mount"}, {"type": "network", "path": "/proc/1/ns/net"}]},
    )
    info = OciBundles(tmp_path).find(MEMBER)
    assert info is not None
    assert (info.pod_name, info.pod_namespace, info.pod_uid) == ("web-7d", "shop", "0b4e")
    assert (info.name, info.container_name, info.runtime) == ("front", "front", "containerd")
    assert (info.repository, info.tag, info.pod_sandbox_id) == ("docker.io/library/nginx", "1.25", POD)
    assert (info.privileged, info.host_pid, info.host_network) == (True, True, False)
    assert info.mounts == (Mount("/", "/host", "", True, "rslave"),)
    assert dict(info.pod_annotations) == {"team": "blue"}
    sandbox = OciBundles(tmp_path).find(POD)
    assert sandbox is not None
    assert (sandbox.is_pod_sandbox, sandbox.pod_sandbox_id, sandbox.container_name) == (True, POD, "")


def test_containers_of_a_pod_are_found_in_the_bundles_of_cri_o(tmp_path: Path) -> None:
    storage = tmp_path / "run/containers/storage/overlay-containers"
    prefix = "io.kubernetes.cri-o."
    labels = {
        "io.kubernetes.pod.name": "db-0",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": "77aa",
    }
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": "9187"}
    sandbox = {
        f"{prefix}ContainerType": "sandbox",
        f"{prefix}IP.0": "10.88.0.7",
        f"{prefix}Annotations": json.dumps(scraped | {"kubernetes.io/config.seen": "now"}),
        f"{prefix}Labels": json.dumps({**labels, "app": "db", "io.kubernetes.container.name": "POD"}),
    }
    write_bundle(storage / POD / "userdata/config.json", sandbox)
    member = {
        f"{prefix}ContainerType": "container",
        f"{prefix}SandboxID": POD,
        f"{prefix}Name": "k8s_postgres_db-0_shop_77aa_0",
        f"{prefix}ImageName": "quay.io/pg:16",
        f"{prefix}ImageRef": "quay.io/pg@sha256:cc",
        f"{prefix}Created": "2026-11-28T02:00:00.000000001Z",
        f"{prefix}PrivilegedRuntime": "false",
        f"{prefix}Labels": json.dumps({**labels, "io.kubernetes.container.name": "postgres"}),
    }
    write_bundle(storage / MEMBER / "userdata/config.json", member)
    info = OciBundles(tmp_path).find(MEMBER)
    assert info is not None
    assert (info.runtime, info.container_name, info.pod_name) == ("cri-o", "postgres", "db-0")
    assert (info.repository, info.tag, info.digest) == ("quay.io/pg", "16", "sha256:cc")
    assert (info.ip, info.pod_ip, info.pod_uid) == ("10.88.0.7", "10.88.0.7", "77aa")
    assert dict(info.pod_labels) == {"app": "db"}
    assert dict(info.pod_annotations) == scraped | {"kubernetes.io/config.seen": "now"}
    assert info.created_unix_ns % 10 == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"annotations": 5}', '{"linux": {"namespaces": "x"}}'])
def test_a_damaged_bundle_is_an_error_that_names_no_container(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run/containerd/io.containerd.runtime.v2.task/moby" / MEMBER / "config.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ValueError, match="validation error"):
        OciBundles(tmp_path).find(MEMBER)


@pytest.mark.parametrize("container_id", ["", ".", "..", "../../etc", "a/b", "*"])
def test_an_id_never_leads_out_of_the_folders(tmp_path: Path, container_id: str) -> None:
    write_bundle(tmp_path / "run/containerd/io.containerd.runtime.v2.task/moby/x/config.json", {})
    assert OciBundles(tmp_path).find(container_id) is None


class Engine(UnixStreamServer):
    """An engine's socket that gives prepared answers by path."""

    def __init__(self, path: str, answers: dict[str, tuple[int, bytes]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answers.get(self.path, (404, b'{"message":"No such container"}'))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "local"

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        super().__init__(path, Handler)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[[dict[str, tuple[int, bytes]]], EngineApi]]:
    servers = []

    def start(answers: dict[str, tuple[int, bytes]]) -> EngineApi:
        server = Engine(str(tmp_path / "docker.sock"), answers)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return EngineApi("docker", str(tmp_path / "docker.sock"), timeout_seconds=2)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def container(container_id: str, labels: dict[str, str], **more: Any) -> tuple[int, bytes]:
    body = {"Id": container_id, "Name": "/k8s", "Config": {"Image": "sha256:99", "Labels": labels}, **more}
    return 200, json.dumps(body).encode()


def test_a_pod_behind_docker_has_the_labels_and_the_address_of_its_sandbox(
    engine: Callable[[dict[str, tuple[int, bytes]]], EngineApi],
) -> None:
    pod = {"io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "shop"}
    sandbox = {**pod, "io.kubernetes.docker.type": "podsandbox", "annotation.prometheus.io/scrape": "true"}
    member = {**pod, "io.kubernetes.docker.type": "container", "io.kubernetes.container.name": "app"}
    image = {"RepoTags": ["shop/app:3"], "RepoDigests": ["shop/app@sha256:dd"]}
    api = engine(
        {
            f"/containers/{POD}/json": container(
                POD, {**sandbox, "tier": "front"}, NetworkSettings={"IPAddress": "172.17.0.9"}
            ),
            f"/containers/{MEMBER}/json": container(
                MEMBER,
                {**member, "io.kubernetes.sandbox.id": POD},
                Image="sha256:99",
                HostConfig={"Privileged": True, "NetworkMode": f"container:{POD}"},
            ),
            "/images/sha256:99/json": (200, json.dumps(image).encode()),
        }
    )
    info = api.find(MEMBER)
    assert info is not None
    assert (info.pod_name, info.pod_namespace, info.container_name) == ("web", "shop", "app")
    assert (info.ip, info.pod_ip, info.pod_sandbox_id) == ("172.17.0.9", "172.17.0.9", POD)
    assert (dict(info.pod_labels), dict(info.pod_annotations)) == (
        *({"tier": "front"}, {"prometheus.io/scrape": "true"}),
    )
    assert (info.repository, info.tag, info.digest) == ("shop/app", "3", "sha256:dd")
    assert info.privileged is True
    assert api.find("3" * 64) is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((500, b"{}"), "status 500"),
        ((200, b"{"), "unexpected end"),
        ((200, b'{"Id": 7}'), "validation error"),
        ((200, b" " * (4 << 20) + b" "), "exceeds 4194304 bytes"),
    ],
)
def test_an_engine_that_answers_nonsense_is_an_error(
    engine: Callable[[dict[str, tuple[int, bytes]]], EngineApi], answer: tuple[int, bytes], problem: str
) -> None:
    api = engine({f"/containers/{MEMBER}/json": answer})
    with pytest.raises((OSError, ValueError), match=problem):
        api.find(MEMBER)


def test_an_engine_that_hangs_is_given_up(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "hang.sock"))
    listener.listen()
    with listener, pytest.raises(OSError, match="timed out"):
        EngineApi("docker", str(tmp_path / "hang.sock"), timeout_seconds=0.1).find(MEMBER)


class Known:
    """A source with prepared containers that counts what it is asked."""

    name = "known"

    def __init__(self, failure: Exception | None = None) -> None:
        self.containers: dict[str, ContainerInfo] = {}
        self.asked: list[str] = []
        self.failure = failure

    def find(self, container_id: str) -> ContainerInfo | None:
        self.asked.append(container_id)
        if self.failure is not None:
            raise self.failure
        return self.containers.get(container_id)


async def test_a_record_is_filled_in_late_by_the_thread() -> None:
    source = Known()
    source.containers["c1"] = ContainerInfo("c1", "docker", name="web", image="nginx:1", pod_name="web-7d")
    containers = ContainerLookup([Known(OSError("no socket")), source])
    await containers.start()
    try:
        assert containers.names_of("c1") is None
        deadline = time.monotonic() + 5
        while (names := containers.names_of("c1")) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        assert names is not None
        assert (names.name, names.image, names.pod) == ("web", "nginx:1", "web-7d")
        assert source.asked == ["c1"]
    finally:
        await containers.stop()


def test_unknown_containers_are_asked_for_again_and_known_ones_kept_after_their_end() -> None:
    now = [0.0]
    source, registry = Known(), CollectorRegistry()
    containers = ContainerLookup([source], registry, monotonic=lambda: now[0])
    assert containers.info("c1") is None
    containers.resolve("c1")
    containers.info("c1")
    assert containers.waiting_count == 1, "asked again before a second has passed"
    now[0] = 1.5
    containers.info("c1")
    assert containers.waiting_count == 2
    source.containers["c1"] = ContainerInfo("c1", "docker", name="late")
    containers.resolve("c1")
    source.containers.clear()
    now[0] = 100.0
    containers.info("c1")
    containers.resolve("c1")
    info = containers.info("c1")
    assert info is not None
    assert info.name == "late"
    count = registry.get_sample_value
    assert count("vedette_agent_container_lookups_total", {"result": "unknown"}) == 2
    assert count("vedette_agent_container_lookups_total", {"result": "found"}) == 1
    assert count("vedette_agent_containers_known") == 1


def test_a_flood_of_containers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "CONTAINERS_LIMIT", 3)
    source = Known()
    source.containers = {f"c{n}": ContainerInfo(f"c{n}", "docker") for n in range(10)}
    containers = ContainerLookup([source])
    for container_id in source.containers:
        containers.info(container_id)
        containers.resolve(container_id)
    assert [bool(containers.info(f"c{n}")) for n in (9, 8, 7)] == [True] * 3
    assert containers.info("c0") is None
    for n in range(5000):
        containers.info(f"other{n}")
    assert containers.waiting_count <= lookup.WAITING_LIMIT
