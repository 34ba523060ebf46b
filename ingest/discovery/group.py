"""What discovery mechanisms share: how they publish, and how a list of target groups is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from ingest.config.discovery import TargetGroup
from ingest.config.source import render_path
from ingest.scrape.target import DiscoveredGroup

GROUP_COUNT_LIMIT = 100_000
"""Target groups in one file or HTTP answer."""
BODY_BYTES_LIMIT = 64 << 20
"""Bytes of one file or HTTP answer."""

Publish = Callable[[Sequence[DiscoveredGroup]], None]
"""Replaces all groups of the mechanism that calls it. Event loop thread only."""


class DiscoveryError(Exception):
    """A refresh that failed; what was found before stays."""


class Discovery(Protocol):
    """One configured mechanism."""

    mechanism: str

    async def run(self, publish: Publish) -> None:
        """Publish now and at every change, until cancelled."""
        ...


def read_groups(data: Any, source: str, labels: Mapping[str, str]) -> list[DiscoveredGroup]:
    """A list of `{targets, labels}` as groups named `source:index` that also carry `labels`.

    Raises DiscoveryError for anything else.
    """
    if data is None:
        data = []
    if not isinstance(data, list):
        raise DiscoveryError(f"{source}: expected a list of target groups")
    if len(data) > GROUP_COUNT_LIMIT:
        raise DiscoveryError(f"{source}: {len(data)} target groups exceed {GROUP_COUNT_LIMIT}")
    groups = []
    for index, item in enumerate(data):
        if item is None:
            raise DiscoveryError(f"{source}: nil target group item found (index {index})")
        try:
            group = TargetGroup.model_validate(item)
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            place = render_path((index, *detail["loc"]))
            raise DiscoveryError(f"{source}: {place}: {detail['msg']}") from None
        targets = tuple({"__address__": address} for address in group.targets)
        groups.append(DiscoveredGroup(f"{source}:{index}", targets, {**group.labels, **labels}))
    return groups
