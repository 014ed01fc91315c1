"""The table of what a gateway reacts to is what it dispatches with, and what it listens to."""

from collections.abc import Callable
from typing import Any, get_args

import pytest

from services.gateway.access.accounts import Accounts
from services.gateway.dialects.channels.socket import CHANGES, ListedSessions
from services.gateway.handlers import FACTS, SUBSCRIPTIONS, TOKEN_EVENTS
from services.gateway.jobs.feed import JobFeed
from services.gateway.jobs.state import JobState
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.follower import Follower
from services.gateway.sessions.hub import Hub
from services.gateway.sessions.state import SessionState
from shared import events
from shared.settings import Settings


def reacting(with_: object) -> dict[type[events.Fact], Callable[..., Any]]:
    """The facts that a class reacts to, and with which of its functions."""
    return {
        kind: reaction
        for kind, reactions in FACTS.items()
        for reaction in reactions
        if reaction in vars(with_).values()
    }


@pytest.mark.parametrize("reader", [SessionState, Follower, Accounts])
def test_a_reader_dispatches_with_its_part_of_the_table(reader: Any):
    assert reacting(reader) == reader.FACTS


def test_the_list_of_sessions_changes_with_its_part_of_the_table():
    assert set(reacting(ListedSessions)) == set(CHANGES)


def test_a_job_is_made_of_every_fact_of_a_run_but_a_conversations():
    conversations = {events.RunWaiting, events.TodoChat}

    assert set(reacting(JobState)) == set(get_args(events.RunFact)) - conversations
    assert set(reacting(JobFeed)) == {events.SessionDeleted}


def test_every_event_of_an_attempt_is_merged():
    assert set(TOKEN_EVENTS) == set(get_args(events.AnyTokenEvent))


class Listeners:
    """Plays a bus on which nothing happens, and a store that answers nothing."""

    connected = True

    def __init__(self) -> None:
        self.heard: dict[str, Callable[..., Any]] = {}

    async def listen(self, subject: str, callback: Any) -> Any:
        self.heard[subject] = callback.__func__
        return self

    listen_live = listen

    async def close(self) -> None: ...

    async def head(self, stream: str, subject: str) -> None: ...

    async def api(self, subject: str) -> Any:
        return {"state": {"last_seq": 0}}

    def on_reconnect(self, callback: object) -> None: ...

    async def ask(self, question: object) -> Any:
        raise Stopped


class Stopped(Exception):
    """Whoever opens a feed has subscribed by now."""


async def test_it_listens_to_what_the_table_says():
    bus: Any = Listeners()
    async with Accounts(Settings(), bus, bus), Hub(bus, bus) as hub:
        for feed in (Feed(bus, bus, "{user}", "{session}"), JobFeed(hub, bus, bus, "{user}")):
            with pytest.raises(Stopped):
                await feed.open()
            await feed.close()

    assert bus.heard == SUBSCRIPTIONS
