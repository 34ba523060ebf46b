"""Outputs against real receivers: what arrives, in which form, and what happens while they are down."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from security.config import SecurityConfig
from security.outputs import output as output_module
from security.outputs.group import OutputGroup
from security.outputs.spool import Spool, SpoolFullError
from tests.security.records import T0_NS, record

PATIENCE_S = 5.0


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.005)


def config(*outputs: dict[str, Any], **rest: Any) -> SecurityConfig:
    return SecurityConfig.model_validate({"outputs": list(outputs), **rest})


@contextlib.contextmanager
def running(*outputs: dict[str, Any], **rest: Any) -> Iterator[OutputGroup]:
    group = OutputGroup()
    group.apply(config(*outputs, **rest))
    try:
        yield group
    finally:
        group.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_module, "RETRY_PAUSES_S", (0.01,))
    monkeypatch.setattr(output_module, "CLOSE_WAIT_S", 0.3)


# Files and standard output.


def test_a_file_gets_text_and_json_lines_that_pass_its_filter(tmp_path: Path) -> None:
    text = {"type": "file", "filename": str(tmp_path / "sub" / "text.log"), "format": "text"}
    loud = {"type": "file", "filename": str(tmp_path / "loud.log"), "priority": "error"}
    pods = {
        "type": "file",
        "filename": str(tmp_path / "pods.log"),
        "match": ['{pod=~"web-.*"}', '{pod="db"}'],
    }
    with running(text, loud, pods, time_format_iso_8601=True) as group:
        group.write([record(message="a\nb\x1b[0m"), record(priority="Critical"), record(pod="web-1")])
    lines = (tmp_path / "sub" / "text.log").read_text().splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"2025-11-28T\d\d:00:00\.000000000\+\d{4}: Warning a\\nb\\u001b\[0m", lines[0])
    [only] = [orjson.loads(line) for line in (tmp_path / "loud.log").read_text().splitlines()]
    assert (only["priority"], only["hostname"], only["output_fields"]["proc.name"]) == (
        *("Critical", "node-1"),
        "bash",
    )
    assert only["time"] == "2025-11-28T02:00:00.000000000Z"
    assert len((tmp_path / "pods.log").read_text().splitlines()) == 1


def test_a_rotated_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "events.log"
    with running({"type": "file", "filename": str(path), "name": "f"}) as group:
        [output] = group.outputs
        group.write([record("one")])
        until(lambda: output.counts["delivered"] == 1, "first line")
        path.rename(tmp_path / "events.log.1")
        group.write([record("two")])
        until(lambda: output.counts["delivered"] == 2, "second line")
        group.apply(config({"type": "file", "filename": str(path), "name": "f"}))
        assert group.outputs == (output,)
        group.write([record("three")])
    assert b'"rule":"one"' in (tmp_path / "events.log.1").read_bytes()
    assert [orjson.loads(line)["rule"] for line in path.read_bytes().splitlines()] == ["two", "three"]


def test_standard_output_gets_falcos_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with running({"type": "stdout"}) as group:
        group.write([record(message="Grüße")])
    assert re.fullmatch(
        rb"\d\d:00:00\.000000000: Warning Gr\xc3\xbc\xc3\x9fe\n", capfdbinary.readouterr().out
    )


def test_a_full_queue_drops_the_newest_and_counts_them(tmp_path: Path) -> None:
    folder = tmp_path / "events.log"
    folder.mkdir()
    with running({"type": "file", "filename": str(folder), "queue": 2}) as group:
        [output] = group.outputs
        group.write([record(str(n)) for n in range(5)])
        assert output.counts["dropped"] == 3
        until(lambda: output.counts["failures"] > 1, "a second try")
        folder.rmdir()
        until(lambda: output.counts["delivered"] == 2, "delivery")
    assert [orjson.loads(line)["rule"] for line in folder.read_bytes().splitlines()] == ["0", "1"]


def test_a_changed_configuration_replaces_the_outputs_and_a_bad_one_does_not(tmp_path: Path) -> None:
    with running({"type": "file", "filename": str(tmp_path / "a")}) as group:
        before = group.outputs
        bad = {"type": "http", "url": "https://localhost", "ca_file": str(tmp_path / "none.pem")}
        with pytest.raises(OSError, match="No such file"):
            group.apply(config(bad))
        assert group.outputs == before
        group.write([record("a")])
        group.apply(config({"type": "file", "filename": str(tmp_path / "b")}))
        group.write([record("b")])
    assert orjson.loads((tmp_path / "a").read_bytes())["rule"] == "a"
    assert orjson.loads((tmp_path / "b").read_bytes())["rule"] == "b"


# Syslog.

SYSLOG = re.compile(rb"<(\d+)>1 (\S+) (\S+) (\S+) (\d+) (\S+) - \xef\xbb\xbf(.*)", re.DOTALL)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    path = folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return folder


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


class SyslogReceiver:
    """Takes octet-counted messages of one connection after the other."""

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.messages: list[bytes] = []
        self._context = context
        self._listener = socket.create_server(("localhost", port))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                if self._context is not None:
                    try:
                        connection = self._context.wrap_socket(connection, server_side=True)
                    except ssl.SSLError:
                        continue
                self._open.append(connection)
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        data = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                data += piece
                while match := re.match(rb"(\d+) ", data):
                    end = match.end() + int(match[1])
                    if len(data) < end:
                        break
                    self.messages.append(data[match.end() : end])
                    data = data[end:]

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def test_syslog_over_udp_is_rfc_5424() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(PATIENCE_S)
        port = receiver.getsockname()[1]
        output = {"type": "syslog", "host": "127.0.0.1", "port": port, "facility": 4}
        with running(output) as group:
            group.write([record(time_ns=T0_NS + 123_456_789, hostname="höst 1", priority="Critical")])
            match = SYSLOG.fullmatch(receiver.recv(65536))
    assert match is not None
    assert match[1] == b"34"
    assert match[2] == b"2025-11-28T02:00:00.123456Z"
    assert (match[3], match[4], match[6]) == (b"h_st_1", b"vedette", b"syscall")
    assert int(match[5]) == os.getpid()
    assert match[7].endswith(b": Critical A shell started")


@pytest.mark.parametrize("tls", [False, True])
def test_syslog_over_tcp_and_tls_loses_nothing_while_the_receiver_is_down(
    tmp_path: Path, tls: bool, certificate: Path
) -> None:
    context = server_context(certificate) if tls else None
    receiver = SyslogReceiver(context)
    output = {
        "type": "syslog",
        "host": "localhost",
        "port": receiver.port,
        "format": "json",
        "name": "s",
        "protocol": "tls" if tls else "tcp",
        "spool": str(tmp_path),
        "queue": 10,
        **({"ca_file": str(certificate / "cert.pem")} if tls else {}),
    }
    with running(output) as group:
        [syslog] = group.outputs
        group.write([record("before")])
        until(lambda: receiver.messages, "the first message")
        receiver.close()
        for n in range(30):
            until(lambda: syslog.queued_count < syslog.queue_limit, "room in the queue")
            group.write([record(str(n))])
        until(lambda: syslog.counts["failures"] and syslog.spooled_bytes, "events on disk")
    assert syslog.counts["dropped"] == 0
    # The next server begins with what the last one could not deliver.
    again = SyslogReceiver(context, receiver.port)
    with running(output) as group:
        group.write([record("after")])
        until(lambda: len(again.messages) >= 31, "the spooled messages")
        until(lambda: group.outputs[0].spooled_bytes == 0, "an empty spool")
    again.close()
    rules = [orjson.loads(m.partition(b"\xef\xbb\xbf")[2])["rule"] for m in again.messages]
    assert [rule for rule in rules if rule != "before"] == [*map(str, range(30)), "after"]


def test_a_crowded_queue_goes_to_disk_before_the_pause_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_module, "RETRY_PAUSES_S", (60.0,))
    with socket.create_server(("localhost", 0)) as probe:
        port = probe.getsockname()[1]
    target = {"type": "http", "url": f"http://localhost:{port}", "spool": str(tmp_path), "queue": 10}
    with running(target) as group:
        [output] = group.outputs
        group.write([record("first")])
        until(lambda: output.counts["spooled"] == 1, "the failure")
        for n in range(6):
            group.write([record(str(n))] * 5)
            until(lambda: output.queued_count == 0, "room in the queue")
        assert output.counts["dropped"] == 0
        assert output.counts["spooled"] == 31


def test_a_certificate_that_is_not_trusted_is_refused_and_the_events_wait(
    tmp_path: Path, certificate: Path
) -> None:
    receiver = SyslogReceiver(server_context(certificate))
    output = {"type": "syslog", "host": "localhost", "port": receiver.port, "protocol": "tls"}
    with running({**output, "spool": str(tmp_path)}) as group:
        group.write([record()])
        until(lambda: group.outputs[0].counts["failures"] > 1, "failures")
        assert receiver.messages == []
        assert group.outputs[0].counts["spooled"] == 1
    with running({**output, "insecure_skip_verify": True}) as group:
        group.write([record()])
        until(lambda: receiver.messages, "a message")
    receiver.close()


# HTTP.


class HttpReceiver(http.server.ThreadingHTTPServer):
    """Keeps requests; answers the statuses of `answers` in turn, then 200."""

    daemon_threads = True

    def __init__(self, *answers: int, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers = list(answers)
        super().__init__(("localhost", port), _Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.requests.append((self.path, dict(self.headers), body))
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"no")

    def log_message(self, *arguments: object) -> None:
        pass


def test_http_posts_one_json_object_an_event_over_tls(certificate: Path) -> None:
    receiver = HttpReceiver(context=server_context(certificate))
    output = {
        "type": "http",
        "url": f"https://localhost:{receiver.server_port}/in?k=v",
        "ca_file": str(certificate / "cert.pem"),
        "headers": {"Authorization": "Bearer x"},
    }
    with running(output) as group:
        group.write([record("a"), record("b")])
        until(lambda: len(receiver.requests) == 2, "two requests")
    path, headers, _ = receiver.requests[0]
    assert (path, headers["Content-Type"], headers["Authorization"]) == (
        "/in?k=v",
        "application/json",
        "Bearer x",
    )
    assert [orjson.loads(body)["rule"] for _, _, body in receiver.requests] == ["a", "b"]
    receiver.stop()


def test_http_sends_lines_in_batches_and_again_after_an_error() -> None:
    receiver = HttpReceiver(503, 429)
    output = {"type": "http", "url": f"http://localhost:{receiver.server_port}", "batch": 100}
    with running(output) as group:
        group.write([record(str(n)) for n in range(5)])
        until(lambda: group.outputs[0].counts["delivered"] == 5, "delivery")
        assert group.outputs[0].counts["failures"] == 2
    [(_, headers, body)] = receiver.requests
    assert headers["Content-Type"] == "application/x-ndjson"
    assert [orjson.loads(line)["rule"] for line in body.splitlines()] == list("01234")
    receiver.stop()


def test_http_drops_and_counts_what_the_receiver_refuses_for_good() -> None:
    receiver = HttpReceiver(400)
    with running({"type": "http", "url": f"http://localhost:{receiver.server_port}"}) as group:
        group.write([record("bad"), record("good")])
        until(lambda: group.outputs[0].counts["delivered"] == 1, "delivery")
        assert group.outputs[0].counts["refused"] == 1
    assert [orjson.loads(body)["rule"] for _, _, body in receiver.requests] == ["good"]
    receiver.stop()


def test_without_a_spool_events_that_are_left_at_the_stop_are_counted() -> None:
    with socket.create_server(("localhost", 0)) as probe:
        port = probe.getsockname()[1]
    with running({"type": "http", "url": f"http://localhost:{port}"}) as group:
        group.write([record()])
        until(lambda: group.outputs[0].counts["failures"], "a failure")
    assert group.outputs[0].counts["dropped"] == 1


# The spool.


def test_a_spool_survives_a_torn_line_and_goes_on_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1 << 20)
    spool.add([record("a"), record("b"), record("c")])
    assert [r.output.rule for r in spool.peek(2)] == ["a", "b"]
    spool.drop(1)
    spool.close()
    file = tmp_path / "events.spool"
    data = file.read_bytes().splitlines(keepends=True)
    assert len(data) == 2
    file.write_bytes(data[0] + data[1][:40])
    again = Spool(tmp_path, 1 << 20)
    assert (again.count, again.unreadable_count) == (1, 1)
    assert [r.output.rule for r in again.peek(5)] == ["b"]
    again.drop(1)
    again.add([record("d")])
    assert [r.output.rule for r in again.peek(5)] == ["d"]


def test_a_full_spool_says_its_limit_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 700)
    spool.add([record("a")])
    with pytest.raises(SpoolFullError, match="limit is 700"):
        spool.add([record("b"), record("c")])
    assert spool.count == 1
    assert [r.output.rule for r in spool.peek(5)] == ["a"]


def test_the_read_part_of_a_large_spool_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("security.outputs.spool._COMPACT_BYTES", 1000)
    spool = Spool(tmp_path, 1 << 20)
    spool.add([record(str(n)) for n in range(20)])
    size = (tmp_path / "events.spool").stat().st_size
    for n in range(15):
        assert spool.peek(1)[0].output.rule == str(n)
        spool.drop(1)
    assert (tmp_path / "events.spool").stat().st_size < size * 0.6
    assert [r.output.rule for r in spool.peek(9)] == [str(n) for n in range(15, 20)]
