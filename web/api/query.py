"""/query, /query_range, /query_exemplars, /format_query, /parse_query (prometheus-surface.md 1.2)."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web

from promql.ast import Expr
from promql.engineerrors import QueryCancelled
from promql.errors import ParseError
from promql.operators.operator import Explain
from promql.parser import ParserOptions, parse
from promql.quoting import quote
from web.context import AppContext, context_of
from web.envelope import ApiError, ErrorType, bad_data, invalid_parameter, success
from web.evaluation import Turn, as_api_error, client_is_gone, evaluate, evaluate_query, run_blocking
from web.forms import Form, read_form
from web.measured import measured
from web.negotiation import Body, begin_body, encoding_for, respond, respond_begun
from web.parameters import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    RANGE_POINTS_MAX,
    duration_parameter,
    limit_parameter,
    parse_duration_ms,
    required_time,
    time_parameter,
)
from web.querylog import LoggedQuery
from web.render import Answer, answer_pieces, value_text
from web.services import QueryResult
from web.shortqueries import QueryKey

T = TypeVar("T")

PARSED_AT_ONCE_MAX = 4_096
"""Characters of a query that the event loop parses itself: a few milliseconds."""

_STATS_VALUES = ("true", "all")
_DEPRECATED_STATS = (
    'value {} for parameter "stats" is deprecated and will be rejected in the next major release,'
    ' use "true" or "all"'
)


def parser_options(context: AppContext) -> ParserOptions:
    """Which parts of the language the feature flags allow."""
    names = context.services.enabled_features
    return ParserOptions(
        experimental_functions="promql-experimental-functions" in names,
        extended_range_selectors="promql-extended-range-selectors" in names,
        binop_fill_modifiers="promql-binop-fill-modifiers" in names,
    )


def _timeout_s(context: AppContext, form: Form) -> float:
    limit_s = context.services.query_timeout_s
    if not form.get("timeout"):
        return limit_s
    return min(max(duration_parameter(form, "timeout") / 1000, 0.0), limit_s)


def _lookback_ms(form: Form) -> int:
    """The lookback in whole milliseconds; 0 stands for the server's, and so does a negative one."""
    text = form.get("lookback_delta")
    if not text:
        return 0
    try:
        return max(math.ceil(parse_duration_ms(text)), 0)
    except ValueError as error:
        raise bad_data(f"error parsing lookback delta duration: {error}") from None


def _with_queue_time(stats: Any, queue_s: float) -> Any:
    """The engine's statistics with the time the query waited for its turn."""
    if not isinstance(stats, Mapping) or "timings" not in stats:
        return stats
    timings = {**stats["timings"], "execQueueTime": queue_s}
    timings["execTotalTime"] = timings.get("execTotalTime", 0.0) + queue_s
    return {**stats, "timings": timings}


def _wanted_stats(context: AppContext, form: Form) -> str:
    """What the engine is to count: for the client, or for the query log."""
    query_log = context.services.query_log
    return form.get("stats") or ("true" if query_log is not None and query_log.is_open else "")


@dataclass(frozen=True, slots=True)
class _Answered:
    """An evaluated query: the answer, as far as it is made, the statistics for the query log, and the samples
    and cells it had."""

    body: Body
    stats: Any
    work: int


def _answered(
    form: Form, result: QueryResult, turn: Turn, moment: tuple[bool, int, int], encoding: str, pool: Executor
) -> _Answered:
    """Render a result; `moment` is (instant, time_ms, limit)."""
    stats, shown, warnings = _with_queue_time(result.stats, turn.queue_s), None, result.warnings
    wanted = form.get("stats")
    if wanted:
        shown = stats
        if wanted not in _STATS_VALUES:
            warnings = [*warnings, _DEPRECATED_STATS.format(quote(wanted))]
    answer = Answer(result.value, *moment, warnings, result.infos, shown)
    return _Answered(_begun(answer, turn, encoding, pool), stats, result.work)


def _begun(answer: Answer, turn: Turn, encoding: str, pool: Executor) -> Body:
    def check() -> None:
        if turn.cancel[0]:
            raise QueryCancelled("result rendering")

    large = None if encoding else measured(answer, check, pool)
    if large is not None:
        return Body("", b"", large.pieces, large.length)
    return begin_body(answer_pieces(answer), encoding)


async def _send(
    request: web.Request,
    timeout_s: float,
    work: Callable[[Turn], _Answered],
    text: str,
    grid: tuple[int, int, int],
) -> web.StreamResponse:
    """Evaluate and answer, with an entry in the query log whatever comes of it."""
    context, started_s, error, stats = context_of(request), time.monotonic(), "", None
    try:
        start_ms, end_ms, step_ms = grid
        key = QueryKey(text, (end_ms - start_ms) // step_ms if step_ms else -1)
        answered = await evaluate_query(context, request, timeout_s, work, key)
        stats = answered.stats
    except ApiError as refused:
        error = str(refused)
        raise
    finally:
        query_log, took_s = context.services.query_log, time.monotonic() - started_s
        if query_log is not None and query_log.wants(took_s):
            client = request.remote or ""
            entry = LoggedQuery(text, *grid, client, request.method, request.path, took_s, stats, error)
            await asyncio.get_running_loop().run_in_executor(context.pool, query_log.write, entry)
    if client_is_gone(request):
        raise ApiError(ErrorType.CANCELED, "query was canceled in result rendering")
    return await respond_begun(request, answered.body, context.pool)


def _tree(plan: Explain) -> dict[str, Any]:
    root: dict[str, Any] = {}
    pending = [(plan, root)]
    while pending:
        part, node = pending.pop()
        node.update(operator=part.name, details=part.details)
        if part.children:
            below: list[dict[str, Any]] = [{} for _ in part.children]
            node["children"] = below
            pending.extend(zip(part.children, below, strict=True))
    return root


async def _explain(
    request: web.Request, text: str, grid: tuple[int, int, int], lookback_ms: int, timeout_s: float
) -> web.Response:
    """Vedette's `explain=true`: the query is evaluated, and the answer is its plan with figures."""
    context = context_of(request)
    start, end, step = grid

    def work(turn: Turn) -> Explain:
        engine = context.services.engine
        return engine.explain(
            turn.querier,
            text,
            *(start, end, step),
            lookback_ms=lookback_ms,
            timeout_s=turn.left_s,
            analyze=True,
            cancel=turn.cancel,
        )

    plan = await evaluate(context, request, timeout_s, work)
    return await respond(
        request, success({"explain": {"text": "\n".join(plan.lines()), "plan": _tree(plan)}})
    )


async def query(request: web.Request) -> web.StreamResponse:
    """An instant query."""
    context, form = context_of(request), await read_form(request, multipart=True)
    limit = limit_parameter(form)
    time_ms = time_parameter(form, "time", context.now_ms())
    timeout_s, lookback_ms, text = _timeout_s(context, form), _lookback_ms(form), form.get("query")
    if form.get("explain") == "true":
        return await _explain(request, text, (time_ms, time_ms, 0), lookback_ms, timeout_s)

    encoding, stats = encoding_for(request), _wanted_stats(context, form)

    def work(turn: Turn) -> _Answered:
        result = context.services.engine.instant(
            turn.querier,
            text,
            time_ms,
            lookback_ms=lookback_ms,
            timeout_s=turn.left_s,
            stats=stats,
            cancel=turn.cancel,
            at_once=turn.at_once,
        )
        return _answered(form, result, turn, (True, time_ms, limit), encoding, context.pool)

    return await _send(request, timeout_s, work, text, (time_ms, time_ms, 0))


def _range(form: Form) -> tuple[int, int, int]:
    """(start, end, step) in milliseconds, checked in Prometheus's order. Raises ApiError."""
    start, end = required_time(form, "start"), required_time(form, "end")
    if end < start:
        raise invalid_parameter("end", "end timestamp must not be before start time")
    step = int(duration_parameter(form, "step"))
    if step <= 0:
        raise invalid_parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        )
    if (end - start) // step > RANGE_POINTS_MAX:
        raise bad_data(
            f"exceeded maximum resolution of {RANGE_POINTS_MAX:,} points per timeseries."
            " Try decreasing the query resolution (?step=XX)"
        )
    return start, end, step


async def query_range(request: web.Request) -> web.StreamResponse:
    """A range query."""
    context, form = context_of(request), await read_form(request, multipart=True)
    limit = limit_parameter(form)
    start, end, step = _range(form)
    timeout_s, lookback_ms, text = _timeout_s(context, form), _lookback_ms(form), form.get("query")
    if form.get("explain") == "true":
        return await _explain(request, text, (start, end, step), lookback_ms, timeout_s)

    encoding, stats = encoding_for(request), _wanted_stats(context, form)

    def work(turn: Turn) -> _Answered:
        result = context.services.engine.range(
            turn.querier,
            text,
            *(start, end, step),
            lookback_ms=lookback_ms,
            timeout_s=turn.left_s,
            stats=stats,
            cancel=turn.cancel,
            at_once=turn.at_once,
        )
        return _answered(form, result, turn, (False, end, limit), encoding, context.pool)

    return await _send(request, timeout_s, work, text, (start, end, step))


async def _of_query(context: AppContext, form: Form, work: Callable[[Expr], T]) -> T:
    """Parse the query and do something with its tree; in a thread where the text is long. Raises
    ParseError."""
    text, options = form.get("query"), parser_options(context)
    if len(text) <= PARSED_AT_ONCE_MAX:
        return work(parse(text, options))
    in_thread = asyncio.get_running_loop().run_in_executor(context.pool, lambda: work(parse(text, options)))
    return await in_thread


async def query_exemplars(request: web.Request) -> web.StreamResponse:
    """Exemplars of the series an expression selects; 204 when it has no selector."""
    from promql.visit import selectors

    context, form = context_of(request), await read_form(request, multipart=True)
    start = time_parameter(form, "start", MIN_TIME_MS)
    end = time_parameter(form, "end", MAX_TIME_MS)
    if end < start:
        raise bad_data("end timestamp must not be before start timestamp")
    try:
        found = await _of_query(context, form, selectors)
    except ParseError as error:
        raise bad_data(str(error)) from None
    if not found:
        return web.Response(status=204)
    read = getattr(context.database(), "exemplars", None)
    sets = [selector.matchers for selector in found]
    series = await run_blocking(context, lambda: read(sets, start, end)) if read is not None else []
    data = [
        {
            "seriesLabels": item.labels,
            "exemplars": [
                {"labels": e.labels, "value": value_text(e.value), "timestamp": _seconds(e.t_ms)}
                for e in item.exemplars
            ],
        }
        for item in series
    ]
    return await respond(request, success(data))


def _seconds(t_ms: int) -> float | int:
    return t_ms // 1000 if t_ms % 1000 == 0 else t_ms / 1000


async def format_query(request: web.Request) -> web.Response:
    """The expression, laid out over lines."""
    from promql.printer import FormatError, pretty

    context, form = context_of(request), await read_form(request, multipart=True)
    try:
        answer = await _of_query(context, form, lambda tree: success(pretty(tree)))
    except ParseError as error:
        raise as_api_error(error) from None
    except FormatError as error:
        raise invalid_parameter("query", error) from None
    return await respond(request, answer)


async def parse_query(request: web.Request) -> web.Response:
    """The expression's tree."""
    from promql.treejson import to_json

    context, form = context_of(request), await read_form(request, multipart=True)
    try:
        answer = await _of_query(context, form, lambda tree: success(to_json(tree)))
    except ParseError as error:
        raise as_api_error(error) from None
    return await respond(request, answer)
