"""What ran during a test: the kernels it called, and the references of `tests.twins`."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.twins import TWINS, Twin
from tsdb.kernels.compile import Kernel


@dataclass
class Calls:
    """Names of the kernels and references that were called."""

    kernels: set[str] = field(default_factory=set)
    references: set[str] = field(default_factory=set)


def resolved(reference: str) -> Any:
    """The function or class of a dotted name. Raises ImportError, AttributeError."""
    module, _, name = reference.rpartition(".")
    return getattr(importlib.import_module(module), name)


@contextmanager
def recorded(references: set[str]) -> Iterator[Calls]:
    """Notes calls of kernels, and of those references that are written in Python under tests."""
    calls = Calls()
    call = Kernel.__call__

    def noted(kernel: Kernel[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.kernels.add(kernel.name)
        return call(kernel, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernel, "__call__", noted)
        for reference in references:
            if reference.startswith("tests."):
                _watch(patch, reference, calls.references)
        yield calls


def _watch(patch: pytest.MonkeyPatch, reference: str, called: set[str]) -> None:
    found = resolved(reference)
    if inspect.isclass(found):
        patch.setattr(found, "__init__", _noting(found.__init__, reference, called))
        return
    watched = _noting(found, reference, called)
    # A test module holds the function under a name of its own, or in a dictionary.
    for module in [m for name, m in sys.modules.items() if name.startswith("tests.")]:
        for name, value in list(vars(module).items()):
            if value is found:
                patch.setattr(module, name, watched)
            elif isinstance(value, dict) and name.isupper():
                for key in [key for key, held in value.items() if held is found]:
                    patch.setitem(value, key, watched)


def _noting(function: Callable[..., Any], reference: str, called: set[str]) -> Callable[..., Any]:
    def noting(*args: Any, **kwargs: Any) -> Any:
        called.add(reference)
        return function(*args, **kwargs)

    return noting


def declared(nodeid: str) -> dict[str, Twin]:
    """The kernels that a test is named for, with or without the id of its parameters."""
    return {name: twin for name, twin in TWINS.items() if twin.test in (nodeid, nodeid.partition("[")[0])}


def not_called(declarations: dict[str, Twin], calls: Calls) -> list[str]:
    """What the table says that a test calls, and it did not."""
    kernels = [f"kernel {name}" for name in declarations if name not in calls.kernels]
    references = {twin.reference for twin in declarations.values() if twin.reference.startswith("tests.")}
    return kernels + [f"reference {name}" for name in sorted(references - calls.references)]
