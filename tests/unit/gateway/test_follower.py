"""Whatever is lost, doubled or late on the way, a client's text is one attempt's, and whole."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.sessions.client_events import (
    ClientEvent,
    ReplyDue,
    ReplyEnded,
    ReplyReset,
    TextAdded,
    TurnAccepted,
)
from services.gateway.sessions.cursor import NOTHING_SEEN, Cursor, CursorCodec
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.follower import Follower
from shared.bus import Stored
from tests.unit.gateway.served_log import ServedLog, an_open_session, feed_of, live

CURSORS = CursorCodec("epoch")


@dataclass
class Client:
    """Puts a reply together from what it is shown, as a front end would."""

    log: ServedLog
    feed: Feed
    cursor: Cursor = NOTHING_SEEN
    text: str = ""
    kinds: list[type[Any]] = field(default_factory=list)
    final: str | None = None

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        """Come back with nothing but the last cursor."""
        cursor = CURSORS.parse(CURSORS.format(self.cursor))
        assert cursor is not None
        assert self.feed.state.has(cursor) or cursor == NOTHING_SEEN
        self._follower = Follower(self.feed, cursor)

    async def read(self) -> None:
        while events := await self._follower.next_events():
            for cursor, event in events:
                self.show(cursor, event)

    def read_text(self) -> None:
        """Take what needs no waiting."""
        for cursor, event in self._follower.new_text():
            self.show(cursor, event)

    def show(self, cursor: Cursor, event: ClientEvent) -> None:
        assert self.final is None
        assert cursor.seq >= self.cursor.seq
        self.cursor = cursor
        self.kinds.append(type(event))
        match event:
            case TextAdded(text=text, offset=offset):
                assert offset == len(self.text)
                self.text += text[offset:]
                assert self.text == text
            case ReplyReset():
                self.text = ""
            case ReplyEnded(final=final):
                self.final = final.text
            case _:
                pass


@st.composite
def attempts(draw: st.DrawFn) -> list[list[str]]:
    """The pieces of one to three attempts; the last one is the reply."""
    pieces = st.lists(st.text("abcé🙂", min_size=1, max_size=5), max_size=5)
    return draw(st.lists(pieces, min_size=1, max_size=3))


class Steps:
    """Stores a reply's facts and deltas one after another."""

    def __init__(self, log: ServedLog, replies: list[list[str]]) -> None:
        self._log = log
        self._replies = replies

    def __iter__(self) -> Iterator[Stored]:
        log = self._log
        run = log.sends("Hello")
        yield log.last
        for pieces in self._replies:
            attempt, offset = log.claims(run), 0
            yield log.last
            for piece in pieces:
                yield log.stores(run, attempt, offset, piece)
                offset += len(piece)
            self.text = "".join(pieces)
        log.ends(run, self.text)
        yield log.last


def deliver(feed: Feed, stored: Stored) -> None:
    if stored.subject.startswith("tok."):
        feed.on_token_event(live(stored))
    else:
        feed.on_fact(*stored)


async def look(client: Client, data: st.DataObject) -> None:
    """Read, or not, in this way or that; perhaps from a new connection afterwards."""
    if data.draw(st.booleans()):
        client.read_text()
    if data.draw(st.booleans()):
        await client.read()
    if data.draw(st.booleans()):
        client.connect()


@settings(max_examples=2 * settings().max_examples)
@given(data=st.data(), replies=attempts())
def test_a_client_ends_with_the_whole_text_of_the_last_attempt(
    data: st.DataObject, replies: list[list[str]]
):
    async def play() -> None:
        log = an_open_session()
        feed = feed_of(log)
        await feed.open()
        client, steps, held = Client(log, feed), Steps(log, replies), list[Stored]()
        for stored in steps:
            match data.draw(st.sampled_from(["deliver", "lose", "double", "hold"])):
                case "deliver":
                    deliver(feed, stored)
                case "double":
                    deliver(feed, stored)
                    deliver(feed, stored)
                case "hold":
                    held.append(stored)
                case _:
                    pass
            if data.draw(st.booleans()):
                await asyncio.sleep(0)
            await look(client, data)
        for stored in held:
            deliver(feed, stored)
        await feed.refilled()
        await client.read()

        assert client.final == client.text == steps.text
        assert client.kinds.count(TurnAccepted) == 1
        await feed.close()

    asyncio.run(play())


@given(data=st.data(), replies=attempts())
def test_a_client_that_changes_gateways_at_any_point_ends_with_the_same_text(
    data: st.DataObject, replies: list[list[str]]
):
    async def play() -> None:
        log = an_open_session()
        feed = feed_of(log)
        await feed.open()
        client, steps = Client(log, feed), Steps(log, replies)
        for stored in steps:
            deliver(feed, stored)
            if data.draw(st.booleans()):
                await client.read()
            if data.draw(st.booleans()):
                await feed.close()
                feed = client.feed = feed_of(log)
                await feed.open()
                client.connect()
        await client.read()

        assert client.final == client.text == steps.text

    asyncio.run(play())


async def test_a_client_that_reads_rarely_gets_one_large_piece():
    log = an_open_session()
    feed = feed_of(log)
    await feed.open()
    run = log.sends("Hello")
    feed.on_fact(*log.last)
    attempt = log.claims(run)
    feed.on_fact(*log.last)
    client = Client(log, feed)
    await client.read()
    for offset in range(100):
        feed.on_token_event(live(log.stores(run, attempt, offset, "x")))

    await client.read()

    assert client.kinds == [TurnAccepted, TextAdded]
    assert client.text == "x" * 100


async def test_text_is_no_news_before_the_facts_that_it_follows():
    log = an_open_session()
    feed = feed_of(log)
    await feed.open()
    client = Client(log, feed)
    run = log.sends("Hello")
    feed.on_fact(*log.last)
    attempt = log.claims(run)
    feed.on_fact(*log.last)
    feed.on_token_event(live(log.stores(run, attempt, 0, "one")))

    client.read_text()
    assert client.kinds == []
    await client.read()
    feed.on_token_event(live(log.stores(run, attempt, 3, " two")))
    client.read_text()

    assert client.kinds == [TurnAccepted, TextAdded, TextAdded]
    assert client.text == "one two"


async def test_a_turn_that_had_to_wait_is_accepted_once_and_due_later():
    log = an_open_session()
    feed = feed_of(log)
    await feed.open()
    client = Client(log, feed)
    run = log.sends("Hello", waiting=True)
    feed.on_fact(*log.last)
    await client.read()
    log.dispatches(run, None)
    feed.on_fact(*log.last)
    await client.read()

    assert client.kinds == [TurnAccepted, ReplyDue]


async def test_a_final_of_another_attempt_voids_what_was_shown():
    log = an_open_session()
    feed = feed_of(log)
    await feed.open()
    client = Client(log, feed)
    run = log.sends("Hello")
    feed.on_fact(*log.last)
    attempt = log.claims(run)
    feed.on_fact(*log.last)
    feed.on_token_event(live(log.stores(run, attempt, 0, "half")))
    await client.read()

    log.ends(run, "other", attempt=0)
    feed.on_fact(*log.last)
    await client.read()

    assert client.kinds == [TurnAccepted, TextAdded, ReplyReset, TextAdded, ReplyEnded]
    assert client.text == "other"


async def test_whoever_follows_one_run_sees_no_other():
    log = an_open_session()
    feed = feed_of(log)
    await feed.open()
    log.replies("first", "one")
    second = log.sends("second")
    log.claims(second)
    for entry in log.entries[1:]:
        feed.on_fact(entry.seq, entry.subject, entry.data)
    follower = Follower(feed, Cursor(0), run_id=second)

    events = await follower.next_events()

    assert [type(event) for _, event in events] == [TurnAccepted]
