"""Holds the tests that `tests.twins` names to what it says of them."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.callrecorder import declared, not_called, recorded


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is declared as the twin of kernels fails if one of them or the reference is not called."""
    declarations = declared(item.nodeid)
    if not declarations:
        return (yield)
    with recorded({twin.reference for twin in declarations.values()}) as calls:
        result = yield
    missing = not_called(declarations, calls)
    assert not missing, f"tests/twins.py says that this test calls {', '.join(missing)}"
    return result
