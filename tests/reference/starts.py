"""Start timestamps of one series, sample by sample: what the head's chains of changes must amount to."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ReferenceStarts:
    """The in-order sample of a time wins over a late one, of late ones the first to arrive."""

    in_order: dict[int, int] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)

    def add(self, t: int, start: int, late: bool) -> None:
        if late:
            self.late.setdefault(t, start)
        else:
            self.in_order[t] = start

    def read(self, mint: int, maxt: int) -> list[tuple[int, int]]:
        merged = {**self.late, **self.in_order}
        return sorted((t, start) for t, start in merged.items() if mint <= t <= maxt)
