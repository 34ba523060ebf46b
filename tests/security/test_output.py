"""Templates and the JSON object of an event, field for field as Falco prints them."""

from __future__ import annotations

import ipaddress
from typing import Any

import orjson
import pytest

from security.engine import RuleEngine
from security.output import EventOutput, OutputOptions, format_utc, safe_line
from security.rules.compiler import ExtraOutput
from security.rules.loader import RuleLoader
from tests.reference.securityrules import Event
from tests.security.randomrules import batch_of

EVENT: Event = {
    ("evt.type", None): "open",
    ("proc.name", None): "cat",
    ("proc.aname", None): ("sh", "sshd"),
    ("proc.aname", "2"): "sshd",
    ("proc.cmdline", None): "cat /etc/shadow",
    ("evt.arg", "flags"): "O_RDONLY(1)",
    ("fd.types", None): ("file", "ipv4"),
    ("fd.sip", None): ipaddress.ip_address("10.0.0.1"),
    ("fd.sport", None): 443,
    ("evt.is_open_read", None): True,
    ("evt.buffer", None): b"ab\xff",
}


def output_of(text: str, event: Event = EVENT, extra: tuple[ExtraOutput, ...] = ()) -> EventOutput:
    loader = RuleLoader(extra=extra)
    rule = {"rule": "r", "desc": "d", "condition": "evt.type = open", "output": text, "priority": "WARNING"}
    result = loader.load_text("r.yaml", orjson.dumps([{**rule, "tags": ["b", "a"]}]).decode())
    assert result.successful, result.verbose(loader.contents)
    [output] = RuleEngine(loader.rules).process(batch_of([event]))
    return output


TEXTS = [
    ("plain", "plain"),
    ("%proc.name", "cat"),
    ("*%proc.name", "cat"),
    ("a %proc.name, b", "a cat, b"),
    ("(%proc.name)", "(cat)"),
    ("%proc.name%evt.type", "catopen"),
    ("%proc.name.", "cat."),
    ("[%10proc.name]", "[cat       ]"),
    ("[%2proc.name]", "[ca]"),
    ("%proc.pname", "<NA>"),
    ("[%6proc.pname]", "[<NA>  ]"),
    ("%evt.arg.flags", "O_RDONLY(1)"),
    ("%evt.arg[flags]x", "O_RDONLY(1)x"),
    ("%proc.aname[2]", "sshd"),
    ("%proc.aname", "sh sshd"),
    ("%fd.types", "(file,ipv4)"),
    ("%fd.sip:%fd.sport", "10.0.0.1:443"),
    ("%evt.is_open_read %evt.num", "true 1"),
    ("%toupper(proc.name)", "CAT"),
    ('%join("-", (proc.name, evt.type))!', "cat-open!"),
    ("%len(proc.pname)", "<NA>"),
    ("%evt.rawtime", "1700000000000000000"),
    ("%evt.hostname", "host"),
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_templates(text: str, expected: str) -> None:
    assert output_of(text).message == expected


def test_json_object_has_the_keys_and_types_of_falco() -> None:
    output = output_of(
        "%proc.name %evt.num %fd.sport %evt.is_open_read %proc.pname %toupper(proc.name) %fd.sip"
    )
    event: dict[str, Any] = orjson.loads(output.json_line(OutputOptions("web1")))
    text = event.pop("output")
    assert event == {
        "hostname": "web1",
        "output_fields": {
            "evt.is_open_read": True,
            "evt.num": 1,
            "evt.time": 1700000000000000000,
            "fd.sip": "10.0.0.1",
            "fd.sport": 443,
            "proc.name": "cat",
            "proc.pname": None,
        },
        "priority": "Warning",
        "rule": "r",
        "source": "syscall",
        "tags": ["a", "b"],
        "time": "2023-11-14T22:13:20.000000000Z",
    }
    assert text.endswith(": Warning cat 1 443 true <NA> CAT 10.0.0.1")
    assert list(orjson.loads(output.json_line(OutputOptions()))) == sorted(
        orjson.loads(output.json_line(OutputOptions()))
    )


def test_switches_leave_parts_of_the_json_object_out() -> None:
    options = OutputOptions(
        time_format_iso_8601=True,
        json_include_output_property=False,
        json_include_message_property=True,
        json_include_output_fields_property=False,
        json_include_tags_property=False,
    )
    event = output_of("m %proc.name").as_json(options)
    assert sorted(event) == ["hostname", "message", "priority", "rule", "source", "time"]
    assert event["message"] == "m cat"


def test_text_line_has_time_priority_and_message() -> None:
    line = output_of("x").line(OutputOptions())
    time, _, rest = line.partition(": ")
    assert len(time) == len("13:53:31.726060287")
    assert rest == "Warning x"


def test_extra_outputs_join_text_and_fields() -> None:
    extra = (
        ExtraOutput(text="name=%proc.name", tags=frozenset("a")),
        ExtraOutput(text="never", rule="other"),
        ExtraOutput(
            fields={"proc.cmdline": "%proc.cmdline", "both": "%proc.name/%evt.type", "n": "%fd.sport"}
        ),
    )
    output = output_of("x", extra=extra)
    assert output.message == "x name=cat"
    assert output.fields == {
        "proc.name": "cat",
        "proc.cmdline": "cat /etc/shadow",
        "both": "cat/open",
        "n": 443,
    }


def test_long_lists_are_cut_and_bytes_are_readable() -> None:
    event: Event = {
        ("evt.type", None): "open",
        ("fd.types", None): ("x" * 100,) * 100,
        ("evt.buffer", None): b"ab\xff",
    }
    output = output_of("%fd.types %evt.buffer", event)
    assert len(output.message) == 1023 + len(" ab\ufffd")


def test_control_characters_never_reach_a_terminal() -> None:
    assert safe_line("a\x1b[0m\n\t\x7f\udcff") == "a\\u001b[0m\\n\\t\\u007f\ufffd"
    assert format_utc(1) == "1970-01-01T00:00:00.000000001Z"
