"""`remote_write` of a server: to Debian's Prometheus by 1.0, to another Vedette by 2.0 with a token."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.servers import PROMETHEUS, Server
from tests.e2e.processes import Api, free_port, need_programs, series, start_vedette, vedette_kind, wait_until

pytestmark = pytest.mark.e2e

TOKEN = "a-token-of-the-test"
CONFIG = """\
global:
  scrape_interval: 1s
  external_labels: {{site: e2e}}
remote_write:
  - url: http://127.0.0.1:{prometheus}/api/v1/write
    name: prometheus
    write_relabel_configs: [{{source_labels: [secret], regex: .+, action: drop}}]
  - url: http://127.0.0.1:{other}/api/v1/write
    name: other
    protobuf_message: io.prometheus.write.v2.Request
    authorization: {{credentials_file: {token}}}
    queue_config: {{max_backoff: 200ms}}
scrape_configs:
  - job_name: self
    static_configs: [{{targets: ["127.0.0.1:{own}"]}}]
"""


def values(api: Api, selector: str) -> list[float]:
    """All values of one series in the last ten minutes."""
    result = api.query(f"{selector}[10m]")["result"]
    return [float(value) for _, value in result[0]["values"]] if result else []


def test_samples_reach_both_and_none_is_lost_while_one_and_then_we_are_down(tmp_path: Path) -> None:
    need_programs("prometheus")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    guarded = (f"--web.agent-token-file={token}", "--web.remote-write-receiver.require-token")
    own = free_port()
    servers = {"prometheus": Server(PROMETHEUS, free_port(), tmp_path / "prometheus")}
    try:
        servers["other"] = start_vedette(tmp_path / "other", *guarded)
        ports = {name: server.port for name, server in servers.items()}
        kind = vedette_kind(config=CONFIG.format(own=own, token=token, **ports))
        servers["own"] = Server(kind, own, tmp_path / "own")
        for server in servers.values():
            server.wait_ready()
        apis = {name: Api(server.port) for name, server in servers.items()}
        assert apis["other"].write([series("m", [(1, 1.0)])])[0] == 401

        def write(value: float) -> None:
            rows = [
                series("e2e_marker", [(int(time.time() * 1000), value)]),
                series("e2e_secret", [(int(time.time() * 1000), value)], secret="s"),
            ]
            assert apis["own"].write(rows)[0] == 204

        marker, up = 'e2e_marker{site="e2e"}', 'up{job="self",site="e2e"}'
        write(1)
        for name in ("prometheus", "other"):
            wait_until(lambda: values(apis[name], marker) == [1.0], 30, f"a sample reaches {name}")  # noqa: B023
            wait_until(lambda: values(apis[name], up)[-1:] == [1.0], 30, f"a scrape reaches {name}")  # noqa: B023
        assert values(apis["other"], "e2e_secret") == [1.0]
        assert values(apis["prometheus"], "e2e_secret") == []
        pending = 'prometheus_remote_storage_samples_pending{remote_name="other"}'
        servers["other"].kill()
        for value in (2, 3):
            write(value)
        wait_until(lambda: (values(apis["own"], pending) or [0.0])[-1] >= 4, 30, "samples wait on disk")
        servers["own"].kill()
        servers["own"] = Server(kind, own, tmp_path / "own")
        servers["own"].wait_ready()
        apis["own"] = Api(own)
        write(4)
        servers["other"] = Server(servers["other"].kind, ports["other"], tmp_path / "other")
        servers["other"].wait_ready()
        apis["other"] = Api(ports["other"])
        for name in ("prometheus", "other"):
            wait_until(lambda: values(apis[name], marker) == [1, 2, 3, 4], 30, f"all reach {name}")  # noqa: B023
        # What Prometheus had just before the kill is sent again, and it calls that out of order.
        failed = apis["own"].query('prometheus_remote_storage_samples_failed_total{remote_name="other"}')
        assert failed["result"][0]["value"][1] == "0"
    finally:
        for server in servers.values():
            server.stop()
