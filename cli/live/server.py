"""Numbers of a server: PromQL over the series of its agents, events from its event log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cli.apiclient import ApiClient, ApiError
from cli.live.views import Happening, Reading, SourceError, Wanted

RATE_WINDOW = "2m"
ROWS_LIMIT = 1000
"""Rows of one column that are asked for, the largest ones."""
EVENTS_LIMIT = 200


class ServerSource:
    """One server. `instance` restricts the numbers to hosts whose label matches that expression."""

    def __init__(self, client: ApiClient, title: str, instance: str = "") -> None:
        self._client = client
        self._instance = instance
        self.title = title
        self.note = ""

    def read(self, labels: Sequence[str], wanted: Sequence[Wanted]) -> Reading:
        """One query a column."""
        return {item: self._values(labels, item) for item in wanted}

    def happenings(self) -> list[Happening]:
        """The newest events of the log."""
        try:
            data = self._client.get("/api/v1/security/events", [("limit", str(EVENTS_LIMIT))])
        except ApiError as error:
            raise SourceError(str(error)) from None
        return [_happening(item) for item in data if isinstance(item, dict)] if isinstance(data, list) else []

    def close(self) -> None:
        """Nothing is held."""

    def _values(self, labels: Sequence[str], wanted: Wanted) -> Mapping[tuple[str, ...], float]:
        expression = query_of(labels, wanted, self._instance)
        try:
            data = self._client.call("/api/v1/query", [("query", expression)])
        except ApiError as error:
            raise SourceError(str(error)) from None
        found = {}
        for item in data.get("result", []):
            metric, (_, value) = item["metric"], item["value"]
            found[tuple(metric.get(label, "") for label in labels)] = float(value)
        return found


def query_of(labels: Sequence[str], wanted: Wanted, instance: str = "") -> str:
    """The PromQL expression of a column."""
    matchers = [f"{name}={json.dumps(value)}" for name, value in wanted.where]
    if instance:
        matchers.append(f"instance=~{json.dumps(instance)}")
    selector = f"{wanted.metric}{{{','.join(matchers)}}}"
    inner = f"rate({selector}[{RATE_WINDOW}])" if wanted.rate else selector
    return f"topk({ROWS_LIMIT}, sum by ({', '.join(labels)}) ({inner}))"


def _happening(item: Mapping[str, Any]) -> Happening:
    try:
        moment = datetime.fromisoformat(str(item.get("time", ""))[:19] + "+00:00").timestamp()
    except ValueError:
        moment = 0.0
    text = item.get("message") or item.get("output") or ""
    return Happening(moment, str(item.get("priority", "")), str(item.get("rule", "")), str(text))
