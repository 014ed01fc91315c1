"""What calls of models came to, in groups: sums over ``api_usage_log``."""

from typing import Any

import sqlalchemy as sa

from services.store import queries
from services.store.applying import read_applied
from services.store.schema import usage_log
from shared.commands import GetUsage, UsagePage
from shared.errors import InvalidRequest
from shared.records import UsageGroup

_COUNTED = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)
_KEYS: dict[str, Any] = {
    "day": sa.func.date(usage_log.c.created_at),
    "model": usage_log.c.model,
    "session": usage_log.c.session_id,
    "stop_reason": usage_log.c.stop_reason,
}
_NOTHING = UsageGroup(
    key=None,
    calls=0,
    input_tokens=0,
    output_tokens=0,
    cache_creation_input_tokens=0,
    cache_read_input_tokens=0,
    cost=None,
    unpriced_calls=0,
    unpriced_tokens=0,
)


def get_usage(connection: sa.Connection, request: GetUsage) -> UsagePage:
    """Sum up a user's calls: days newest first; models and sessions by the latest call."""
    if request.limit < 1 or request.offset < 0:
        raise InvalidRequest("A page begins at the start or later, and has at least one group.")
    mine = _matching(request)
    key = _KEYS[request.group_by].label("key")
    groups = sa.select(key, *_SUMS).where(*mine).group_by(key)
    last = sa.func.max(usage_log.c.created_at).desc()
    page = groups.order_by(last, key).limit(min(request.limit, queries.MAX_PAGE))
    total = sa.select(sa.func.count()).select_from(groups.subquery())
    whole = connection.execute(sa.select(sa.null().label("key"), *_SUMS).where(*mine)).one()
    return UsagePage(
        items=[_group(row) for row in connection.execute(page.offset(request.offset))],
        whole=_group(whole) if whole.calls else _NOTHING,
        total=connection.execute(total).scalar_one(),
        seq=read_applied(connection),
    )


def _matching(request: GetUsage) -> list[sa.ColumnElement[bool]]:
    wanted = [usage_log.c.user_id == request.user_id]
    if request.since is not None:
        wanted.append(usage_log.c.created_at >= request.since)
    if request.until is not None:
        wanted.append(usage_log.c.created_at < request.until)
    return wanted


def _group(row: Any) -> UsageGroup:
    return UsageGroup(**row._mapping)


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(column), 0)


def _sums() -> list[sa.ColumnElement[Any]]:
    columns = [usage_log.c[name] for name in _COUNTED]
    tokens = sum((sa.func.coalesce(column, 0) for column in columns), start=sa.literal(0))
    unpriced = usage_log.c.cost.is_(None)
    return [
        sa.func.count().label("calls"),
        *(_sum(column).label(column.name) for column in columns),
        sa.func.sum(usage_log.c.cost).label("cost"),
        _sum(sa.case((unpriced, 1), else_=0)).label("unpriced_calls"),
        _sum(sa.case((unpriced, tokens), else_=0)).label("unpriced_tokens"),
    ]


_SUMS = _sums()
