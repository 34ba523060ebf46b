"""Evaluating one query for one client: a turn in the queue, a thread, a timeout, and a way to stop.

A query whose client goes away is told so within CLIENT_POLL_S by its cancel flag.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from aiohttp import web

from promql.budget import CancelFlag, new_cancel_flag
from promql.engineerrors import (
    ExecutionError,
    PreparationError,
    QueryCancelled,
    QueryTimeout,
    StorageReadError,
)
from promql.errors import ParseError
from tsdb.errors import NotAtOnceError, StorageError
from tsdb.labels import Matcher
from tsdb.select import Querier, labels_at_once_of
from web.context import AppContext
from web.envelope import ApiError, ErrorType, invalid_parameter
from web.shortqueries import QueryKey, Stopwatch

log = logging.getLogger("vedette.web")

CLIENT_POLL_S = 0.01
"""How often a running query looks whether its client is still there: a microsecond each time, and a tenth of
the 100 ms within which it ends."""

WAITING_QUERIES_MAX = 1024
"""Queries in the queue; more are refused at once."""

_QUEUE = "query queue"

T = TypeVar("T")
E = TypeVar("E", bound="Evaluated")


@dataclass(frozen=True, slots=True)
class Turn:
    """What a query is given when its turn has come: a view of the store, the seconds it has left, those it
    has waited, the flag that stops it, and the work it may do at once if its thread must not wait."""

    querier: Querier
    left_s: float
    queue_s: float
    cancel: CancelFlag
    at_once: int = 0


class Evaluated(Protocol):
    """What is known of an evaluated query."""

    @property
    def work(self) -> int:
        """Samples and cells its selectors announced, or rows of labels."""
        ...


class _ClientWatch:
    """Sets a cancel flag when the client of a request goes away. Loop thread only."""

    def __init__(self, request: web.Request, cancel: CancelFlag) -> None:
        self._request = request
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(CLIENT_POLL_S, self._look)

    def _look(self) -> None:
        if client_is_gone(self._request):
            self._cancel[0] = 1
        else:
            self._timer = self._loop.call_later(CLIENT_POLL_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()


def client_is_gone(request: web.Request) -> bool:
    """Whether the connection of a request is closed."""
    transport = request.transport
    return transport is None or transport.is_closing()


def as_api_error(error: Exception) -> ApiError:
    """The answer to an error of parsing, evaluation, or the store."""
    match error:
        case ApiError():
            return error
        case ParseError() | PreparationError():
            return invalid_parameter("query", error)
        case QueryTimeout():
            return ApiError(ErrorType.TIMEOUT, str(error))
        case QueryCancelled():
            return ApiError(ErrorType.CANCELED, str(error))
        case ExecutionError():
            return ApiError(ErrorType.EXECUTION, str(error))
        case StorageReadError() | StorageError():
            return ApiError(ErrorType.INTERNAL, str(error))
    log.error("unexpected error while serving a request", exc_info=error)
    return ApiError(ErrorType.INTERNAL, f"{type(error).__name__}: {error}")


async def run_blocking(context: AppContext, work: Callable[[], T]) -> T:
    """Run a reader of the store in a thread. Raises ApiError."""
    try:
        return await asyncio.get_running_loop().run_in_executor(context.pool, work)
    except Exception as error:
        raise as_api_error(error) from error


async def with_querier(context: AppContext, work: Callable[[Querier], T]) -> T:
    """Run a reader of one consistent view in a thread; the view is closed afterwards. Raises ApiError."""

    def read() -> T:
        querier = context.querier()
        try:
            return work(querier)
        finally:
            querier.close()

    return await run_blocking(context, read)


async def with_labels(
    context: AppContext,
    matcher_sets: Sequence[Sequence[Matcher]],
    work: Callable[[Querier], E],
    key: QueryKey,
) -> E:
    """As `with_querier`, for a reader of labels by these sets; one that is known to be short is run by the
    event loop. Raises ApiError."""
    short, took_s = context.short_queries, 0.0
    limit = short.limit(key)

    def read(querier: Querier) -> E:
        labels_at_once = labels_at_once_of(querier)
        if labels_at_once is None:
            raise NotAtOnceError("the store has no such way")
        with labels_at_once(matcher_sets, limit):
            return work(querier)

    if limit:
        found = _at_once(context, key, read)
        if found is not None:
            return found

    def timed(querier: Querier) -> E:
        nonlocal took_s
        watch = Stopwatch()
        result = work(querier)
        took_s = watch.seconds()
        return result

    answered = await with_querier(context, timed)
    short.learn(key, took_s, answered.work)
    return answered


async def _take_slot(context: AppContext, request: web.Request, deadline_s: float) -> None:
    if context.slots.locked() and context.waiting_queries >= WAITING_QUERIES_MAX:
        text = f"{context.waiting_queries} queries are waiting, the limit is {WAITING_QUERIES_MAX}"
        raise ApiError(ErrorType.TIMEOUT, text)
    if not context.slots.locked():
        await context.slots.acquire()
        return
    context.waiting_queries += 1
    taking = asyncio.ensure_future(context.slots.acquire())
    try:
        while not taking.done():
            await asyncio.wait({taking}, timeout=CLIENT_POLL_S)
            if taking.done():
                break
            if client_is_gone(request):
                raise as_api_error(QueryCancelled(_QUEUE))
            if time.monotonic() > deadline_s:
                raise as_api_error(QueryTimeout(_QUEUE))
    except BaseException:
        if not taking.cancel() and not taking.cancelled():
            context.slots.release()
        raise
    finally:
        context.waiting_queries -= 1


async def evaluate(
    context: AppContext, request: web.Request, timeout_s: float, work: Callable[[Turn], T]
) -> T:
    """Wait for a turn, then call `work` in a thread. Raises ApiError.

    The turn ends with the evaluation, or, when the client goes away, as soon as the engine has noticed.
    """
    arrived_s = time.monotonic()
    deadline_s = arrived_s + timeout_s
    await _take_slot(context, request, deadline_s)
    queue_s = time.monotonic() - arrived_s
    context.services.engine.observe_queue_s(queue_s)
    cancel = new_cancel_flag()

    def read() -> T:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise QueryTimeout("query execution")
        querier = context.querier()
        try:
            return work(Turn(querier, left_s, queue_s, cancel))
        finally:
            querier.close()

    running = asyncio.get_running_loop().run_in_executor(context.pool, read)
    running.add_done_callback(lambda _: context.slots.release())
    watch = _ClientWatch(request, cancel)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancel[0] = 1
        raise
    except Exception as error:
        raise as_api_error(error) from error
    finally:
        watch.stop()


async def evaluate_query(
    context: AppContext, request: web.Request, timeout_s: float, work: Callable[[Turn], E], key: QueryKey
) -> E:
    """As `evaluate`; a query that is known to be short is evaluated by the event loop. Raises ApiError."""
    short, took_s = context.short_queries, 0.0
    limit = 0 if context.slots.locked() or timeout_s <= 0 else short.limit(key)
    if limit:
        found = _at_once(context, key, lambda q: work(Turn(q, timeout_s, 0.0, new_cancel_flag(), limit)))
        if found is not None:
            context.services.engine.observe_queue_s(0.0)
            return found

    def timed(turn: Turn) -> E:
        nonlocal took_s
        watch = Stopwatch()
        result = work(turn)
        took_s = watch.seconds()
        return result

    answered = await evaluate(context, request, timeout_s, timed)
    short.learn(key, took_s, answered.work)
    return answered


def _at_once(context: AppContext, key: QueryKey, work: Callable[[Querier], E]) -> E | None:
    """Do it here and now, or None where that would have taken long."""
    short, watch = context.short_queries, Stopwatch()
    short.forget(key)
    querier = context.querier()
    try:
        found = work(querier)
    except NotAtOnceError:
        context.metrics.short_queries_refused.inc()
        return None
    except Exception as error:
        raise as_api_error(error) from error
    finally:
        querier.close()
    context.metrics.short_queries.inc()
    short.learn(key, watch.seconds(), found.work)
    return found
