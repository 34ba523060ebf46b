"""Check of nginx: its page stub_status as metrics under nginx-prometheus-exporter's names."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping

from agent.checks.page import CheckError, Page, main

TIMEOUT_SECONDS = 8.0
BODY_BYTES_LIMIT = 64 << 10
_PAGE = re.compile(
    r"Active connections:\s*(?P<active>\d+)\s*"
    r"server accepts handled requests\s*(?P<accepted>\d+)\s+(?P<handled>\d+)\s+(?P<requests>\d+)\s*"
    r"Reading:\s*(?P<reading>\d+)\s*Writing:\s*(?P<writing>\d+)\s*Waiting:\s*(?P<waiting>\d+)"
)
_METRICS = (
    ("gauge", "connections_active", "active", "Connections, idle ones included."),
    ("counter", "connections_accepted", "accepted", "Connections accepted."),
    ("counter", "connections_handled", "handled", "Connections handled; fewer where a limit was hit."),
    ("counter", "http_requests_total", "requests", "Requests."),
    ("gauge", "connections_reading", "reading", "Connections whose request is being read."),
    ("gauge", "connections_writing", "writing", "Connections that are being answered."),
    ("gauge", "connections_waiting", "waiting", "Idle connections."),
)


def check(settings: Mapping[str, str], page: Page) -> None:
    """Get the page and add its numbers."""
    url = settings["url"]
    if not url.startswith(("http://", "https://")):
        raise CheckError(f"{url}: only http and https are asked")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            body = answer.read(BODY_BYTES_LIMIT)
    except (urllib.error.URLError, OSError) as error:
        raise CheckError(f"{url}: {error}") from None
    found = _PAGE.search(body.decode("utf-8", "replace"))
    if found is None:
        raise CheckError(f"{url}: this is no page of stub_status")
    page.add("gauge", "nginx_up", "Whether nginx answered.", 1)
    for kind, name, part, text in _METRICS:
        page.add(kind, f"nginx_{name}", text, int(found[part]))


if __name__ == "__main__":
    main(check)
