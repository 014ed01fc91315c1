"""The native API's account of what calls of models came to (docs/api.md, *Usage*)."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from services.gateway.context import USER, gateway_of
from services.gateway.dialects.assistant import wire
from services.gateway.dialects.assistant.requests import answer, next_cursor
from services.gateway.dialects.assistant.wire import PREFIX
from services.gateway.http.describe import describe
from services.gateway.http.requests import read_query
from shared.commands import GetUsage
from shared.errors import InvalidRequest
from shared.records import UsageGroup

GroupBy = Literal["day", "model", "session", "stop_reason"]
_BILLION = 1_000_000_000
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


Time = Annotated[
    str,
    Meta(extra_json_schema={"anyOf": [{"const": ""}, {"format": "date"}, {"format": "date-time"}]}),
]


class UsageQuery(wire.NumberedWindow, frozen=True, kw_only=True):
    group_by: GroupBy = "day"
    since: Time = msgspec.field(default="", name="from")
    """A day or a time (RFC 3339): calls that ended then or later."""
    until: Time = msgspec.field(default="", name="to")
    """A day or a time: calls that ended before."""


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """One group's sums; it has the one of the keys by which it is grouped."""

    day: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    session_id: str | UnsetType | None = UNSET
    stop_reason: str | UnsetType | None = UNSET
    calls: int
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    cost_usd: float | None
    unpriced_calls: int
    unpriced_tokens: int


class UsageList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[UsageView]
    next_cursor: str | None
    total: int
    totals: UsageView


def routes() -> list[web.RouteDef]:
    return [web.get(f"{PREFIX}/usage", get_usage)]


@describe(query=UsageQuery, answers={200: UsageList})
async def get_usage(request: web.Request) -> web.Response:
    """Sum up what calls of models came to, by day, model, session or stop reason.

    A model without a known price is counted as unpriced, never as free.
    """
    query = read_query(request, UsageQuery)
    page = await gateway_of(request).store.ask(
        GetUsage(
            user_id=request[USER].id,
            group_by=query.group_by,
            since=_time(query.since, "from"),
            until=_time(query.until, "to"),
            limit=query.most,
            offset=query.start,
        )
    )
    return answer(
        UsageList(
            items=[view_of(group, query.group_by) for group in page.items],
            next_cursor=next_cursor(query.start, len(page.items), page.total),
            total=page.total,
            totals=view_of(page.whole, None),
        )
    )


def view_of(group: UsageGroup, group_by: GroupBy | None) -> UsageView:
    return UsageView(
        day=group.key if group_by == "day" else UNSET,
        model=group.key if group_by == "model" else UNSET,
        session_id=group.key if group_by == "session" else UNSET,
        stop_reason=group.key if group_by == "stop_reason" else UNSET,
        calls=group.calls,
        input_tokens=group.input_tokens,
        output_tokens=group.output_tokens,
        cache_creation_input_tokens=group.cache_creation_input_tokens,
        cache_read_input_tokens=group.cache_read_input_tokens,
        cost_usd=None if group.cost is None else group.cost / _BILLION,
        unpriced_calls=group.unpriced_calls,
        unpriced_tokens=group.unpriced_tokens,
    )


def _time(text: str, name: str) -> datetime | None:
    """A time of the query string; a day alone is its beginning, and UTC goes without saying.

    Raises:
        InvalidRequest: it is no time.
    """
    if not text:
        return None
    if _DAY.fullmatch(text):
        text = f"{text}T00:00:00Z"
    try:
        # a plus that nobody escaped comes as a space
        time = msgspec.convert(text.replace(" ", "+"), datetime)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        sentence = "Expected a day (2026-11-20) or a time (2026-11-20T12:00:00Z)."
        raise InvalidRequest(sentence, path=f"$.{name}") from error
