"""Targets written in the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.config.discovery import TargetGroup
from ingest.discovery.group import Publish
from ingest.scrape.target import DiscoveredGroup


class StaticDiscovery:
    """Publishes once."""

    mechanism = "static"

    def __init__(self, groups: Sequence[TargetGroup]) -> None:
        self._groups = groups

    async def run(self, publish: Publish) -> None:
        """Hand over the groups."""
        publish([group_of(group, str(index)) for index, group in enumerate(self._groups)])


def group_of(group: TargetGroup, source: str) -> DiscoveredGroup:
    """A configured group as discovered labels."""
    targets = tuple({"__address__": address} for address in group.targets)
    return DiscoveredGroup(source, targets, dict(group.labels))
