"""A recording, shown as its clients saw it: by the code that shows what is live.

A recorded session is played fact by fact and delta by delta into the state of a
session, or of a job, that nobody else touches.  Each goes in only when what came of the
one before was taken, so a replay's client is always one that keeps up.  Nothing
is asked of anybody, and nothing is written.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from services.gateway.jobs.state import JobState
from services.gateway.replay.formats import TranslateJob
from services.gateway.replay.recording import Recording
from services.gateway.sessions.client_events import RunView
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.follower import ClientEvents, Follower
from services.gateway.sessions.state import SessionState
from services.gateway.sessions.watchers import Watchers
from shared.conversation import Conversation
from shared.errors import InvalidRequest, NotFound
from shared.events import (
    CancelRequested,
    Delta,
    Progress,
    RunClaimed,
    RunEnded,
    RunScheduled,
    TodoGenerate,
    TodoProcess,
)
from shared.log_entry import LogEntry
from shared.recording import TimedEvent
from shared.records import Message

_BREATH = 64
"""Events after which others get a turn, when all are due at once."""

Wake = Callable[[], None]


class Playing:
    """A recording's events in their order and time; ``speed`` None: as fast as can be."""

    def __init__(self, coming: list[TimedEvent], speed: float | None) -> None:
        self.now_ms = 0.0
        """The recording's time of what came last."""
        self._coming = deque(coming)
        self._speed = speed
        self._began: tuple[float, float] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._since_breath = 0

    @property
    def over(self) -> bool:
        return not self._coming

    @property
    def next_ms(self) -> float:
        """The recording's time of what comes next."""
        return self._coming[0].ms if self._coming else self.now_ms

    def skip(self, shown: Callable[[TimedEvent], bool]) -> list[TimedEvent]:
        """Skip the events that the client has been shown already."""
        skipped: list[TimedEvent] = []
        while self._coming and shown(self._coming[0]):
            skipped.append(self._coming.popleft())
        return skipped

    def left(self) -> float:
        """Seconds until the next event's time; 0 when it has come, or nothing is left."""
        if self._speed is None or not self._coming:
            return 0.0
        now = asyncio.get_running_loop().time()
        ms = self._coming[0].ms
        began, start = self._began = self._began or (now, ms)
        return max(0.0, began + (ms - start) / 1000 / self._speed - now)

    async def next(self) -> TimedEvent | None:
        """The next event if its time has come."""
        if not self._coming or self.left() > 0:
            return None
        self._since_breath += 1
        if self._since_breath >= _BREATH:
            self._since_breath = 0
            await asyncio.sleep(0)
        event = self._coming.popleft()
        self.now_ms = event.ms
        return event

    def wake_for_next(self, wake: Wake) -> None:
        """Call ``wake`` when the next event's time has come."""
        self.close()
        if self._coming:
            self._timer = asyncio.get_running_loop().call_later(self.left(), wake)

    def close(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()


# -- conversations --------------------------------------------------------------


class RecordedSession:
    """A recorded session as far as it was played; what a follower of it reads.

    It has got as far as the fact that was played last: no other is played before all
    that came of it was taken.
    """

    def __init__(self, session_id: str) -> None:
        self.state = SessionState(session_id)
        self.watchers = Watchers[[]]()
        self._conversation = Conversation()

    def play(self, event: TimedEvent) -> None:
        """Apply one recorded event."""
        match event.what:
            case LogEntry() as entry:
                self.state.apply(entry)
                self._conversation.apply(entry)
            case token_event:
                self.state.merge(token_event)

    async def facts_after(self, seq: int) -> list[LogEntry]:
        return self.state.facts_after(seq)

    async def messages(self, at: int) -> list[Message]:
        del at  # as of now
        return [message.record() for message in self._conversation.active_branch()]

    async def message(self, message_id: str, seq: int) -> Message:
        del seq
        found = self._conversation.find(message_id)
        if found is None:
            raise NotFound("There is no such message.")
        return found.record()

    async def with_question(self, view: RunView) -> RunView:
        if view.user_message is not None:
            return view
        found = self._conversation.find(view.user_message_id)
        return msgspec.structs.replace(view, user_message=found and found.record())

    async def run(self, run_id: str) -> RunView:
        raise NotFound(f"The run {run_id} is not in this recording.")


class Replay(Follower):
    """A follower of a recording: it moves on by itself, at the recording's pace.

    Raises:
        InvalidRequest: ``cursor`` is none of its cursors.
    """

    def __init__(
        self,
        recording: Recording,
        speed: float | None = None,
        cursor: Cursor | None = None,
        *,
        shows_branches: bool = False,
    ) -> None:
        session = RecordedSession(recording.session_id)
        start = cursor or Cursor(recording.first_seq - 1)
        super().__init__(session, start, run_id=recording.run_id, shows_branches=shows_branches)
        self.playing = Playing(recording.timed_events(), speed)
        self._session = session
        if not recording.first_seq - 1 <= start.seq <= recording.last_seq:
            raise InvalidRequest("That cursor is none of this recording's.", path="$.cursor")
        for event in self.playing.skip(_shown_at(start)):
            session.play(event)

    async def next_events(self) -> ClientEvents:
        """What comes of the next event that is to be seen; empty until its time has come."""
        while not (found := await super().next_events()):
            event = await self.playing.next()
            if event is None:
                self.playing.wake_for_next(self._session.watchers.wake)
                return []
            self._session.play(event)
        self._session.watchers.wake()  # the next one may be due as well
        return found


def _shown_at(cursor: Cursor) -> Callable[[TimedEvent], bool]:
    """Whether a client at ``cursor`` has seen an event."""

    def shown(event: TimedEvent) -> bool:
        match event.what:
            case LogEntry(seq=seq):
                return seq <= cursor.seq
            case Delta(attempt=attempt, offset=offset, text=text) if attempt == cursor.attempt:
                return offset + len(text) <= cursor.offset
            case Delta(attempt=attempt) | Progress(attempt=attempt):
                return attempt < cursor.seq
        return False

    return shown


# -- jobs -----------------------------------------------------------------------


class JobReplay:
    """A recorded job and one client that looks on; ``wake`` says that there may be more."""

    def __init__(
        self, recording: Recording, speed: float | None, show: TranslateJob, wake: Wake
    ) -> None:
        if not recording.is_job:
            raise NotFound("There is no such job.")
        self.state: JobState | None = None
        self.playing = Playing(recording.timed_events(), speed)
        self._session_id = recording.session_id
        self._show = show
        self._wake = wake

    @property
    def more(self) -> bool:
        return False  # it wakes by itself

    async def frames(self) -> list[bytes]:
        """What is new after the next event that is to be seen; empty until its time has come."""
        while event := await self.playing.next():
            state = self._take(event)
            if state is not None and (frames := self._show(state)):
                self._wake()
                return frames
        self.playing.wake_for_next(self._wake)
        return []

    def _take(self, event: TimedEvent) -> JobState | None:
        what = event.what
        if not isinstance(what, LogEntry):
            if self.state is not None:
                self.state.merge(what)
            return self.state
        match what.fact:
            case RunScheduled() | TodoProcess() | TodoGenerate() as fact:
                if self.state is None:
                    self.state = JobState(event.run_id, self._session_id, fact.plan)
                self.state.apply(what.seq, fact)
            case RunClaimed() | CancelRequested() | RunEnded() as fact if self.state is not None:
                self.state.apply(what.seq, fact)
            case _:
                return None
        return self.state
