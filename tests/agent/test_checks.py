"""Checks: limits of time, memory and output with hostile programs; redis, nginx and PostgreSQL for real."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from agent.checks.config import (
    CheckConfig,
    CheckProgram,
    ChecksConfig,
    NginxConfig,
    PostgresqlConfig,
    RedisConfig,
)
from agent.checks.run import OUTPUT_BYTES_LIMIT, CheckFailure, run_program
from agent.checks.runner import CheckRunner, programs_in
from ingest.config.durations import ByteSize, Duration
from tests.ingest.fakestore import FakeStore


def script(text: str, timeout_ms: int = 5000, memory: int = 256 << 20) -> CheckProgram:
    config = CheckConfig(timeout=Duration(timeout_ms), memory=ByteSize(memory))
    return config.program("own", "", (sys.executable, "-I", "-S", "-c", text), {"key": "value"})


def test_a_check_reads_its_settings_and_prints_metrics() -> None:
    assert run_program(script("import sys; print('got', sys.stdin.read())")) == b'got {"key":"value"}\n'


@pytest.mark.root
def test_a_check_runs_as_another_user() -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    config = CheckConfig(user="nobody")
    nobody = pwd.getpwnam("nobody")
    found = run_program(config.program("own", "", ("/usr/bin/id", "-u"), {}))
    assert found == f"{nobody.pw_uid}\n".encode()
    assert run_program(config.program("own", "", ("/usr/bin/id", "-G"), {})) == f"{nobody.pw_gid}\n".encode()
    with pytest.raises(KeyError, match="nosuchuser"):
        run_program(CheckConfig(user="nosuchuser").program("own", "", ("/usr/bin/id",), {}))


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ("import time; time.sleep(60)", "timeout", "took more than 0.7 s"),
        (f"print('x' * {OUTPUT_BYTES_LIMIT})", "output", f"more than {OUTPUT_BYTES_LIMIT} bytes"),
        ("while True: print('x' * 60000)", "output", "more than"),
        ("bytearray(1 << 30)", "failed", "MemoryError"),
        ("import sys; sys.exit('cannot reach it')", "failed", "status 1: cannot reach it"),
        ("import os; os.kill(os.getpid(), 9)", "failed", "status -9"),
    ],
)
def test_a_check_that_misbehaves_is_a_failure(text: str, reason: str, message: str) -> None:
    with pytest.raises(CheckFailure, match=message) as caught:
        run_program(script(text, timeout_ms=700 if reason == "timeout" else 10_000))
    assert caught.value.reason == reason


def test_children_of_a_check_end_with_it(tmp_path: Path) -> None:
    child = "import subprocess; p = subprocess.Popen(['sleep', '61'])"
    text = f"{child}; open('{tmp_path}/pid', 'w').write(str(p.pid))"
    with pytest.raises(CheckFailure, match="took more"):
        run_program(script(text, timeout_ms=1000))
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{pid}")


async def test_metrics_failures_and_the_end_reach_the_store(tmp_path: Path) -> None:
    (tmp_path / "flag").write_text("up")
    sample = "# TYPE a counter\\na{b=\\'c\\'} 7".replace("\\'", '"')
    text = f"assert open('{tmp_path}/flag').read() == 'up'; print('{sample}')"
    store, registry = FakeStore(), CollectorRegistry()
    runner = CheckRunner(store, registry, [script(text)], instance="host-1")
    ((program, samples),) = runner._checks
    runner.run_once(program, samples)
    (tmp_path / "flag").write_text("down")
    time.sleep(0.002)
    runner.run_once(program, samples)
    assert store.values('a{b="c", instance="host-1", job="own"}') == [7.0, "stale"]
    assert store.values('up{instance="host-1", job="own"}') == [1.0, 0.0]
    value = registry.get_sample_value
    assert value("vedette_agent_check_runs_total", {"check": "own"}) == 2
    assert value("vedette_agent_check_failures_total", {"check": "own", "reason": "failed"}) == 1


async def test_a_stop_ends_a_check_that_runs() -> None:
    store = FakeStore()
    runner = CheckRunner(store, None, [script("import time; time.sleep(4)")], instance="host-1")
    await runner.start()
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await runner.stop()
    assert time.monotonic() - began < 2


def test_programs_of_a_folder_are_checks_unless_others_may_write_them(tmp_path: Path) -> None:
    for name, mode in (("mine", 0o755), ("open", 0o777), ("data.txt", 0o644), (".hidden", 0o755)):
        (tmp_path / name).write_text("#!/bin/sh\necho a 1\n")
        (tmp_path / name).chmod(mode)
    assert [program.name for program in programs_in(tmp_path)] == ["mine"]
    assert programs_in(tmp_path / "none") == []


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(address: str | tuple[str, int], alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    while True:
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.connect(address)
            return
        assert alive(), "the service ended"
        assert time.monotonic() < deadline, "the service did not listen in 20 s"
        time.sleep(0.05)


@contextlib.contextmanager
def service(command: list[str], address: str | tuple[str, int], user: str | None = None) -> Iterator[None]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, cwd="/"
    )
    try:
        wait_for(address, lambda: process.poll() is None)
        yield
    finally:
        process.terminate()
        process.wait(20)


def only(config: ChecksConfig) -> CheckProgram:
    (program,) = config.configured()
    return program


def metrics(page: bytes) -> dict[str, float]:
    lines = [line for line in page.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_redis_tells_clients_keys_and_commands() -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (scripts/system-packages)")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--save", "", "--requirepass", "secret word"]
    with service(command, ("127.0.0.1", port)):
        address = f"127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b'AUTH "secret word"\r\nSET a 1\r\nSET b 2 EX 100\r\nGET a\r\nGET none\r\n')
            time.sleep(0.1)
            client.recv(4096)
            right = only(ChecksConfig(redis=[RedisConfig(address=address, password="secret word")]))
            found = metrics(run_program(right))
        with pytest.raises(CheckFailure, match="NOAUTH"):
            run_program(only(ChecksConfig(redis=[RedisConfig(address=address)])))
    assert found["redis_up"] == 1
    assert (found['redis_db_keys{db="db0"}'], found['redis_db_keys_expiring{db="db0"}']) == (2, 1)
    assert found["redis_connected_clients"] == 2
    assert (found["redis_keyspace_hits_total"], found["redis_keyspace_misses_total"]) == (1, 1)
    assert found['redis_commands_total{cmd="set"}'] == 2
    assert found["redis_memory_used_bytes"] > 100_000
    with pytest.raises(CheckFailure, match="refused"):
        run_program(right)


def test_nginx_tells_connections_and_requests(tmp_path: Path) -> None:
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (scripts/system-packages)")
    port = free_port()
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port};"
        " location /nginx_status { stub_status; } location / { return 200 'ok'; } } }\n"
    )
    with service(["nginx", "-c", str(tmp_path / "nginx.conf")], ("127.0.0.1", port)):
        url = f"http://127.0.0.1:{port}"
        found = metrics(run_program(only(ChecksConfig(nginx=[NginxConfig(url=f"{url}/nginx_status")]))))
        with pytest.raises(CheckFailure, match="no page of stub_status"):
            run_program(only(ChecksConfig(nginx=[NginxConfig(url=f"{url}/")])))
    assert found["nginx_up"] == 1
    assert found["nginx_connections_active"] == 1
    assert found["nginx_http_requests_total"] == 1
    assert found["nginx_connections_accepted"] == found["nginx_connections_handled"] >= 1


def postgresql_folder() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user may enter, which a `tmp_path` under pytest's private root is not."""
    with tempfile.TemporaryDirectory(prefix="vedette-checks-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_postgresql_tells_databases_connections_and_sizes(open_folder: Path) -> None:
    programs = postgresql_folder()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    data = open_folder / "data"
    data.mkdir()
    shutil.chown(data, user)
    create = [str(programs / "initdb"), "-D", str(data), "-U", "monitor", "-A", "trust", "--no-sync"]
    subprocess.run(create, check=True, capture_output=True, user=user, cwd="/")
    port = free_port()
    run = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(data)]
    with service([*run, "-F"], ("127.0.0.1", port), user):
        config = PostgresqlConfig(address=f"127.0.0.1:{port}", username="monitor")
        found = metrics(run_program(only(ChecksConfig(postgresql=[config]))))
        unix = config.model_copy(update={"address": f"{data}/.s.PGSQL.{port}"})
        again = metrics(run_program(only(ChecksConfig(postgresql=[unix]))))
        wrong = config.model_copy(update={"database": "none"})
        with pytest.raises(CheckFailure, match='database "none" does not exist'):
            run_program(only(ChecksConfig(postgresql=[wrong])))
    assert (found["pg_up"], found["pg_replication_is_replica"]) == (1, 0)
    assert found['pg_stat_activity_count{datname="postgres",state="active"}'] == 1
    assert found['pg_database_size_bytes{datname="postgres"}'] > 1_000_000
    assert found["pg_settings_max_connections"] == 100
    assert abs(found["pg_postmaster_start_time_seconds"] - time.time()) < 60
    assert 'pg_stat_database_xact_commit{datname="postgres"}' in found
    assert again["pg_up"] == 1
