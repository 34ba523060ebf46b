"""Bodies on their way out: compression as the client lists it, whole or streamed.

The first of gzip and deflate in the order of the Accept-Encoding header wins; there is no weighing by q
(prometheus-surface.md 1.1).
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

from aiohttp import web

from web.directsending import direct_socket, send_directly

log = logging.getLogger("vedette.web")

SENT_DIRECTLY = web.ResponseKey("sent_directly", int)
"""Bytes of its body that its writer has not seen."""

COMPRESSION_LEVEL = 1
"""Level 1 packs 150 MB/s of query results 2.6 to 3.6 times smaller, level 6 30 MB/s 2.8 to 4.5 times."""

INLINE_BYTES_MAX = 64 * 1024
"""Bodies up to this size are compressed on the event loop, larger ones in a thread."""

PIECE_BYTES = 256 * 1024
"""What is compressed at a time."""

WHOLE_BYTES_MAX = 512 * 1024
"""Bodies up to this size are made at once and sent with their length, larger ones as a stream."""

SENT_BYTES = 64 * 1024
"""Pieces of a stream have at least this size."""

Piece = bytes | memoryview
"""A part of a body; what a memoryview shows is not written to any more."""

_WINDOW_BITS = {"gzip": 31, "deflate": 15}


def encoding_for(request: web.Request) -> str:
    """The encoding of an answer to a request, empty for none."""
    accept = request.headers.get("Accept-Encoding")
    return choose_encoding(accept) if accept else ""


def choose_encoding(accept: str) -> str:
    """`gzip`, `deflate`, or the empty string for an Accept-Encoding header."""
    for token in accept.split(","):
        name = token.strip()
        if name in _WINDOW_BITS:
            return name
    return ""


def compressed(pieces: Iterator[Piece], encoding: str) -> Iterator[Piece]:
    """The pieces in an encoding; empty pieces are left out."""
    if not encoding:
        yield from pieces
        return
    compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, _WINDOW_BITS[encoding])
    for piece in pieces:
        part = compressor.compress(piece)
        if part:
            yield part
    yield compressor.flush()


def buffered(pieces: Iterator[Piece], size: int) -> Iterator[Piece]:
    """The same bytes in pieces of about `size`, small ones joined."""
    waiting: list[Piece] = []
    held = 0
    for piece in pieces:
        if held and held + len(piece) > size:
            yield waiting[0] if len(waiting) == 1 else b"".join(waiting)
            waiting, held = [], 0
        waiting.append(piece)
        held += len(piece)
    if waiting:
        yield waiting[0] if len(waiting) == 1 else b"".join(waiting)


async def respond(
    request: web.Request, body: bytes, *, status: int = 200, content_type: str = "application/json"
) -> web.Response:
    """A whole body, compressed if the client accepts that."""
    encoding = encoding_for(request)
    headers = {"Content-Type": content_type}
    if encoding:
        headers["Content-Encoding"] = encoding
        if len(body) > INLINE_BYTES_MAX:
            body = await asyncio.to_thread(_whole, body, encoding)
        else:
            body = _whole(body, encoding)
    return web.Response(body=body, status=status, headers=headers)


def _whole(body: bytes, encoding: str) -> bytes:
    return b"".join(compressed(iter((body,)), encoding))


async def _in_threads(pieces: Iterator[Piece], executor: Executor) -> AsyncIterator[Piece]:
    loop = asyncio.get_running_loop()
    while (piece := await loop.run_in_executor(executor, next, pieces, None)) is not None:
        yield piece


@dataclass(frozen=True, slots=True)
class Body:
    """A body whose beginning is made; `rest` makes what is still to come, None for nothing. Where `length` is
    known, none of it is made yet, and each piece of `rest` is overwritten by the next."""

    encoding: str
    first: bytes
    rest: Iterator[Piece] | None = None
    length: int | None = None


def begin_body(pieces: Iterator[Piece], encoding: str) -> Body:
    """Make a body, or the first WHOLE_BYTES_MAX of it. Takes time, so not for the event loop."""
    source = buffered(pieces, PIECE_BYTES)
    if encoding:
        source = compressed(source, encoding)
    made: list[Piece] = []
    size = 0
    for piece in source:
        made.append(piece)
        size += len(piece)
        if size > WHOLE_BYTES_MAX:
            return Body(encoding, b"".join(made), buffered(source, SENT_BYTES))
    return Body(encoding, b"".join(made))


async def respond_begun(request: web.Request, body: Body, executor: Executor) -> web.StreamResponse:
    """Send a JSON body; what is not made yet is made piece by piece in `executor` and streamed.

    The connection is dropped if the client goes away or making a piece fails half-way. A body of known length
    goes out in one, straight to the socket where that can be.
    """
    headers = {"Content-Type": "application/json"}
    if body.encoding:
        headers["Content-Encoding"] = body.encoding
    if body.rest is None:
        return web.Response(body=body.first, headers=headers)
    response = web.StreamResponse(headers=headers)
    if body.length is None:
        response.enable_chunked_encoding()
    else:
        response.content_length = body.length
    await response.prepare(request)
    try:
        await _stream(request, response, body, body.rest, executor)
        await response.write_eof()
    except ConnectionError:
        raise
    except Exception:
        log.exception("a streamed answer failed half-way")
        # The status is already sent; a cut connection is the only way left to say that it is not all.
        if request.transport is not None:
            request.transport.abort()
    return response


async def _stream(
    request: web.Request, response: web.StreamResponse, body: Body, rest: Iterator[Piece], executor: Executor
) -> None:
    if body.length is None:
        await response.write(body.first)
        async for piece in _in_threads(rest, executor):
            await response.write(piece)
        return
    # The first piece, a few bytes, takes the headers with it.
    await response.write(bytes(next(rest)))
    out = direct_socket(request)
    if out is not None:
        response[SENT_DIRECTLY] = body.length
        await send_directly(request, rest, out, executor)
        return
    async for piece in _in_threads(rest, executor):
        await response.write(bytes(piece))
