"""Feeds that many clients share: who is closed, and who never."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from services.gateway.sessions import shared_feeds
from services.gateway.sessions.shared_feeds import SharedFeeds
from shared.errors import NotFound


class Feeds:
    """Notes which keys are open; ``fails`` cannot be opened, ``slow`` takes its time to close."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.fails = ""
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()
        self.shared = SharedFeeds(str, self._opening)

    @asynccontextmanager
    async def _opening(self, key: str) -> AsyncGenerator[None]:
        if key == self.fails:
            await asyncio.sleep(0)  # the client is gone before
            raise NotFound("There is no such session.")
        self.open.append(key)
        yield
        self.closing.set()
        await self.may_close.wait()
        self.open.remove(key)


async def test_a_feed_that_was_opened_while_others_are_closed_is_not_closed_with_them(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shared_feeds, "LINGER", -1.0)
    feeds = Feeds()
    async with feeds.shared.feed("idle"):
        pass
    feeds.fails = "wanted"
    with feeds.shared.wanted("wanted") as failed:
        pass
    with pytest.raises(NotFound):
        await failed.opened.result()
    feeds.fails = ""

    dropping = asyncio.create_task(feeds.shared.drop_idle())
    await feeds.closing.wait()
    async with feeds.shared.feed("wanted"):
        feeds.may_close.set()
        await dropping

        assert feeds.open == ["wanted"]
