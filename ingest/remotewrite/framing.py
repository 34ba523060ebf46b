"""What surrounds a remote-write message: media type, encoding, and the snappy block.

Semantics of prometheus-surface.md 5.1. The declared size of a block is checked before any byte is allocated.
"""

from __future__ import annotations

from collections.abc import Collection

import cramjam
import numpy as np

from ingest.remotewrite import v1, v2
from ingest.remotewrite.decoded import U8Array
from ingest.remotewrite.wire import MalformedMessageError, read_varint

MEDIA_TYPE = "application/x-protobuf"
MESSAGES = (v1.MESSAGE, v2.MESSAGE)

_BUFFER_BYTES_INITIAL = 1 << 20


class UnsupportedMediaError(ValueError):
    """A media type, message or encoding that is not accepted (415)."""


class CompressionError(ValueError):
    """A body that is not a snappy block, or one whose content is too large (400)."""


def negotiate(content_type: str, encoding: str, accepted: Collection[str]) -> str:
    """The name of the message a request carries. Raises UnsupportedMediaError in Prometheus's words.

    A missing content type means version 1, a missing encoding means snappy.
    """
    message = _message_of(content_type.strip() or MEDIA_TYPE)
    if message not in accepted:
        only = ", ".join(name for name in MESSAGES if name in accepted)
        raise UnsupportedMediaError(
            f"{message} protobuf message is not accepted by this server; only accepts {only}"
        )
    if encoding and encoding.lower() != "snappy":
        raise UnsupportedMediaError(
            f"{encoding} encoding (compression) is not accepted by this server; only snappy is acceptable"
        )
    return message


def _message_of(content_type: str) -> str:
    media, *parameters = content_type.split(";")
    if media.strip() != MEDIA_TYPE:
        raise UnsupportedMediaError(
            f"expected {MEDIA_TYPE} as the first (media) part, got {content_type} content-type"
        )
    for parameter in parameters:
        name, separator, value = parameter.strip().partition("=")
        if not separator or "=" in value:
            raise UnsupportedMediaError(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be"
                f" key-values, got {parameter} in {content_type} content-type"
            )
        if name == "proto":
            if value not in MESSAGES:
                raise UnsupportedMediaError(
                    f"got {content_type} content type; unknown type for remote write protobuf message"
                    f" {value}, supported: {', '.join(MESSAGES)}"
                )
            return value
    return v1.MESSAGE


class SnappyBuffer:
    """A buffer that holds one decompressed message at a time. One thread only."""

    def __init__(self, decoded_bytes_max: int) -> None:
        self._decoded_bytes_max = decoded_bytes_max
        self.bytes: U8Array = np.empty(min(_BUFFER_BYTES_INITIAL, decoded_bytes_max), dtype=np.uint8)

    def decompress(self, body: bytes | bytearray | memoryview) -> int:
        """Fill the buffer from a snappy block; the decoded length. Raises CompressionError."""
        try:
            declared, _ = read_varint(memoryview(body)[:10], 0, 0)
        except MalformedMessageError:
            raise CompressionError("snappy: corrupt input") from None
        if declared > self._decoded_bytes_max:
            raise CompressionError(
                f"snappy: decoded block is too large: {declared} bytes declared,"
                f" the limit is {self._decoded_bytes_max} bytes"
            )
        if declared > len(self.bytes):
            self.bytes = np.empty(min(2 * declared, self._decoded_bytes_max), dtype=np.uint8)
        try:
            written = int(cramjam.snappy.decompress_raw_into(body, self.bytes.data))
        except cramjam.DecompressionError:
            raise CompressionError("snappy: corrupt input") from None
        if written != declared:
            raise CompressionError("snappy: corrupt input")
        return written
