"""How random queries write names: UTF-8 ones in quotes, others bare or, now and then, in quotes too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

BARE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
QUOTED_SHARE = 0.1

Condition = tuple[str, str]
"""Label name, and the operator with its value as text."""


def quoted(text: str) -> str:
    """A string literal in double quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Speller:
    """Writes names; with the same generator and another share the same names in other spellings."""

    def __init__(self, rng: Random, quoted_share: float = QUOTED_SHARE) -> None:
        self._rng = rng
        self._share = quoted_share

    def _in_quotes(self, name: str) -> bool:
        drawn = self._rng.random()  # for every name, that the share does not move later draws
        return drawn < self._share or BARE.fullmatch(name) is None

    def label(self, name: str) -> str:
        """A label's name as it stands in a grouping or a matcher."""
        drawn = self._rng.random()
        if not self._in_quotes(name):
            return name
        return f"'{name}'" if drawn < 0.2 else (f"`{name}`" if drawn < 0.3 else quoted(name))

    def labels(self, names: Sequence[str]) -> str:
        """A list of label names in parentheses."""
        return f"({', '.join(map(self.label, names))})"

    def selector(self, metric: str, conditions: Sequence[Condition]) -> str:
        """A metric with matchers; a name in quotes stands inside of the braces, anywhere."""
        matchers = [self.label(name) + test for name, test in conditions]
        place = self._rng.randint(0, len(matchers))
        if self._in_quotes(metric):
            return "{" + ", ".join([*matchers[:place], quoted(metric), *matchers[place:]]) + "}"
        return metric + ("{" + ",".join(matchers) + "}" if matchers else "")
