"""A recording, shown as its clients saw it: by the code that shows what is live.

A recorded session is played fact by fact and delta by delta into a feed, or a
job's state, that nobody else touches.  Each goes in only when what came of the
one before was taken, so a replay's client is always one that keeps up.  Nothing
is asked of anybody, and nothing is written.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from services.gateway.jobs.state import JobState
from services.gateway.replay.formats import TranslateJob
from services.gateway.replay.history import Remembered
from services.gateway.replay.recording import Recording
from services.gateway.sessions.client_events import RunView
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.follower import ClientEvents, Follower
from shared.bus import Bus
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
from shared.store_client import StoreClient

_BREATH = 64
"""Events after which others get a turn, when all are due at once."""

Wake = Callable[[], None]


class Playing:
    """What of a recording comes next, and when; ``speed`` None: as soon as can be."""

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
        """Take out what the client has been shown already."""
        skipped: list[TimedEvent] = []
        while self._coming and shown(self._coming[0]):
            skipped.append(self._coming.popleft())
        return skipped

    def left(self) -> float:
        """Seconds until the next one's time; 0 when it has come, or nothing is left."""
        if self._speed is None or not self._coming:
            return 0.0
        now = asyncio.get_running_loop().time()
        ms = self._coming[0].ms
        began, start = self._began = self._began or (now, ms)
        return max(0.0, began + (ms - start) / 1000 / self._speed - now)

    async def next(self) -> TimedEvent | None:
        """The next happening if its time has come."""
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
        """Call ``wake`` when the next one's time has come."""
        self.stop()
        if self._coming:
            self._timer = asyncio.get_running_loop().call_later(self.left(), wake)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


# -- conversations --------------------------------------------------------------


class RecordedFeed(Feed):
    """A feed whose facts and deltas come from a recording."""

    def __init__(self, user: str, session_id: str) -> None:
        # A bus that is connected to nothing: a recording has all there is to know.
        nowhere = Bus("", name="replay")
        self.store = StoreClient(nowhere)
        super().__init__(nowhere, self.store, user, session_id)
        self._remembered = Remembered(session_id)

    def take(self, event: TimedEvent) -> None:
        """Let it happen."""
        match event.what:
            case LogEntry() as link:
                self._apply(link)
                self._remembered.take(link)
            case Delta() as delta if self.running is not None:
                self.running.merge(delta)
            case _:
                pass

    async def messages(self, at: int) -> list[Message]:
        """The active branch as of the last fact that was taken, by the recording itself."""
        del at  # it is that fact: no other is taken before what came of it was
        return self._remembered.shown()

    async def message(self, message_id: str, seq: int) -> Message:
        """A message as of now, by the recording itself: it has got as far as ``seq``."""
        del seq
        return self._remembered.message(message_id)

    async def with_question(self, view: RunView) -> RunView:
        if view.user_message is not None:
            return view
        question = self._remembered.find(view.user_message_id)
        return msgspec.structs.replace(view, user_message=question)


class Replay(Follower):
    """A follower of a recording: it moves on by itself, at the recording's pace.

    Raises:
        InvalidRequest: ``place`` is no place in it.
    """

    def __init__(
        self,
        recording: Recording,
        speed: float | None = None,
        place: Cursor | None = None,
        *,
        tells_branches: bool = False,
    ) -> None:
        feed = RecordedFeed(recording.user, recording.session_id)
        start = place or Cursor(recording.first_seq - 1)
        run_id = recording.run_id
        super().__init__(feed, feed.store, start, run_id=run_id, tells_branches=tells_branches)
        self.playing = Playing(recording.timed_events(), speed)
        self._recorded = feed
        if not recording.first_seq - 1 <= start.seq <= recording.last_seq:
            raise InvalidRequest("That cursor is none of this recording's.", path="$.cursor")
        for event in self.playing.skip(_shown_at(start)):
            feed.take(event)

    async def news(self) -> ClientEvents:
        """What comes of the next happening that is to be seen; empty until its time has come."""
        while not (found := await super().news()):
            event = await self.playing.next()
            if event is None:
                self.playing.wake_for_next(self.feed.wake)
                return []
            self._recorded.take(event)
        self.feed.wake()  # the next one may be due as well
        return found


def _shown_at(place: Cursor) -> Callable[[TimedEvent], bool]:
    """Whether a client at ``place`` has seen a happening."""

    def shown(event: TimedEvent) -> bool:
        match event.what:
            case LogEntry(seq=seq):
                return seq <= place.seq
            case Delta(attempt=attempt, offset=offset, text=text) if attempt == place.attempt:
                return offset + len(text) <= place.offset
            case Delta(attempt=attempt) | Progress(attempt=attempt):
                return attempt < place.seq
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
        """What comes of the next happening that is to be seen; empty until its time has come."""
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
                    self.state = JobState(
                        event.run_id, self._session_id, fact.plan, status="queued", seq=0
                    )
                self.state.apply(what.seq, fact)
            case RunClaimed() | CancelRequested() | RunEnded() as fact if self.state is not None:
                self.state.apply(what.seq, fact)
            case _:
                return None
        return self.state
