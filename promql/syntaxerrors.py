"""What the parser says about a token that fits nowhere, by the grammar's alternative that explains it."""

from __future__ import annotations

from promql.tokens import Token, describe

_DURATION = "number, duration, step(), or range()"

EXPLANATIONS: dict[str, tuple[str, str]] = {
    "": ("", ""),
    "error_aggregation": ("aggregation", ""),
    "error_at": ("@", "timestamp"),
    "error_grouping_label": ("grouping opts", "label"),
    "error_grouping_next": ("grouping opts", '"," or ")"'),
    "error_grouping_open": ("grouping opts", '"("'),
    "error_label": ("label set", 'identifier or "}"'),
    "error_label_equals": ("label set", '"="'),
    "error_label_next": ("label set", '"," or "}"'),
    "error_label_value": ("label set", "string"),
    "error_matcher": ("label matching", 'identifier or "}"'),
    "error_matcher_next": ("label matching", '"," or "}"'),
    "error_matcher_operator": ("label matching", "label matching operator"),
    "error_matcher_value": ("label matching", "string"),
    "error_offset": ("offset", _DURATION),
    "error_range": ("subquery or range selector", _DURATION),
    "error_range_end": ("subquery or range", '":" or "]"'),
    "error_subquery_end": ("subquery selector", '"]"'),
    "error_subquery_step": ("subquery selector", 'number, duration, step(), range(), or "]"'),
}
"""(context, expected) by action name."""


def unexpected(token: Token, action: str) -> str:
    """`unexpected TOKEN in CONTEXT, expected WHAT`."""
    context, expected = EXPLANATIONS[action]
    text = f"unexpected {describe(token)}"
    if context:
        text += f" in {context}"
    return f"{text}, expected {expected}" if expected else text
