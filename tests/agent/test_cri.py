"""Containers over the CRI: a real containerd with pods, and a socket that lies, hangs and breaks off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from prometheus_client import CollectorRegistry

from agent.runtimes import grpc
from agent.runtimes.cri import CriSocket
from agent.runtimes.crimessages import IMAGE, RUNTIME
from agent.runtimes.info import Mount
from agent.runtimes.lookup import ContainerLookup, CriOnDemand
from ingest.remotewrite.protobuf import length_delimited, varint_field
from tests.agent.containerd import Containerd, containerd, has_own_networks, mapping, text

POD = "1" * 64
MEMBER = "2" * 64
IMAGE_NAME = "vedette.test/team/busy:1.36"


@pytest.fixture(scope="module")
def runtime() -> Iterator[Containerd]:
    with containerd() as service:
        yield service


@pytest.mark.root
def test_containerd_tells_everything_about_a_real_pod(runtime: Containerd) -> None:
    digest = runtime.add_image(IMAGE_NAME)
    runtime.ctr("images", "tag", IMAGE_NAME, f"vedette.test/team/busy@{digest}")
    pod = {"name": "web-7d", "uid": "0b4e", "namespace": "shop"}
    kubelet = {
        "io.kubernetes.pod.name": "web-7d",
        "io.kubernetes.pod.namespace": "shop",
        "io.kubernetes.pod.uid": "0b4e",
    }
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9100"}
    own_network = has_own_networks()
    sandbox, config = runtime.run_sandbox(
        pod, {**kubelet, "tier": "front"}, annotations, 0 if own_network else 2
    )
    labels = {**kubelet, "io.kubernetes.container.name": "app"}
    member = runtime.run_container(sandbox, config, "app", IMAGE_NAME, labels)
    source = CriSocket("containerd", runtime.socket)
    info = source.find(member)
    assert info is not None
    assert (info.id, info.runtime, info.name, info.container_name) == (member, "containerd", "app", "app")
    assert (info.pod_name, info.pod_namespace, info.pod_uid) == ("web-7d", "shop", "0b4e")
    assert (info.repository, info.tag, info.digest) == ("vedette.test/team/busy", "1.36", digest)
    assert info.image == IMAGE_NAME
    assert len(info.image_id) == 64
    assert dict(info.labels) == labels
    assert (dict(info.pod_labels), dict(info.pod_annotations)) == ({"tier": "front"}, annotations)
    assert info.mounts == (Mount(str(runtime.folder), "/data", "", False, "private"),)
    assert (info.privileged, info.pod_sandbox_id, info.is_pod_sandbox) == (False, sandbox, False)
    assert abs(info.created_unix_ns / 1e9 - time.time()) < 60
    if own_network:
        assert info.pod_ip.startswith("10.213.77.")
        assert info.ip == info.pod_ip
        assert (info.host_network, info.host_pid) == (False, False)
        assert info.pod_ip in info.cni_json
    else:
        assert (info.host_network, info.pod_ip) == (True, "")
    of_pod = source.find(sandbox)
    assert of_pod is not None
    assert (of_pod.is_pod_sandbox, of_pod.pod_sandbox_id, of_pod.container_name) == (True, sandbox, "")
    assert of_pod.pod_ip == info.pod_ip
    assert source.find("f" * 64) is None
    assert source.find(member[:12]) is None, "a part of an id is no id"


@pytest.mark.root
async def test_what_is_known_outlives_a_restart_of_containerd(runtime: Containerd) -> None:
    pod = {"name": "db-0", "uid": "77aa", "namespace": "shop"}
    sandbox, _ = runtime.run_sandbox(pod, {"app": "db"}, {}, 2)
    registry, now = CollectorRegistry(), [0.0]
    containers = ContainerLookup(
        [CriOnDemand("containerd", runtime.socket)], registry, monotonic=lambda: now[0]
    )
    await containers.start()
    try:
        await _until(lambda: containers.info(sandbox) is not None)
        runtime.stop()
        now[0] += 1000
        containers.info(sandbox)
        failures = "vedette_agent_container_lookup_failures_total"
        lookups = "vedette_agent_container_lookups_total"
        # A socket that is gone is no runtime, one that nobody answers is a failure: both are right here.
        await _until(
            lambda: bool(
                registry.get_sample_value(failures, {"source": "containerd"})
                or registry.get_sample_value(lookups, {"result": "unknown"})
            )
        )
        info = containers.info(sandbox)
        assert info is not None
        assert (info.pod_name, info.host_network) == ("db-0", True)
        late, _ = await asyncio.to_thread(_restarted, runtime)
        now[0] += 1000
        await _until(lambda: containers.info(late) is not None or _advance(now))
        assert containers.info(sandbox) is not None
    finally:
        await containers.stop()


def _restarted(runtime: Containerd) -> tuple[str, bytes]:
    runtime.start()
    return runtime.run_sandbox({"name": "late", "uid": "1", "namespace": "shop"}, {}, {}, 2)


def _advance(now: list[float]) -> bool:
    now[0] += 1
    return False


async def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


# A socket under the test's control.

Answers = dict[str, "bytes | tuple[int, str]"]


class CriServer:
    """Answers prepared messages, or (status, text), by method; `raw` replaces HTTP/2 altogether."""

    def __init__(self, path: Path, answers: Answers, raw: bytes | None = None) -> None:
        self.path = str(path)
        self.answers = answers
        self.raw = raw
        self.asked: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        if self.raw is not None:
            connection.recv(1 << 16)
            connection.sendall(self.raw)
            return
        http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        http.initiate_connection()
        connection.sendall(http.data_to_send())
        methods: dict[int, str] = {}
        while data := connection.recv(1 << 16):
            for event in http.receive_data(data):
                if isinstance(event, RequestReceived):
                    headers = {str(name): str(value) for name, value in event.headers}
                    assert headers["te"] == "trailers"
                    assert headers["content-type"] == "application/grpc"
                    methods[event.stream_id] = headers[":path"]
                elif isinstance(event, DataReceived):
                    http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    self._answer(connection, http, event.stream_id, methods[event.stream_id])
            connection.sendall(http.data_to_send())

    def _answer(self, connection: socket.socket, http: H2Connection, stream: int, method: str) -> None:
        self.asked.append(method)
        answer = self.answers.get(method, (grpc.NOT_FOUND, "not found"))
        if isinstance(answer, tuple):
            status, why = answer
            headers = [(":status", "200"), ("content-type", "application/grpc")]
            http.send_headers(
                stream, [*headers, ("grpc-status", str(status)), ("grpc-message", why)], end_stream=True
            )
            return
        http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        body = b"\0" + len(answer).to_bytes(4, "big") + answer
        frame = http.max_outbound_frame_size
        for at in range(0, len(body), frame):
            chunk = body[at : at + frame]
            while http.local_flow_control_window(stream) < len(chunk):
                http.receive_data(connection.recv(1 << 16))
            http.send_data(stream, chunk)
            connection.sendall(http.data_to_send())
        http.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def cri(tmp_path: Path) -> Iterator[Callable[..., CriServer]]:
    servers: list[CriServer] = []

    def start(answers: Answers, raw: bytes | None = None) -> CriServer:
        servers.append(CriServer(tmp_path / "cri.sock", answers, raw))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


LIST = f"{RUNTIME}ListContainers"
STATUS = f"{RUNTIME}ContainerStatus"
SANDBOX = f"{RUNTIME}PodSandboxStatus"
IMAGE_STATUS = f"{IMAGE}ImageStatus"
LISTED = length_delimited(1, text(1, MEMBER) + text(2, POD))


def crio_answers() -> Answers:
    """As CRI-O says it: digest in the reference, `privileged` beside the interface."""
    status = b"".join(
        (
            text(1, MEMBER),
            length_delimited(2, text(1, "pg")),
            varint_field(4, 1_700_000_000_000_000_007),
            length_delimited(8, text(1, "quay.io/pg:16")),
            text(9, "quay.io/pg@sha256:cc"),
            mapping(12, {"io.kubernetes.pod.name": "db-0", "io.kubernetes.container.name": "pg"}),
            length_delimited(14, text(1, "/d") + text(2, "/srv") + varint_field(5, 2)),
            text(77, "of a later version"),
        )
    )
    info = mapping(2, {"info": '{"privileged":true,"pid":7}'})
    sandbox = b"".join(
        (
            text(1, POD),
            length_delimited(2, text(1, "db-0") + text(2, "77aa") + text(3, "shop")),
            length_delimited(5, text(1, "10.88.0.7")),
            length_delimited(6, length_delimited(1, length_delimited(2, varint_field(2, 2)))),
            mapping(7, {"app": "db"}),
        )
    )
    image = text(1, "sha256:99") + text(2, "quay.io/pg:16") + text(3, "quay.io/pg@sha256:cc")
    return {
        LIST: LISTED,
        STATUS: length_delimited(1, status) + info,
        SANDBOX: length_delimited(1, sandbox),
        IMAGE_STATUS: length_delimited(1, image),
    }


def test_what_cri_o_says_is_understood(cri: Callable[..., CriServer]) -> None:
    server = cri(crio_answers())
    source = CriSocket("cri-o", server.path)
    info = source.find(MEMBER)
    assert info is not None
    assert (info.runtime, info.name, info.privileged) == ("cri-o", "pg", True)
    assert (info.repository, info.tag, info.digest, info.image_id) == (
        *("quay.io/pg", "16", "sha256:cc", "99"),
    )
    assert (info.host_pid, info.host_network, info.host_ipc) == (True, False, False)
    assert (info.ip, info.pod_ip, info.pod_uid) == ("10.88.0.7", "10.88.0.7", "77aa")
    assert info.mounts == (Mount("/srv", "/d", "", True, "rshared"),)
    assert info.created_unix_ns == 1_700_000_000_000_000_007
    assert source.find(MEMBER) == info
    assert server.asked.count(IMAGE_STATUS) == 1, "an image is asked for once"


def test_a_large_answer_arrives_whole(cri: Callable[..., CriServer]) -> None:
    answers = crio_answers()
    status = answers[STATUS]
    assert isinstance(status, bytes)
    answers[STATUS] = status + mapping(2, {"more": "x" * 1_000_000})
    info = CriSocket("cri-o", cri(answers).path).find(MEMBER)
    assert info is not None
    assert info.name == "pg"


@pytest.mark.parametrize("status", [grpc.NOT_FOUND, grpc.UNIMPLEMENTED])
def test_a_runtime_without_the_container_or_without_cri_knows_nothing(
    cri: Callable[..., CriServer], status: int
) -> None:
    answers: Answers = {LIST: (status, "no"), SANDBOX: (status, "no")}
    assert CriSocket("containerd", cri(answers).path).find(MEMBER) is None


def test_a_container_whose_pod_is_gone_is_described_all_the_same(cri: Callable[..., CriServer]) -> None:
    answers = crio_answers()
    del answers[SANDBOX]
    info = CriSocket("cri-o", cri(answers).path).find(MEMBER)
    assert info is not None
    assert (info.name, info.pod_name, info.pod_sandbox_id) == ("pg", "db-0", POD)


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({LIST: (13, "disk%20on fire")}, "gRPC status 13: disk on fire"),
        ({LIST: b"\x0a\xff"}, "unexpected EOF"),
        ({LIST: LISTED, STATUS: mapping(2, {"info": "{"})}, "unexpected end"),
        ({LIST: LISTED, STATUS: mapping(2, {"info": '{"runtimeSpec":{"mounts":5}}'})}, "validation error"),
        ({LIST: b"\0" * (grpc.MESSAGE_BYTES_LIMIT + 1)}, "exceeds 4194304 bytes"),
    ],
)
def test_a_runtime_that_answers_nonsense_is_an_error(
    cri: Callable[..., CriServer], answers: Answers, problem: str
) -> None:
    if STATUS in answers:
        answers = {**crio_answers(), **answers}
    with pytest.raises((OSError, ValueError), match=problem):
        CriSocket("containerd", cri(answers).path).find(MEMBER)


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 200, b"\xff" * 200])
def test_what_is_no_http2_is_an_error(cri: Callable[..., CriServer], raw: bytes) -> None:
    with pytest.raises((OSError, ValueError)):
        CriSocket("containerd", cri({}, raw).path).find(MEMBER)


def test_a_runtime_that_hangs_is_given_up(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "hang.sock"))
    listener.listen()
    with listener, pytest.raises(OSError, match="timed out"):
        CriSocket("containerd", str(tmp_path / "hang.sock"), timeout_seconds=0.1).find(MEMBER)


def test_a_host_without_runtimes_is_silent(tmp_path: Path) -> None:
    source = CriOnDemand("containerd", str(tmp_path / "none.sock"))
    assert source.find(MEMBER) is None
    assert CriSocket("containerd", str(tmp_path / "none.sock")).find(MEMBER) is None
