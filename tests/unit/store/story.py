"""Facts told one after another into tables in memory, for tests of what comes of them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa

from services.store.applying import apply
from services.store.context import get_context
from services.store.empty_tables import empty_tables
from services.store.schema import metadata
from shared import ids
from shared.commands import Context, GetContext
from shared.events import (
    AnyFact,
    BranchChosen,
    CancelRequested,
    Continued,
    EndStatus,
    MessageRated,
    Rating,
    RunClaimed,
    RunEnded,
    RunWaiting,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
    TodoChat,
    Turn,
    Usage,
)
from shared.log_entry import LogEntry
from shared.subjects import Address, session_address

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
USER = "01900000-0000-7000-8000-00000000000a"
T = TypeVar("T")


class Story:
    """One user's session; each method tells one fact and answers its sequence."""

    def __init__(self, connection: sa.Connection, *, on_busy: Any = "queue") -> None:
        self.connection = connection
        self.session = ids.new_id()
        self.links: list[LogEntry] = []
        self._turns: dict[str, Turn] = {}
        self.tell(
            session_address(USER, self.session).fact("session.created"),
            SessionCreated(
                at=self.now,
                title=None,
                mode="general",
                model="demo",
                temperature=0.5,
                max_tokens=None,
                system_prompt="Be kind.",
                context_tags=["a"],
                on_busy=on_busy,
            ),
        )

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=len(self.links))

    def tell(self, subject: str, fact: AnyFact) -> int:
        link = LogEntry.of(len(self.links) + 1, subject, fact)
        self.links.append(link)
        apply(self.connection, [link], link.seq)
        return link.seq

    def address(self, run: str) -> Address:
        return Address(USER, self.session, run)

    def turn(self, content: str | None, **fields: Any) -> Turn:
        known: dict[str, Any] = {
            "user_message_id": ids.new_id(),
            "assistant_message_id": ids.new_id(),
            **fields,
        }
        return Turn(content=content, **known)

    def todo(self, content: str | None, **fields: Any) -> str:
        """A turn that goes at once; answers its run."""
        run, turn = ids.new_id(), self.turn(content, **fields)
        self._turns[run] = turn
        self.tell(self.address(run).todo_chat(0), TodoChat(at=self.now, n=0, turn=turn))
        return run

    def wait(self, content: str | None, **fields: Any) -> str:
        run, turn = ids.new_id(), self.turn(content, **fields)
        self._turns[run] = turn
        self.tell(self.address(run).fact("waiting"), RunWaiting(at=self.now, turn=turn))
        return run

    def go_on(self, first: str, before: str, *, waits: bool = False, **fields: Any) -> str:
        """The reply of a run goes on from the text that it has; answers the new run."""
        old = self._turns[first]
        turn = {
            "user_message_id": old.user_message_id,
            "assistant_message_id": old.assistant_message_id,
            "continues": Continued(length=len(before), tokens=5, created_at=self.now),
        }
        return (self.wait if waits else self.todo)(None, **(turn | fields))

    def context(self, run: str) -> Context:
        """What the worker with the run's todo gets to write its reply from."""
        request = GetContext(user_id=USER, session_id=self.session, turn=self._turns[run])
        return get_context(self.connection, request)

    def dispatch(self, run: str, parent: str | None) -> None:
        turn = self._turns[run] = Turn(**{**_fields(self._turns[run]), "parent_id": parent})
        self.tell(self.address(run).todo_chat(0), TodoChat(at=self.now, n=0, turn=turn))

    def claim(self, run: str) -> int:
        claim = RunClaimed(at=self.now, worker="w", todo=1, prompt=None)
        return self.tell(self.address(run).fact("claim"), claim)

    def cancel(self, run: str) -> int:
        return self.tell(self.address(run).fact("cancel"), CancelRequested(at=self.now))

    def end(
        self,
        run: str,
        text: str = "",
        status: EndStatus = "completed",
        *,
        attempt: int = 1,
        **fields: Any,
    ) -> int:
        final = RunEnded(
            at=self.now,
            status=status,
            attempt=attempt,
            text=text,
            length=len(text),
            sha256="0" * 64,
            **{
                "model": "demo",
                "provider": "demo",
                "usage": Usage(input_tokens=3, output_tokens=5),
                "latency_ms": 120,
                **fields,
            },
        )
        return self.tell(self.address(run).fact("final"), final)

    def reply(self, content: str, text: str, *, parent: str | None = None) -> str:
        """A whole turn; answers its run."""
        run = self.todo(content, parent_id=parent)
        self.end(run, text, attempt=self.claim(run))
        return run

    def update(self, **fields: Any) -> int:
        subject = session_address(USER, self.session).fact("session.updated")
        return self.tell(subject, SessionUpdated(at=self.now, **fields))

    def choose(self, leaf: str) -> int:
        subject = session_address(USER, self.session).fact("session.branch")
        return self.tell(subject, BranchChosen(at=self.now, leaf=leaf))

    def rate(self, message: str, rating: Rating | None, comment: str | None = None) -> int:
        subject = session_address(USER, self.session).fact("message.feedback")
        fact = MessageRated(at=self.now, message_id=message, rating=rating, comment=comment)
        return self.tell(subject, fact)

    def delete(self) -> int:
        subject = session_address(USER, self.session).fact("session.deleted")
        return self.tell(subject, SessionDeleted(at=self.now))

    @property
    def runs(self) -> list[str]:
        """The runs of all turns, in the order in which they were told."""
        return list(self._turns)

    def asked(self, run: str) -> str:
        return self._turns[run].user_message_id

    def answered(self, run: str) -> str:
        return self._turns[run].assistant_message_id


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


def _fields(turn: Turn) -> dict[str, Any]:
    return {name: getattr(turn, name) for name in turn.__struct_fields__}
