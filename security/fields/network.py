"""Fields of connections. `fd.ip`, `fd.net`, `fd.port` and `fd.proto` look at both ends."""

from __future__ import annotations

from security.fields.table import FieldInfo, rows

_NETWORK = """
fd.ip IPADDR FTE | either address
fd.cip IPADDR | client address
fd.sip IPADDR | server address
fd.lip IPADDR | local address
fd.rip IPADDR | remote address
fd.net IPNET FTE | network of either address
fd.cnet IPNET FT | network of the client
fd.snet IPNET FT | network of the server
fd.lnet IPNET FT | network of the local address
fd.rnet IPNET FT | network of the remote address
fd.port PORT FE | either port
fd.cport PORT | client port
fd.sport PORT | server port
fd.lport PORT | local port
fd.rport PORT | remote port
fd.proto CHARBUF FE | service name of either port
fd.cproto CHARBUF | service name of the client port
fd.sproto CHARBUF | service name of the server port
fd.lproto CHARBUF | service name of the local port
fd.rproto CHARBUF | service name of the remote port
fd.l4proto CHARBUF | tcp, udp, icmp or raw
fd.sockfamily CHARBUF | ip or unix
fd.is_server BOOL | the process is the server
fd.connected BOOL | the connection is made or pending
fd.name_changed BOOL | the call changed the connection of the descriptor
fd.cip.name CHARBUF T | name of the client
fd.sip.name CHARBUF T | name of the server
fd.lip.name CHARBUF T | name of the local address
fd.rip.name CHARBUF T | name of the remote address
"""


def fields() -> list[FieldInfo]:
    """Fields of connections."""
    return rows("network", ("syscall",), _NETWORK)
