"""What the checks of ours share: settings from standard input, metrics to standard output."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Mapping


class CheckError(Exception):
    """The service could not be asked; the text is one line."""


class Page:
    """Metrics in the text format, grouped by family."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def add(self, kind: str, name: str, text: str, value: float, **labels: str) -> None:
        """Add a sample; `kind` is `counter` or `gauge`."""
        lines = self._lines.setdefault(name, [f"# HELP {name} {text}", f"# TYPE {name} {kind}"])
        shown = ",".join(f'{label}="{escaped(value)}"' for label, value in labels.items())
        lines.append(f"{name}{{{shown}}} {value!r}" if shown else f"{name} {value!r}")

    def text(self) -> str:
        """The page."""
        return "".join(f"{line}\n" for lines in self._lines.values() for line in lines)


def escaped(value: str) -> str:
    """A label's value as the text format wants it."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def connect(address: str, default_port: int, timeout_seconds: float) -> socket.socket:
    """A connection to `host:port`, `[address]:port` or the path of a Unix socket. Raises CheckError."""
    try:
        if address.startswith("/"):
            unix = socket.socket(socket.AF_UNIX)
            unix.settimeout(timeout_seconds)
            unix.connect(address)
            return unix
        host, _, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
        host = (host or address).strip("[]")
        return socket.create_connection((host, int(port or default_port)), timeout_seconds)
    except (OSError, ValueError) as error:
        raise CheckError(f"{address}: {error}") from None


def main(check: Callable[[Mapping[str, str], Page], None]) -> None:
    """Run a check: settings as JSON from standard input; on failure one line and status 1."""
    page = Page()
    try:
        check(json.load(sys.stdin), page)
    except (CheckError, OSError, ValueError) as error:
        sys.exit(str(error))
    sys.stdout.write(page.text())
