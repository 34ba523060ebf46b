"""Labels that a target exposes and labels that it has, in one set (surface 6.2)."""

from __future__ import annotations

from tsdb.labels import Labels

EXPORTED_PREFIX = "exported_"


def merge_labels(exposed: dict[str, str], target: Labels, honor: bool) -> dict[str, str]:
    """Labels of a series and of its target in one set; clashes as `honor_labels` says (surface 6.2)."""
    if honor:
        merged = {name: value for name, value in exposed.items() if value}
        for name, value in target:
            merged.setdefault(name, value)
        return merged
    clashing = [(name, exposed[name]) for name, _ in target if exposed.get(name)]
    merged = {name: value for name, value in exposed.items() if value}
    merged.update(target)
    for name, value in sorted(clashing, key=lambda pair: len(pair[0])):
        renamed = EXPORTED_PREFIX + name
        while renamed in merged:
            renamed = EXPORTED_PREFIX + renamed
        merged[renamed] = value
    return merged
