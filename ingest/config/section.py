"""The root of all configuration models: strict keys, YAML's null, secrets, paths, and printing."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, ClassVar, get_args, get_origin
from urllib.parse import urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SecretStr,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ingest.config.durations import ByteSize, Duration
from ingest.config.source import Path

SECRET_TEXT = "<secret>"


def fault(message: str, *path: str | int) -> PydanticCustomError:
    """An error of a validator, placed at `path` below the section that is being validated."""
    return PydanticCustomError("config", "{message}", {"message": message, "path": path})


def _join_directory(value: str, info: ValidationInfo) -> str:
    directory = (info.context or {}).get("directory", "")
    return os.path.join(directory, value) if value and directory else value


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            shown = "".join(f"\\x{byte:02x}" if byte >= 0x80 else chr(byte) for byte in value)
            raise ValueError(f'"{shown}" is not valid UTF-8') from None
    return value


def _parseable_url(value: str) -> str:
    if value:
        parts = urlsplit(value)
        if value.startswith(":"):
            raise ValueError(f'parse "{value}": missing protocol scheme')
        _ = parts.port
    return value


Text = Annotated[str, BeforeValidator(_text)]
FilePath = Annotated[str, AfterValidator(_join_directory)]
"""A path, made absolute against the folder of the file that names it."""
Url = Annotated[str, AfterValidator(_parseable_url)]
Secret = SecretStr


def _null_value(annotation: Any) -> Any:
    """What YAML's null means for a field: the zero value of its type; None where the field allows it."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if NoneType in get_args(annotation):
        return None
    origin = get_origin(annotation) or annotation
    if origin in (list, dict):
        return origin()
    if origin in (Duration, ByteSize, bool, int, float):
        return origin(0)
    if isinstance(origin, type) and issubclass(origin, BaseModel):
        return {}
    return ""


class Section(BaseModel):
    """A mapping of the configuration file. Immutable once validated.

    Defaults that are sections are made by `model_construct`, as validators are made at the first validation.
    """

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, validate_default=False)

    go_type: ClassVar[str] = "config.plain"
    """Name of the type in Prometheus's message about an unknown field."""
    always_printed: ClassVar[frozenset[str]] = frozenset()
    """Fields that are printed even when they hold the zero value of their type."""
    printed_last: ClassVar[tuple[str, ...]] = ()
    """Fields printed after the inherited ones."""

    def omitted(self) -> frozenset[str]:
        """Fields that are not printed although they hold a value."""
        return frozenset()

    @model_validator(mode="before")
    @classmethod
    def _zero_for_null(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for attribute, field in cls.model_fields.items():
            name = field.alias or attribute
            if name not in data:
                continue
            value = data[name]
            if value is None:
                data[name] = _null_value(field.annotation)
            elif isinstance(value, dict) and get_origin(field.annotation) is dict:
                empty = _null_value(get_args(field.annotation)[1])
                data[name] = {k: empty if v is None else v for k, v in value.items()}
        return data


def print_section(section: Section) -> dict[str, Any]:
    """A section as plain values for YAML: zero values left out, secrets hidden, durations as text."""
    printed: dict[str, Any] = {}
    own = [name for name in type(section).model_fields if name not in section.printed_last]
    inherited = {n for base in type(section).__mro__[1:] for n in getattr(base, "model_fields", {})}
    order = [n for n in own if n not in inherited] + [n for n in own if n in inherited]
    omitted = section.omitted()
    for name in (*order, *section.printed_last):
        if name in omitted:
            continue
        value = _printable(getattr(section, name))
        if (name in section.always_printed and value is not None) or not _is_zero(value):
            printed[name] = value
    return printed


def _is_zero(value: Any) -> bool:
    return value is None or value in ("", 0, False) or value == [] or value == {}


def _printable(value: Any) -> Any:
    if isinstance(value, Section):
        return print_section(value)
    if isinstance(value, SecretStr):
        return SECRET_TEXT if value.get_secret_value() else ""
    if isinstance(value, Duration | ByteSize):
        return str(value) if value else 0
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, str) and "@" in value and "://" in value:
        return _redacted_url(value)
    return value


def _redacted_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.password is None:
        return value
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:xxxxx@{host}"))


def sections_below(value: Any, path: Path = ()) -> Iterator[tuple[Path, Section]]:
    """Every section in a value with its path, outer ones first."""
    if isinstance(value, Section):
        yield path, value
        for name in type(value).model_fields:
            yield from sections_below(getattr(value, name), (*path, name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from sections_below(item, (*path, index))


def no_null_items(message: str) -> Callable[[Any], Any]:
    """A before-validator that refuses a null item of a list with Prometheus's words for it."""

    def check(value: Any) -> Any:
        if isinstance(value, list) and any(item is None for item in value):
            raise fault(message, next(i for i, item in enumerate(value) if item is None))
        return value

    return check
