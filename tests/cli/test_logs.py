"""Logs on stderr: Prometheus's keys, whatever fields a caller gives."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from cli.logs import set_up_logs


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("aiohttp.server").filters.clear()


@pytest.mark.parametrize("name", ["level", "logger", "time"])
def test_a_field_cannot_take_the_place_of_a_key(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    logging.getLogger("vedette.agent").warning("less is done", extra={name: 5, "step": "opens"})
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["component"], line["msg"]) == ("WARN", "vedette.agent", "less is done")
    assert line["time"] != 5
    assert line["step"] == "opens"


def test_a_connection_that_is_closed_by_the_stop_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", "json")
    for text in ("unable to perform operation on <TCPTransport closed=True>; the handler is closed", "a bug"):
        try:
            raise RuntimeError(text)
        except RuntimeError:
            logging.getLogger("aiohttp.server").exception("Unhandled exception")
    (line,) = capsys.readouterr().err.splitlines()
    assert "a bug" in json.loads(line)["exception"]
