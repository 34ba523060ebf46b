"""What agents and server say to each other over HTTP (docs/agent-shipping.md).

Everything here comes from the other side of a network and is validated: the server does not trust agents, nor
agents the server.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PREFIX = "/api/v1/agents"
EPOCH_HEADER = "X-Vedette-Epoch"
SEQUENCE_HEADER = "X-Vedette-Sequence"
EVENTS_TYPE = "application/x-ndjson"

FRAME_BYTES_LIMIT = 4 << 20
"""One request with events."""
FRAME_EVENTS_LIMIT = 5000
REPORT_BYTES_LIMIT = 64 << 10
ANSWER_BYTES_LIMIT = 256 << 10
FILE_BYTES_LIMIT = 4 << 20
"""One file of configuration or rules."""
FILES_COUNT_LIMIT = 100
SEQUENCE_LIMIT = 1 << 62

_AgentId = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_FileName = r"^(agent\.yml|rules/[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\.ya?ml)$"
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Epoch = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Sequence = Annotated[int, Field(ge=0, lt=SEQUENCE_LIMIT)]
_Text = Annotated[str, Field(max_length=2000)]

_M = TypeVar("_M", bound=BaseModel)


class ProtocolError(ValueError):
    """A message that is not what it should be; the text says where."""


class _Message(BaseModel):
    # Unknown keys are read over, so that either side may be newer.
    model_config = ConfigDict(defer_build=True, strict=True, extra="ignore", frozen=True)


class PushedFile(_Message):
    """A file that the server wants the agent to have, by the SHA-256 of its content."""

    name: Annotated[str, Field(pattern=_FileName)]
    sha256: Hash
    size: Annotated[int, Field(ge=0, le=FILE_BYTES_LIMIT)]


class FilesStatus(_Message):
    """What became of the files that were pushed. `set` names the set of files that runs, by `set_hash`."""

    set: str = ""
    rejected: str = ""
    """The set that was refused last."""
    error: _Text = ""


class Report(_Message):
    """What an agent tells of itself with each report."""

    agent: Annotated[str, Field(pattern=_AgentId)]
    epoch: Epoch
    hostname: Annotated[str, Field(max_length=255)]
    version: Annotated[str, Field(max_length=64)]
    started_ms: int
    queued_events: Annotated[int, Field(ge=0)] = 0
    queued_samples: Annotated[int, Field(ge=0)] = 0
    dropped_events: Annotated[int, Field(ge=0)] = 0
    parts: Annotated[list[_Text], Field(max_length=50)] = []
    budget_level: Annotated[int, Field(ge=0)] = 0
    files: FilesStatus = FilesStatus()
    metadata: Annotated[dict[str, _Text], Field(max_length=50)] = {}


class ReportAnswer(_Message):
    """What the server answers to a report. `set` is empty when the server pushes nothing."""

    acknowledged: Sequence
    set: Hash | Literal[""] = ""
    files: Annotated[list[PushedFile], Field(max_length=FILES_COUNT_LIMIT)] = []


class EventsAnswer(_Message):
    """What the server answers to events: all up to `acknowledged` are durable, less invalid ones."""

    acknowledged: Sequence
    refused: Annotated[int, Field(ge=0)] = 0
    error: _Text = ""


def parse(model: type[_M], data: bytes) -> _M:
    """A message from bytes. Raises ProtocolError."""
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ProtocolError(f"{model.__name__}: {place}: {first['msg']}") from None


def check_envelope(agent: str, epoch: str, sequence: str) -> tuple[str, str, int]:
    """Agent, epoch and sequence of a request with events. Raises ProtocolError."""
    given: dict[str, Any] = {"agent": agent, "epoch": epoch, "sequence": sequence}
    try:
        checked = _Envelope.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ProtocolError(f"{first['loc'][0]}: {first['msg']}") from None
    return checked.agent, checked.epoch, checked.sequence


class _Envelope(BaseModel):
    agent: Annotated[str, Field(pattern=_AgentId)]
    epoch: Epoch
    sequence: Annotated[int, Field(gt=0, lt=SEQUENCE_LIMIT)]
