"""Sections that few files have: neither imported nor compiled before one is there to be checked."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import GetCoreSchemaHandler, TypeAdapter, ValidationInfo
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class ListOf:
    """Makes a field of type `list[...]` a list of the model `name` in `module`.

    The thirty kinds of discovery are most of what a validator of the whole file consists of, and making it
    is most of reading a short file. Errors of items have the places they have with the model in the type.
    """

    module: str
    name: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._validated)

    def _validated(self, value: Any, info: ValidationInfo) -> Any:
        return self._adapter.validate_python(value, context=info.context) if value != [] else []

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        model: Any = getattr(importlib.import_module(self.module), self.name)
        return TypeAdapter(list[model])
