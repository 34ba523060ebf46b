"""Where to listen, as flags and the configuration file write it: `0.0.0.0:9090`, `:9090`, `[::1]:9090`."""

from __future__ import annotations

from typing import NamedTuple

PORT_LIMIT = 65535


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Host and port of ``0.0.0.0:9090``, ``:9090`` or ``[::1]:9090``. Raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > PORT_LIMIT:
        raise ValueError(f'not a valid listen address: "{text}" (want host:port)')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'not a valid listen address: "{text}" (an IPv6 address needs brackets)')
    return Address(host or "0.0.0.0", int(port))
