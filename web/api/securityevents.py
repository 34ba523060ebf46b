"""/security/events: events of the log, newest first, or as they come (docs/security-events.md)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import orjson
from aiohttp import web

from security.eventlog.query import LIMIT_DEFAULT, LIMIT_MAX, TEXT_CHARS_LIMIT, TIME_MAX_NS, EventQuery
from security.feed import Subscription, TooManySubscribersError
from security.output import OutputOptions
from security.record import EventRecord
from security.services import SecurityServices
from web.context import context_of
from web.envelope import SUCCESS_START, ApiError, ErrorType, invalid_parameter, success_end
from web.evaluation import client_is_gone
from web.forms import Form, read_form
from web.negotiation import respond
from web.parameters import (
    MAX_TIME_MS,
    MIN_TIME_MS,
    boolean_parameter,
    limit_parameter,
    parse_matcher_sets,
    time_parameter,
)

HEARTBEAT_S = 15.0
"""Between comments on a quiet stream, so that proxies keep it open."""
_CLIENT_POLL_S = 1.0


async def events(request: web.Request) -> web.StreamResponse:
    """Events by selectors, time and text; with `follow` a stream of server-sent events."""
    services = security_of(request)
    form = await read_form(request)
    query = parse_query(form)
    if boolean_parameter(form, "follow"):
        return await _follow(request, services, query)
    body = await asyncio.to_thread(_answer, services, query)
    return await respond(request, body)


def security_of(request: web.Request) -> SecurityServices:
    """The security parts. Raises ApiError where the server runs without them."""
    services = context_of(request).services.security
    if services is None:
        raise ApiError(ErrorType.UNAVAILABLE, "security is not available")
    return services


def parse_query(form: Form) -> EventQuery:
    """The query of a request. Raises ApiError."""
    text = form.get("text")
    if len(text) > TEXT_CHARS_LIMIT:
        raise invalid_parameter("text", f"{len(text)} characters are more than {TEXT_CHARS_LIMIT}")
    limit = limit_parameter(form) if form.get("limit") else LIMIT_DEFAULT
    if limit > LIMIT_MAX:
        raise invalid_parameter("limit", f"{limit} is more than {LIMIT_MAX}")
    start_ms = time_parameter(form, "start", MIN_TIME_MS)
    end_ms = time_parameter(form, "end", MAX_TIME_MS)
    if end_ms < start_ms:
        raise invalid_parameter("end", "end timestamp must not be before start time")
    return EventQuery(
        matcher_sets=parse_matcher_sets(form.all("match[]"), selective=False),
        start_ns=max(start_ms * 1_000_000, 0),
        end_ns=min(end_ms * 1_000_000 + 999_999, TIME_MAX_NS),
        text=text,
        limit=limit,
    )


def _answer(services: SecurityServices, query: EventQuery) -> bytes:
    found = services.log.select(query)
    infos = [f"results truncated due to limit {query.limit}"] if len(found) >= query.limit > 0 else []
    data = b",".join(event_json(record, services.output_options) for _, record in found)
    return SUCCESS_START + b"[" + data + b"]" + success_end(infos=infos)


def event_json(record: EventRecord, options: OutputOptions) -> bytes:
    """Falco's JSON object of an event, complete, with the labels of its series."""
    event = record.output.as_json(options)
    event |= {
        "hostname": record.hostname,
        "message": record.output.message,
        "tags": record.output.tags,
        "labels": dict(record.labels),
    }
    event.setdefault("output_fields", dict(record.output.fields))
    return orjson.dumps(event, option=orjson.OPT_SORT_KEYS)


async def _follow(request: web.Request, services: SecurityServices, query: EventQuery) -> web.StreamResponse:
    woken, loop = asyncio.Event(), asyncio.get_running_loop()

    def wake() -> None:
        loop.call_soon_threadsafe(woken.set)

    live = EventQuery(query.matcher_sets, query.start_ns, text=query.text)
    try:
        subscription = services.feed.subscribe(live, wake)
    except TooManySubscribersError as error:
        raise ApiError(ErrorType.UNAVAILABLE, str(error)) from None
    try:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        past, text = await asyncio.to_thread(_past, services, query) if query.limit else ([], b"")
        await response.write(b": follows\n\n" + text)
        await _stream(request, response, services, subscription, woken, past)
        return response
    finally:
        services.feed.unsubscribe(subscription)


def _past(services: SecurityServices, query: EventQuery) -> tuple[list[EventRecord], bytes]:
    """What the log holds already, in order of time, and its messages."""
    past = [record for _, record in reversed(services.log.select(query))]
    return past, _messages(past, services.output_options)


async def _stream(
    request: web.Request,
    response: web.StreamResponse,
    services: SecurityServices,
    subscription: Subscription,
    woken: asyncio.Event,
    past: Sequence[EventRecord],
) -> None:
    """Send what comes until the client or the server goes."""
    stopping = context_of(request).stopping
    # An event that came while the log was read may be in both.
    sent: dict[int, list[EventRecord]] = defaultdict(list)
    for record in past:
        sent[record.output.time_ns].append(record)
    loop = asyncio.get_running_loop()
    last = loop.time()
    while not stopping.is_set() and not client_is_gone(request):
        try:
            await asyncio.wait_for(woken.wait(), _CLIENT_POLL_S)
        except TimeoutError:
            if loop.time() - last >= HEARTBEAT_S:
                last = loop.time()
                await response.write(b": quiet\n\n")
            continue
        woken.clear()
        records, dropped = subscription.take()
        if sent:
            records = [record for record in records if record not in sent[record.output.time_ns]]
            sent.clear()
        text = b'event: lost\ndata: {"dropped":%d}\n\n' % dropped if dropped else b""
        await response.write(text + _messages(records, services.output_options))
        last = loop.time()


def _messages(records: Sequence[EventRecord], options: OutputOptions) -> bytes:
    return b"".join(b"data: " + event_json(record, options) + b"\n\n" for record in records)
