"""The store as its askers see it: one method a question, typed by the question."""

from collections.abc import Mapping
from typing import overload

import msgspec

from shared import commands as c
from shared.bus import Bus
from shared.ids import new_id
from shared.subjects import store_command

_SESSION = c.CreateSession | c.UpdateSession | c.GetSession | c.ForkSession | c.ChooseBranch
_ACCEPTED = c.SendMessage | c.Regenerate | c.ContinueReply | c.EditMessage
_RUN = c.CancelRun | c.GetRun
_MESSAGE = c.RateMessage | c.GetMessage
_PRESET = c.CreatePreset | c.UpdatePreset | c.GetPreset

_ANSWERS: dict[type[c.Request], type] = {
    c.CreateSession: c.SessionAnswer,
    c.UpdateSession: c.SessionAnswer,
    c.GetSession: c.SessionAnswer,
    c.DeleteSession: c.Done,
    c.SendMessage: c.Accepted,
    c.Regenerate: c.Accepted,
    c.ContinueReply: c.Accepted,
    c.EditMessage: c.Accepted,
    c.ForkSession: c.SessionAnswer,
    c.ChooseBranch: c.SessionAnswer,
    c.RateMessage: c.MessageAnswer,
    c.CancelRun: c.RunAnswer,
    c.GetRun: c.RunAnswer,
    c.CreateJob: c.JobAnswer,
    c.GetJob: c.JobAnswer,
    c.ListJobs: c.JobPage,
    c.CreatePreset: c.PresetAnswer,
    c.UpdatePreset: c.PresetAnswer,
    c.GetPreset: c.PresetAnswer,
    c.DeletePreset: c.Done,
    c.ListPresets: c.PresetPage,
    c.SyncModels: c.ModelsNoted,
    c.PreferModel: c.Done,
    c.ListModels: c.ModelList,
    c.GetStatistics: c.StatisticsAnswer,
    c.ListSessions: c.SessionPage,
    c.ListMessages: c.MessagePage,
    c.SearchMessages: c.HitPage,
    c.ExportSession: c.Export,
    c.GetMessage: c.MessageAnswer,
    c.GetFile: c.FileAnswer,
    c.GetUsage: c.UsagePage,
    c.CheckToken: c.TokenCheck,
    c.GetContext: c.Context,
    c.GetFacts: c.Facts,
    c.OpenFeed: c.FeedState,
    c.Rebuild: c.Rebuilt,
}


_LONG: dict[type[c.Request], float] = {
    c.DeleteSession: 30.0,
    c.Rebuild: 3600.0,
}
"""Seconds for what takes long, and must not be asked twice."""
_USUAL = 2.0
_COPYING = 20.0
"""Seconds for what copies a whole conversation: asked again too soon it is only done twice."""


class StoreClient:
    """Asks whichever store answers first, and never sees less than it saw before.

    A client that was told of a reply's end must find the reply when it asks for
    the messages, and must not be told that the session is still busy: requests
    wait for the latest fact that this asker has heard of.
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
    async def ask(self, request: _RUN) -> c.RunAnswer: ...
    @overload
    async def ask(self, request: c.GetJob) -> c.JobAnswer: ...
    @overload
    async def ask(self, request: c.ListJobs) -> c.JobPage: ...
    @overload
    async def ask(self, request: _PRESET) -> c.PresetAnswer: ...
    @overload
    async def ask(self, request: c.ListPresets) -> c.PresetPage: ...
    @overload
    async def ask(self, request: c.SyncModels) -> c.ModelsNoted: ...
    @overload
    async def ask(self, request: c.ListModels) -> c.ModelList: ...
    @overload
    async def ask(self, request: c.GetStatistics) -> c.StatisticsAnswer: ...
    @overload
    async def ask(self, request: c.DeleteSession | c.DeletePreset | c.PreferModel) -> c.Done: ...
    @overload
    async def ask(self, request: c.ListSessions) -> c.SessionPage: ...
    @overload
    async def ask(self, request: c.ListMessages) -> c.MessagePage: ...
    @overload
    async def ask(self, request: _MESSAGE) -> c.MessageAnswer: ...
    @overload
    async def ask(self, request: c.SearchMessages) -> c.HitPage: ...
    @overload
    async def ask(self, request: c.ExportSession) -> c.Export: ...
    @overload
    async def ask(self, request: c.GetFile) -> c.FileAnswer: ...
    @overload
    async def ask(self, request: c.GetUsage) -> c.UsagePage: ...
    @overload
    async def ask(self, request: c.CheckToken) -> c.TokenCheck: ...
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
        if isinstance(request, c.StartsRun):
            raise TypeError(f"{request.name} begins a run: it is counted first, then start_run()")
        return await self._ask(request)

    @overload
    async def start_run(self, request: _ACCEPTED) -> c.Accepted: ...
    @overload
    async def start_run(self, request: c.CreateJob) -> c.JobAnswer: ...

    async def start_run(self, request: c.StartsRun) -> object:
        """Begin a run; a gateway does so at one place only, where users' messages are counted.

        Its id is made here, so that a store that is asked once more knows its own run again.

        Raises:
            NatterlogError, Unavailable: as for :meth:`ask`.
        """
        if not request.run_id:
            request = msgspec.structs.replace(request, run_id=new_id())
        return await self._ask(request)

    async def _ask(self, request: c.Request) -> object:
        if request.min_seq < self._seen:
            request = msgspec.structs.replace(request, min_seq=self._seen)
        subject, data = store_command(request.name), msgspec.json.encode(request)
        if patience := _LONG.get(type(request)):
            answer = await self._bus.ask(subject, data, timeout=patience)
        else:
            # A store may die with the question: every other one may be asked twice.
            answer = await self._bus.ask(subject, data, timeout=_patience(request), tries=3)
        return msgspec.json.decode(answer, type=_ANSWERS[type(request)])  # pyright: ignore[reportUnknownVariableType]  (the overloads say)


def _patience(request: c.Request) -> float:
    match request:
        case c.ForkSession() | c.ExportSession():
            return _COPYING
        case c.CreateSession(history_file=str()):
            return _COPYING
        case _:
            return _USUAL


def answers() -> Mapping[type[c.Request], type]:
    """Every request, and what is answered to it."""
    return _ANSWERS
