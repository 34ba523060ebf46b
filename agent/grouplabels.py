"""Labels of a process group: its name and those of its container, as container metrics have them."""

from __future__ import annotations

from collections.abc import Callable

from agent.containermetrics import NamesOf
from agent.processgroups import Group
from security.fields.containerids import ContainerPath

GROUP_LABELS = ("groupname", "container_id", "name", "namespace", "pod", "container")


def group_labels(names_of: NamesOf) -> Callable[[Group], tuple[str, ...]]:
    """A function that gives the values of `GROUP_LABELS`; a container without a name has its shown id."""

    def labels(group: Group) -> tuple[str, ...]:
        if not group.container_id:
            return (group.name, "", "", "", "", "")
        shown = ContainerPath(group.container_id, "").shown_id
        names = names_of(group.container_id)
        if names is None:
            return (group.name, shown, shown, "", "", "")
        return (group.name, shown, names.name or shown, names.namespace, names.pod, names.container)

    return labels
