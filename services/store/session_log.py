"""A session's log as commands write it: decide on its state, append, decide again if need be.

The state is what memory knows (:mod:`services.store.memory`); whether it knew enough, the
server says at the append.
"""

from collections.abc import Awaitable, Callable
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import sqlalchemy as sa

from services.store import queries
from services.store.chains import Chains
from services.store.database import Database
from services.store.memory import HotSession, Memory
from services.store.rows import MessageRow, RunRow, SessionRow
from services.store.watermark import Watermark
from shared import ids
from shared.events import AnyFact, CancelRequested
from shared.subjects import Address, Scope

P = ParamSpec("P")
T = TypeVar("T")


class SessionState(NamedTuple):
    """A session as of one of its facts, and what is unfinished in it."""

    session: SessionRow
    unfinished: list[RunRow]
    """In the order in which they go; only the first can be active."""


class SessionLog:
    """The log of every session, for whoever decides on one."""

    def __init__(
        self, chains: Chains, memory: Memory, database: Database, applied: Watermark
    ) -> None:
        self._chains = chains
        self._memory = memory
        self._database = database
        self._applied = applied

    async def decide(
        self,
        user: str,
        session_id: str,
        attempt: Callable[[SessionState], Awaitable[T]],
        *,
        importing: bool = False,
    ) -> T:
        """What ``attempt`` answers, given the session's state, once nothing came in between.

        One decision at a time: others on the session wait for it.

        Raises:
            NotFound: the session is not there, or not this user's.
            Unavailable: in each of many rounds another fact came first.
        """

        async def on_state() -> T:
            return await attempt(await self.state(user, session_id, importing=importing))

        return await self._chains.decide(session_id, on_state, where="in this session")

    async def state(self, user: str, session_id: str, *, importing: bool = False) -> SessionState:
        """The session as far as memory knows it.

        Raises:
            NotFound: as for :meth:`decide`.
        """
        hot = await self.hot(user, session_id, importing=importing)
        return SessionState(hot.session(), hot.unfinished())

    async def hot(
        self, user: str, session_id: str, *, min_seq: int = 0, importing: bool = False
    ) -> HotSession:
        """The session in memory.

        Raises:
            NotFound: as for :meth:`decide`.
        """
        need_there(session_id, "session")
        return await self._memory.session(user, session_id, min_seq=min_seq, importing=importing)

    async def append(self, address: Address, fact: AnyFact, last_seq: int) -> int:
        """Append a fact that nothing of the session may come before; answers its sequence.

        Raises:
            Overtaken: the session went on since ``last_seq``.
            NoAnswer: it is not known whether it was stored.
        """
        return await self._chains.append(address, fact, expected=last_seq)

    async def cancel(self, address: Address, reason: str) -> None:
        """Put a cancel on the run's chain, unless there is one or it has ended."""

        async def attempt() -> None:
            run = await self.run(address)
            if run.ended_at is None and not run.cancelled:
                fact = CancelRequested(at=ids.now(), reason=reason)
                await self._chains.append(address, fact, expected=run.last_seq, scope=Scope.RUN)

        await self._chains.decide(f"run {address.run}", attempt, where="in this session")

    async def run(self, address: Address) -> RunRow:
        """A run of the user's, from memory or, when it is older, from the tables.

        Raises:
            NotFound: it is not there, or its session is not.
        """
        hot = await self.hot(address.user, address.session)
        found = hot.run(address.run)
        if found is None:
            found = await self.read_at(hot.seq, queries.find_run, address.user, address.run)
        return found

    async def check_latest(self, address: Address, last_seq: int) -> None:
        """Make sure that the session's last known fact is its last one.

        Raises:
            Overtaken: a newer one is there; decide again.
        """
        await self._chains.check_latest(address, last_seq)

    async def message(self, user_id: str, message_id: str) -> MessageRow:
        """A message of the user's, of whatever session.

        Raises:
            NotFound: there is none.
        """
        need_there(message_id, "message")
        return await self._database.read(queries.find_message, user_id, message_id)

    async def read(
        self,
        query: Callable[Concatenate[sa.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What ``query`` finds in the tables once they have all that this store knows of."""
        return await self.read_at(self._applied.known, query, *args, **kwargs)

    async def read_at(
        self,
        seq: int,
        query: Callable[Concatenate[sa.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """What ``query`` finds in the tables once they have the fact ``seq``."""
        await self._applied.wait_for(seq)
        return await self._database.read(query, *args, **kwargs)


def need_there(text: str, what: str) -> None:
    """What is no id names nothing, and must not get into a subject.

    Raises:
        NotFound: it is no id.
    """
    if not ids.is_id(text):
        raise queries.not_found(what)
