"""A scripted log whose facts go into tables in memory, for tests of what comes of them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa

from services.store.applying import apply
from services.store.context import get_context
from services.store.empty_tables import empty_tables
from services.store.memory import HotSession
from services.store.schema import metadata
from services.store.session_rows import session_rows
from shared.commands import Context, GetContext
from shared.events import AnyFact, EndStatus, Usage
from shared.ids import new_id
from shared.subjects import Address
from tests.support.scripted_log import USER, ScriptedLog


class ProjectedLog(ScriptedLog):
    """Each fact is applied as soon as it is appended; a second passes until the next."""

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(new_id(), pace=1000)
        self.connection = connection

    def append_at(self, address: Address, fact: AnyFact) -> int:
        seq = super().append_at(address, fact)
        apply(self.connection, self.entries[-1:], seq)
        return seq


class Story(ProjectedLog):
    """A session that was just opened."""

    def __init__(self, connection: sa.Connection) -> None:
        super().__init__(connection)
        self.opens()

    def ends(
        self,
        run: str,
        text: str | None = None,
        status: EndStatus = "completed",
        *,
        attempt: int | None = None,
        **fields: Any,
    ) -> int:
        """The final of a run whose provider said what it took."""
        known = {
            "model": "demo",
            "provider": "demo",
            "usage": Usage(input_tokens=3, output_tokens=5),
            "latency_ms": 120,
        }
        return super().ends(run, text, status, attempt=attempt, **(known | fields))

    def hot(self) -> HotSession:
        """The session as memory has it once it is read from the tables."""
        return HotSession(session_rows(self.connection, self.session), self.session, 0)

    def context(self, run: str) -> Context:
        """What the worker with the run's todo gets to write its reply from."""
        request = GetContext(user_id=USER, session_id=self.session, turn=self.turn(run))
        return get_context(self.connection, request)


@contextmanager
def tables() -> Iterator[sa.Connection]:
    """Empty tables in memory, in one transaction."""
    with closing(empty_tables()) as connection, connection.begin():
        yield connection


def dump(connection: sa.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, in a fixed order."""
    return {
        table.name: sorted(
            (tuple(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table.name}")),
            key=repr,
        )
        for table in metadata.sorted_tables
    }
