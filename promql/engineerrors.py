"""Errors of evaluation, with Prometheus's texts (prometheus-surface.md 2.11)."""

from __future__ import annotations


class ExecutionError(Exception):
    """The query is well formed but cannot be evaluated; HTTP 422 `execution`."""


class PreparationError(Exception):
    """The query parses but cannot be prepared for these times (a duration expression that is not positive, a
    range vector in a range query); HTTP 400 `bad_data`, like a parse error."""


class TooManySamples(ExecutionError):
    """The query would hold more samples (or bytes) in memory than it may."""

    def __init__(self, where: str = "query execution") -> None:
        super().__init__(f"query processing would load too many samples into memory in {where}")


class MemoryLimitError(ExecutionError):
    """The query's arrays would need more bytes than its budget."""

    def __init__(self, wanted_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"query would need {wanted_bytes} bytes of memory, more than the limit of {limit_bytes} bytes"
        )


class QueryTimeout(Exception):
    """The query ran longer than its timeout; HTTP 503 `timeout`."""

    def __init__(self, where: str = "expression evaluation") -> None:
        super().__init__(f"query timed out in {where}")


class QueryCancelled(Exception):
    """The client went away or the server stops; HTTP 499 `canceled`."""

    def __init__(self, where: str = "expression evaluation") -> None:
        super().__init__(f"query was canceled in {where}")


class StorageReadError(Exception):
    """The store failed while the query read it; HTTP 500 `internal`."""
