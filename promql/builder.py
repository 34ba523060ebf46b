"""The actions of the grammar under one roof.

Errors of single constructs (unknown functions, repeated modifiers, bad numbers) are raised by the actions, at
the moment the construct is complete, with Prometheus's texts. Types are checked on the whole tree (types.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from promql.actions.calls import CallActions
from promql.actions.durations import DurationActions
from promql.actions.modifiers import ModifierActions
from promql.actions.operators import OperatorActions
from promql.actions.selectors import SelectorActions
from promql.parseroptions import ParserOptions

__all__ = ["ParserOptions", "TreeBuilder"]


class TreeBuilder(OperatorActions, CallActions, SelectorActions, ModifierActions, DurationActions):
    """Builds the tree of one text; indexed by the grammar's action names."""

    def __getitem__(self, action: str) -> Callable[[list[Any]], Any]:
        return getattr(self, "on_" + action)  # type: ignore[no-any-return]
