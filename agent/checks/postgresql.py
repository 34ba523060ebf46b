"""Check of PostgreSQL: its statistics views as metrics under postgres_exporter's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from agent.checks.page import CheckError, Page, main

TIMEOUT_SECONDS = 8.0
ROWS_LIMIT = 1000
"""Databases, states or modes of one query that are shown."""

_DATABASE = {
    "numbackends": ("gauge", "Connections."),
    "xact_commit": ("counter", "Transactions committed."),
    "xact_rollback": ("counter", "Transactions rolled back."),
    "blks_read": ("counter", "Blocks read from disk."),
    "blks_hit": ("counter", "Blocks found in the buffer cache."),
    "tup_returned": ("counter", "Rows read."),
    "tup_fetched": ("counter", "Rows fetched by index scans."),
    "tup_inserted": ("counter", "Rows inserted."),
    "tup_updated": ("counter", "Rows updated."),
    "tup_deleted": ("counter", "Rows deleted."),
    "conflicts": ("counter", "Queries cancelled by recovery."),
    "temp_files": ("counter", "Temporary files."),
    "temp_bytes": ("counter", "Bytes of temporary files."),
    "deadlocks": ("counter", "Deadlocks."),
}
_SINGLE = (
    (
        "gauge",
        "pg_settings_max_connections",
        "Connections allowed.",
        "current_setting('max_connections')::float8",
    ),
    (
        *("gauge", "pg_postmaster_start_time_seconds", "Unix time of the start."),
        "extract(epoch from pg_postmaster_start_time())::float8",
    ),
    ("gauge", "pg_replication_is_replica", "Whether it is a replica.", "pg_is_in_recovery()::int::float8"),
    (
        *("gauge", "pg_replication_lag_seconds", "Age of the last replayed transaction, 0 on a primary."),
        "coalesce(extract(epoch from now() - pg_last_xact_replay_timestamp()), 0)::float8",
    ),
)
_GROUPED = (
    (
        *("pg_stat_activity_count", "Connections by state.", ("datname", "state")),
        "select coalesce(datname, ''), coalesce(state, ''), count(*) from pg_stat_activity group by 1, 2",
    ),
    (
        *("pg_locks_count", "Locks held or waited for.", ("mode",)),
        "select mode, count(*) from pg_locks group by 1",
    ),
    (
        *("pg_database_size_bytes", "Bytes of a database.", ("datname",)),
        "select datname, pg_database_size(datname) from pg_database where not datistemplate"
        " and has_database_privilege(datname, 'connect')",
    ),
)


def check(settings: Mapping[str, str], page: Page) -> None:
    """Ask the views and add what they tell. Raises CheckError."""
    try:
        import pg8000.native as postgresql
    except ImportError:
        raise CheckError("pg8000 is not installed; pip install 'vedette[checks]'") from None
    try:
        connection = postgresql.Connection(**_arguments(settings))
        try:
            _read(connection, page)
        finally:
            connection.close()
    except (postgresql.Error, OSError) as error:
        raise CheckError(f"{settings['address']}: {error}") from None


def _arguments(settings: Mapping[str, str]) -> dict[str, Any]:
    address = settings["address"]
    arguments: dict[str, Any] = {
        "user": settings["username"],
        "password": settings["password"] or None,
        "database": settings["database"],
        "timeout": TIMEOUT_SECONDS,
        "application_name": "vedette",
    }
    if address.startswith("/"):
        is_folder = os.path.isdir(address)
        arguments["unix_sock"] = os.path.join(address, ".s.PGSQL.5432") if is_folder else address
    else:
        host, _, port = address.rpartition(":")
        arguments |= {"host": (host or address).strip("[]"), "port": int(port) if host else 5432}
    return arguments


def _read(connection: Any, page: Page) -> None:
    connection.run("set statement_timeout = 8000")
    page.add("gauge", "pg_up", "Whether PostgreSQL answered.", 1)
    columns = ", ".join(f"{name}::float8" for name in _DATABASE)
    rows = connection.run(f"select datname, {columns} from pg_stat_database where datname is not null")
    for database, *values in rows[:ROWS_LIMIT]:
        for (name, (kind, text)), value in zip(_DATABASE.items(), values, strict=True):
            page.add(kind, f"pg_stat_database_{name}", text, float(value or 0), datname=database)
    singles = connection.run(f"select {', '.join(expression for *_, expression in _SINGLE)}")[0]
    for (kind, name, text, _), value in zip(_SINGLE, singles, strict=True):
        page.add(kind, name, text, float(value))
    for name, text, labels, query in _GROUPED:
        for row in connection.run(query)[:ROWS_LIMIT]:
            page.add("gauge", name, text, float(row[-1]), **dict(zip(labels, row[:-1], strict=True)))


if __name__ == "__main__":
    main(check)
