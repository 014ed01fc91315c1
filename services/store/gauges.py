"""How much there is to do, as /metrics shows it."""

import sqlalchemy as sa
from prometheus_client import Gauge

from services.store.database import Database
from services.store.schema import runs

STATES = ("waiting", "queued", "scheduled", "running")

_runs = Gauge("natterlog_runs", "Runs that have not ended; waiting: behind another one", ["state"])


async def measure_runs(database: Database) -> None:
    """Set the gauges from the tables, which have an index of what has not ended."""
    counts = await database.read(count_unfinished)
    for state in STATES:
        _runs.labels(state).set(counts.get(state, 0))


def count_unfinished(connection: sa.Connection) -> dict[str, int]:
    """How many runs have not ended, by their state."""
    state = sa.case((runs.c.waiting, "waiting"), else_=runs.c.status).label("state")
    number = sa.func.count().label("number")
    query = sa.select(state, number).where(runs.c.ended_at.is_(None)).group_by(state)
    return {row.state: row.number for row in connection.execute(query)}
