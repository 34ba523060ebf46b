"""What socket calls do to descriptors: ends of connections, who is the server, what changed."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import replace

from security.capture.descriptors import CLIENT, SERVER, Descriptor, connection_name
from security.capture.events import Event
from security.capture.parametertypes import Connection
from security.capture.state import State
from security.capture.threads import Thread

_FAMILIES = {1: "u", 2: "4", 10: "6", 16: "n"}
_STREAM, _DATAGRAM, _RAW = 1, 2, 3
_ICMP = (1, 58)
_TYPE_MASK = 0xF
_SENDS = frozenset({"sendto", "sendmsg"})


def _socket(state: State, event: Event, thread: Thread) -> None:
    number = event.number("fd")
    if number is None or number < 0:
        return
    character = _FAMILIES.get(event.number("domain") or 0, "o")
    event.descriptor = Descriptor(character, number=number, protocol=_protocol(character, event))
    state.open(thread, event.descriptor)


def _protocol(character: str, event: Event) -> str | None:
    if character not in ("4", "6"):
        return None
    kind = (event.number("type") or 0) & _TYPE_MASK
    if kind == _DATAGRAM:
        return "icmp" if event.number("proto") in _ICMP else "udp"
    return {_STREAM: "tcp", _RAW: "raw"}.get(kind)


def _pair(state: State, event: Event, thread: Thread) -> None:
    for name in ("fd1", "fd2"):
        number = event.number(name)
        if event.number("res") == 0 and number is not None:
            state.open(thread, Descriptor("u", number=number))


def _ends(event: Event, name: str) -> Connection | None:
    value = event.values.get(name)
    return value if isinstance(value, Connection) else None


def _character(ends: Connection) -> str:
    """IPv4 in the clothes of IPv6 is IPv4."""
    if ends.source is None:
        return "u"
    return "6" if ":" in ends.source.address else "4"


def _known(event: Event, number: int | None) -> Descriptor:
    """The descriptor of a call; of one that was opened before the capture only the number is known."""
    return event.descriptor or Descriptor("o", number=-1 if number is None else number)


def _bind(state: State, event: Event, thread: Thread) -> None:
    address, number = _ends(event, "addr"), event.number("fd")
    if address is None or event.number("res") != 0 or number is None:
        return
    event.descriptor = replace(
        _known(event, number),
        character=_character(address),
        name=str(address),
        server=address.source,
        role=SERVER if address.source else "",
    )
    state.open(thread, event.descriptor)


def _connect(state: State, event: Event, thread: Thread) -> None:
    number, result = event.number("fd"), event.number("res")
    ends, address = _ends(event, "tuple"), _ends(event, "addr")
    if ends is None or (ends.source is None and not ends.path):
        ends = None if address is None else Connection(None, address.source, address.path, address.family)
    if ends is None or number is None:
        return
    client, server = ends.source, ends.destination
    event.descriptor = replace(
        _known(event, number),
        character=_character(replace(ends, source=server)),
        name=connection_name(client, server) if server else ends.path,
        client=client,
        server=server,
        role=CLIENT if server else "",
        connected=result in (0, -errno.EINPROGRESS),
    )
    state.open(thread, event.descriptor)


def _accept(state: State, event: Event, thread: Thread) -> None:
    number, ends = event.number("fd"), _ends(event, "tuple")
    event.descriptor = None
    if number is None or number < 0:
        return
    found = Descriptor("u", number=number)
    if ends is not None:
        found = Descriptor(
            _character(ends),
            connection_name(ends.source, ends.destination) if ends.source else ends.path,
            protocol="tcp" if ends.source else None,
            client=ends.source,
            server=ends.destination,
            role=SERVER if ends.source else "",
            connected=True,
            number=number,
        )
    event.descriptor = found
    state.open(thread, found)


def _transfer(state: State, event: Event, thread: Thread) -> None:
    """A datagram names both ends; the direction of the first one tells who is the client."""
    ends, number = _ends(event, "tuple"), event.number("fd")
    if ends is None or ends.source is None or ends.destination is None or number is None:
        return
    before = _known(event, number)
    if before.protocol == "tcp":
        return
    sends = event.name in _SENDS
    role = before.role or (CLIENT if sends else SERVER)
    own, other = (ends.source, ends.destination) if sends else (ends.destination, ends.source)
    client, server = (own, other) if role == CLIENT else (other, own)
    event.descriptor = replace(
        before,
        character=_character(ends),
        name=connection_name(client, server),
        client=client,
        server=server,
        role=role,
    )
    changed = (before.client, before.server) != (client, server)
    event.name_changed = changed
    if changed:
        state.open(thread, event.descriptor)


HANDLERS: Mapping[str, Callable[[State, Event, Thread], None]] = {
    "socket": _socket,
    "socketpair": _pair,
    "bind": _bind,
    "connect": _connect,
    "accept": _accept,
    "accept4": _accept,
    **dict.fromkeys((*_SENDS, "recvfrom", "recvmsg"), _transfer),
}
