"""Which parts of the language are allowed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParserOptions:
    """Parts of the language behind feature flags."""

    experimental_functions: bool = False
    duration_expr: bool = True
    extended_range_selectors: bool = False
    binop_fill_modifiers: bool = False

    @classmethod
    def everything(cls) -> ParserOptions:
        """All parts, as the test language has them."""
        return cls(True, True, True, True)
