"""The store as its askers see it: one method a question, typed by the question."""

from typing import overload

import msgspec

from shared import commands as c
from shared.bus import Bus
from shared.subjects import store_command

_SESSION = c.CreateSession | c.UpdateSession | c.GetSession
_ACCEPTED = c.SendMessage | c.Regenerate
_RUN = c.CancelRun | c.GetRun

_ANSWERS: dict[type[c.Request], type] = {
    c.CreateSession: c.SessionAnswer,
    c.UpdateSession: c.SessionAnswer,
    c.GetSession: c.SessionAnswer,
    c.DeleteSession: c.Done,
    c.SendMessage: c.Accepted,
    c.Regenerate: c.Accepted,
    c.CancelRun: c.RunAnswer,
    c.GetRun: c.RunAnswer,
    c.ListSessions: c.SessionPage,
    c.ListMessages: c.MessagePage,
    c.GetContext: c.Context,
    c.GetFacts: c.Facts,
    c.OpenFeed: c.FeedState,
    c.Rebuild: c.Rebuilt,
}


_SHOWS_STATE = (c.GetSession, c.ListSessions, c.ListMessages, c.GetRun)


class StoreClient:
    """Asks whichever store answers first, and never sees less than it saw before.

    A client that was told of a reply's end must find the reply when it asks for
    the messages: queries wait for the latest fact that this asker has heard of.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._seen = 0

    def heard(self, seq: int) -> None:
        """A fact of this sequence was shown to somebody."""
        self._seen = max(self._seen, seq)

    @overload
    async def ask(self, request: _SESSION) -> c.SessionAnswer: ...
    @overload
    async def ask(self, request: _ACCEPTED) -> c.Accepted: ...
    @overload
    async def ask(self, request: _RUN) -> c.RunAnswer: ...
    @overload
    async def ask(self, request: c.DeleteSession) -> c.Done: ...
    @overload
    async def ask(self, request: c.ListSessions) -> c.SessionPage: ...
    @overload
    async def ask(self, request: c.ListMessages) -> c.MessagePage: ...
    @overload
    async def ask(self, request: c.GetContext) -> c.Context: ...
    @overload
    async def ask(self, request: c.GetFacts) -> c.Facts: ...
    @overload
    async def ask(self, request: c.OpenFeed) -> c.FeedState: ...
    @overload
    async def ask(self, request: c.Rebuild) -> c.Rebuilt: ...

    async def ask(self, request: c.Request) -> object:
        """Carry out a command or answer a query.

        Raises:
            NatterlogError: the store's own answer.
            Unavailable: no store answers.
        """
        if isinstance(request, _SHOWS_STATE) and request.min_seq < self._seen:
            request = msgspec.structs.replace(request, min_seq=self._seen)
        data = await self._bus.ask(store_command(request.name), msgspec.json.encode(request))
        return msgspec.json.decode(data, type=_ANSWERS[type(request)])  # pyright: ignore[reportUnknownVariableType]  (the overloads say)
