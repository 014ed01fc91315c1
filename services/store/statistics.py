"""What a user has and what it took, counted from the tables."""

from typing import Any

import sqlalchemy as sa

from services.store.applying import read_applied
from services.store.schema import messages, sessions, usage_log
from shared.commands import GetStatistics, StatisticsAnswer
from shared.records import HIDDEN_MODES, ModelStatistics, Statistics


def get_statistics(connection: sa.Connection, request: GetStatistics) -> StatisticsAnswer:
    user = {"user": request.user_id}
    have = connection.execute(_SESSIONS, user).one()
    took = connection.execute(_USAGE, user).one()
    by_model = connection.execute(_USAGE_BY_MODEL, user)
    return StatisticsAnswer(
        statistics=Statistics(
            sessions=have.sessions,
            active_sessions=have.active or 0,
            messages=connection.execute(_MESSAGES, user).scalar_one(),
            tokens_in=took.tokens_in or 0,
            tokens_out=took.tokens_out or 0,
            cost_usd=_dollars(took.cost),
            average_latency_ms=_rounded(took.latency_ms),
            by_model=[_of_model(row) for row in by_model],
        ),
        seq=read_applied(connection),
    )


def _of_model(row: Any) -> ModelStatistics:
    return ModelStatistics(
        model=row.model,
        replies=row.replies,
        tokens_in=row.tokens_in or 0,
        tokens_out=row.tokens_out or 0,
        cost_usd=_dollars(row.cost),
        average_latency_ms=_rounded(row.latency_ms),
    )


def _dollars(billionths: int | None) -> float | None:
    return None if billionths is None else billionths / 10**9


def _rounded(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds)


_OWN = [sessions.c.user_id == sa.bindparam("user"), sessions.c.mode.not_in(HIDDEN_MODES)]
_SESSIONS = sa.select(
    sa.func.count().label("sessions"),
    sa.func.sum(sa.case((sessions.c.status == "active", 1), else_=0)).label("active"),
).where(*_OWN)
_MESSAGES = (
    sa.select(sa.func.count())
    .select_from(messages)
    .join(sessions, sessions.c.id == messages.c.session_id)
    .where(*_OWN)
)

_usage = usage_log.c
_TOKENS_IN = [
    sa.func.coalesce(column, 0)
    for column in (
        _usage.input_tokens,
        _usage.cache_creation_input_tokens,
        _usage.cache_read_input_tokens,
    )
]
_SUMS = (
    sa.func.count().label("replies"),
    sa.func.sum(_TOKENS_IN[0] + _TOKENS_IN[1] + _TOKENS_IN[2]).label("tokens_in"),
    sa.func.sum(_usage.output_tokens).label("tokens_out"),
    sa.func.sum(_usage.cost).label("cost"),  # null where nothing was priced
    sa.func.avg(sa.case((_usage.status == "completed", _usage.latency_ms))).label("latency_ms"),
)
_USAGE = sa.select(*_SUMS).where(_usage.user_id == sa.bindparam("user"))
_USAGE_BY_MODEL = (
    sa.select(_usage.model, *_SUMS)
    .where(_usage.user_id == sa.bindparam("user"))
    .group_by(_usage.model)
    .order_by(sa.desc("replies"), _usage.model)
)
