"""Check of Redis: its INFO as metrics under redis_exporter's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import BinaryIO, cast

from agent.checks.page import CheckError, Page, connect, main

TIMEOUT_SECONDS = 8.0
REPLY_BYTES_LIMIT = 1 << 20
LINE_BYTES_LIMIT = 4096

_GAUGES = {
    "connected_clients": ("redis_connected_clients", "Clients connected."),
    "blocked_clients": ("redis_blocked_clients", "Clients that wait in a blocking call."),
    "maxclients": ("redis_config_maxclients", "Most clients allowed."),
    "used_memory": ("redis_memory_used_bytes", "Bytes that Redis allocated."),
    "used_memory_rss": ("redis_memory_used_rss_bytes", "Bytes resident."),
    "used_memory_peak": ("redis_memory_used_peak_bytes", "Most bytes ever allocated."),
    "maxmemory": ("redis_memory_max_bytes", "Memory limit, 0 for none."),
    "mem_fragmentation_ratio": ("redis_mem_fragmentation_ratio", "Resident over allocated memory."),
    "uptime_in_seconds": ("redis_uptime_in_seconds", "Seconds since the start."),
    "connected_slaves": ("redis_connected_slaves", "Replicas connected."),
    "master_repl_offset": ("redis_master_repl_offset", "Replication offset."),
    "rdb_changes_since_last_save": ("redis_rdb_changes_since_last_save", "Changes since the last dump."),
    "rdb_last_save_time": ("redis_rdb_last_save_timestamp_seconds", "Unix time of the last dump."),
    "loading": ("redis_loading_dump_file", "Whether a dump is being loaded."),
}
_COUNTERS = {
    "total_connections_received": ("redis_connections_received_total", "Connections accepted."),
    "rejected_connections": ("redis_rejected_connections_total", "Connections refused for maxclients."),
    "total_commands_processed": ("redis_commands_processed_total", "Commands processed."),
    "total_net_input_bytes": ("redis_net_input_bytes_total", "Bytes received."),
    "total_net_output_bytes": ("redis_net_output_bytes_total", "Bytes sent."),
    "expired_keys": ("redis_expired_keys_total", "Keys expired."),
    "evicted_keys": ("redis_evicted_keys_total", "Keys evicted for lack of memory."),
    "keyspace_hits": ("redis_keyspace_hits_total", "Look-ups that found a key."),
    "keyspace_misses": ("redis_keyspace_misses_total", "Look-ups that found none."),
    "used_cpu_sys": ("redis_cpu_sys_seconds_total", "Seconds in the kernel."),
    "used_cpu_user": ("redis_cpu_user_seconds_total", "Seconds in user mode."),
}
_DATABASE = re.compile(r"^keys=(\d+),expires=(\d+)")
_COMMAND = re.compile(r"^calls=(\d+),usec=(\d+)")


def check(settings: Mapping[str, str], page: Page) -> None:
    """Ask for INFO and add what it tells."""
    with (
        connect(settings["address"], 6379, TIMEOUT_SECONDS) as connection,
        connection.makefile("rwb") as made,
    ):
        stream = cast(BinaryIO, made)
        if settings.get("password"):
            names = [settings["username"]] if settings.get("username") else []
            _ask(stream, "AUTH", *names, settings["password"])
        text = _ask(stream, "INFO", "everything")
    page.add("gauge", "redis_up", "Whether Redis answered.", 1)
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            _add(page, name, value)


def _add(page: Page, name: str, value: str) -> None:
    for kind, table in (("gauge", _GAUGES), ("counter", _COUNTERS)):
        if name in table:
            page.add(kind, *table[name], float(value))
    if name.startswith("db") and (found := _DATABASE.match(value)):
        page.add("gauge", "redis_db_keys", "Keys of a database.", int(found[1]), db=name)
        page.add("gauge", "redis_db_keys_expiring", "Keys that expire.", int(found[2]), db=name)
    if name.startswith("cmdstat_") and (found := _COMMAND.match(value)):
        command = name.removeprefix("cmdstat_")
        page.add("counter", "redis_commands_total", "Calls of a command.", int(found[1]), cmd=command)
        seconds = int(found[2]) / 1e6
        page.add("counter", "redis_commands_duration_seconds_total", "Seconds in it.", seconds, cmd=command)
    if name == "role":
        page.add("gauge", "redis_instance_info", "Facts of the instance.", 1, role=value)


def _ask(stream: BinaryIO, *words: str) -> str:
    """One command and its reply, a simple string or a bulk string. Raises CheckError."""
    parts = [f"*{len(words)}\r\n".encode()]
    parts += [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
    stream.write(b"".join(parts))
    stream.flush()
    head = stream.readline(LINE_BYTES_LIMIT).decode("utf-8", "replace").rstrip("\r\n")
    if head.startswith("+"):
        return head[1:]
    if not head.startswith("$"):
        raise CheckError(f"{words[0]}: {head.removeprefix('-') or 'the connection was closed'}")
    size = int(head[1:])
    if not 0 <= size <= REPLY_BYTES_LIMIT:
        raise CheckError(f"{words[0]}: a reply of {size} bytes exceeds {REPLY_BYTES_LIMIT}")
    return stream.read(size + 2)[:size].decode("utf-8", "replace")


if __name__ == "__main__":
    main(check)
