"""Durations and sizes as the configuration file writes them: `1h30m`, `512MB`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_DURATION = re.compile(
    r"(?:(?P<y>\d+)y)?(?:(?P<w>\d+)w)?(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?"
    r"(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?(?:(?P<ms>\d+)ms)?"
)
_UNIT_MS = {
    "y": 365 * 86_400_000,
    "w": 7 * 86_400_000,
    "d": 86_400_000,
    "h": 3_600_000,
    "m": 60_000,
    "s": 1000,
    "ms": 1,
}
_DURATION_MS_LIMIT = (1 << 63) // 1_000_000
"""Prometheus keeps nanoseconds in 64 bits: about 292 years."""

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([KMGTPE]i?B|B)")
_SIZE_UNIT = {"B": 1, **{f"{p}{i}B": 1024 ** (e + 1) for e, p in enumerate("KMGTPE") for i in ("", "i")}}
_SIZE_BYTES_LIMIT = (1 << 63) - 1


class Duration(int):
    """Milliseconds, read from and printed in Prometheus's form (surface 7.1, appendix E 18)."""

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Units y w d h m s ms in that order, each once, whole numbers; `0` alone is allowed.

        Raises ValueError.
        """
        if text == "0":
            return cls(0)
        if text == "":
            raise ValueError("empty duration string")
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(f'not a valid duration string: "{text}"')
        total = sum(int(n) * _UNIT_MS[unit] for unit, n in match.groupdict().items() if n is not None)
        if total >= _DURATION_MS_LIMIT:
            raise ValueError("duration out of range")
        return cls(total)

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return int(self) / 1000

    def __str__(self) -> str:
        rest, parts = int(self), []
        if rest == 0:
            return "0s"
        for unit, size in _UNIT_MS.items():
            # Years and weeks are only used when nothing remains, so 15d does not print as 2w1d.
            if unit in ("y", "w") and rest % size:
                continue
            count, rest = divmod(rest, size)
            if count:
                parts.append(f"{count}{unit}")
        return "".join(parts)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Here, since flags are durations and sizes, too, and are read before anything is configured.
        from pydantic_core import core_schema

        def convert(value: Any) -> Duration:
            if isinstance(value, str):
                return cls.parse(value)
            if isinstance(value, Duration):
                return value
            raise ValueError("a duration is written as a number with a unit, for example 30s")

        return core_schema.no_info_plain_validator_function(convert)


class ByteSize(int):
    """Bytes, read from and printed with a unit on base 2 (`15MB` is 15 x 1024 x 1024)."""

    @classmethod
    def parse(cls, text: str) -> ByteSize:
        """Numbers with the units B, KB..EB or KiB..EiB; `0` alone is allowed. Raises ValueError."""
        if text == "0":
            return cls(0)
        total, at = 0.0, 0
        for match in _SIZE.finditer(text):
            if match.start() != at:
                break
            total += float(match.group(1)) * _SIZE_UNIT[match.group(2)]
            at = match.end()
        if at == 0 or at != len(text):
            raise ValueError(f'units: unknown unit or invalid size in "{text}" (a size needs a unit: 512MB)')
        if total > _SIZE_BYTES_LIMIT:
            raise ValueError(f'size "{text}" exceeds {_SIZE_BYTES_LIMIT} bytes')
        return cls(int(total))

    def __str__(self) -> str:
        rest, parts = int(self), []
        for exponent in range(6, -1, -1):
            count, rest = divmod(rest, 1024**exponent)
            if count:
                parts.append(f"{count}{'KMGTPE'[exponent - 1] + 'iB' if exponent else 'B'}")
        return "".join(parts) or "0B"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema

        def convert(value: Any) -> ByteSize:
            if isinstance(value, str):
                return cls.parse(value)
            if isinstance(value, ByteSize):
                return value
            raise ValueError("a size is written as a number with a unit, for example 512MB")

        return core_schema.no_info_plain_validator_function(convert)
