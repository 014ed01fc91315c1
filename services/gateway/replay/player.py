"""A recording, shown as its clients saw it: by the code that shows what is live.

A recorded session is played fact by fact and delta by delta into a feed, or a
job's state, that nobody else touches.  Each goes in only when what came of the
one before was taken, so a replay's client is always one that keeps up.  Nothing
is asked of anybody, and nothing is written.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec
from msgspec import UnsetType

from services.gateway.jobs.state import JobState
from services.gateway.sessions.client_events import ClientEvent, RunView
from services.gateway.sessions.cursor import Cursor
from services.gateway.sessions.feed import Feed
from services.gateway.sessions.follower import ClientEvents, Follower
from shared.bus import Bus
from shared.conversation import Conversation
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import (
    CancelRequested,
    Delta,
    Progress,
    RunClaimed,
    RunEnded,
    RunScheduled,
    RunWaiting,
    SessionCreated,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
    TodoProcess,
)
from shared.log_entry import LogEntry
from shared.recording import TimedEvent, attempts_of, runs_of, timed_events
from shared.records import Message
from shared.store_client import StoreClient
from shared.subjects import parse

SLOWEST, FASTEST = 0.01, 1_000.0
_BREATH = 64
"""Happenings after which others get a turn, when all are due at once."""

Wake = Callable[[], None]
Words = Callable[[Cursor, ClientEvent], list[bytes]]


def speed_of(text: str) -> float | None:
    """A speed as people write it: ``1``, ``0.5``, ``10``; ``max`` is None, as fast as can be.

    Raises:
        InvalidRequest: it is none.
    """
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not SLOWEST <= speed <= FASTEST:
        raise InvalidRequest("Expected max, or a number as 1, 10 or 0.5.", path="$.speed")
    return speed


class Recording:
    """A session's facts, and which part of them is to be shown: one run, or all."""

    def __init__(
        self, user: str, session_id: str, links: list[LogEntry], run_id: str | None
    ) -> None:
        self.user = user
        self.session_id = session_id
        self.run_id = run_id
        self.links = links
        self._own = [link for link in links if parse(link.subject).run == run_id]
        if run_id is not None and not self._own:
            raise NotFound("There is no such run.")

    @property
    def runs(self) -> list[str]:
        """The runs to be shown, in the order of their acceptance."""
        if self.run_id is not None:
            return [self.run_id]
        return runs_of(self.links)

    @property
    def is_job(self) -> bool:
        """Whether what it shows is a job, and no conversation."""
        kinds = TodoProcess | TodoGenerate | RunScheduled
        shown = self._own if self.run_id is not None else self.links
        return any(isinstance(link.fact, kinds) for link in shown)

    @property
    def first_seq(self) -> int:
        return self._own[0].seq if self._own else self.links[0].seq

    @property
    def last_seq(self) -> int:
        return self._own[-1].seq if self._own else self.links[-1].seq

    @property
    def accepted_at(self) -> datetime:
        return (self._own or self.links)[0].fact.at

    @property
    def model(self) -> str | None:
        """What the run's turn asked for, else what its session had then."""
        model: str | None = None
        for link in self.links:
            if link.seq > self.first_seq:
                break
            match link.fact:
                case SessionCreated(model=its):
                    model = its
                case SessionUpdated(model=its) if not isinstance(its, UnsetType):
                    model = its
                case _:
                    pass
        first = self._own[0].fact if self._own else None
        return (first.turn.model if isinstance(first, RunWaiting | TodoChat) else None) or model

    def written_at(self, place: Cursor) -> datetime:
        """When the text was written that a client at ``place`` saw last."""
        for attempt in attempts_of(self.links):
            if attempt.id == place.attempt:
                times = (ms for ms, length in attempt.timeline if length >= place.offset)
                if (ms := next(times, None)) is not None:
                    return attempt.claim.at + timedelta(milliseconds=ms)
        return (self._own or self.links)[-1].fact.at

    def need_end(self) -> None:
        """Only what is over can be shown to its end.

        Raises:
            Conflict: the run goes on.
        """
        if not any(isinstance(link.fact, RunEnded) for link in self._own):
            raise Conflict("This run has not ended yet; follow it, and replay it afterwards.")

    def timed_events(self) -> list[TimedEvent]:
        """What was on the wire until the end of what is shown."""
        end = self.last_seq
        return timed_events(link for link in self.links if link.seq <= end)

    def gaps(self) -> list[str]:
        """What cannot be shown as it was, one sentence each."""
        shown = set(self.runs)
        return [
            f"The log does not know when the text of attempt {attempt.id} came: "
            "it is shown in one piece."
            for attempt in attempts_of(self.links)
            if attempt.untimed and attempt.run_id in shown
        ]


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
        self._conversation = Conversation()

    def take(self, event: TimedEvent) -> None:
        """Let it happen."""
        match event.what:
            case LogEntry() as link:
                self._apply(link)
                self._conversation.apply(link)
            case Delta() as delta if self.running is not None:
                self.running.merge(delta)
            case _:
                pass

    async def messages(self, at: int) -> list[Message]:
        """The active branch as of the last fact that was taken, by the recording itself."""
        del at  # it is that fact: no other is taken before what came of it was
        return [message.record() for message in self._conversation.active_branch()]

    async def message(self, message_id: str, seq: int) -> Message:
        """A message as of now, by the recording itself: it has got as far as ``seq``."""
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

JobFrames = Callable[[JobState], list[bytes]]
"""What is new of a job to one client, in the words of its dialect."""


class JobReplay:
    """A recorded job and one client that looks on; ``wake`` says that there may be more."""

    def __init__(
        self, recording: Recording, speed: float | None, show: JobFrames, wake: Wake
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
                    self.state = JobState(event.run_id, self._session_id, fact.plan)
                self.state.apply(what.seq, fact)
            case RunClaimed() | CancelRequested() | RunEnded() as fact if self.state is not None:
                self.state.apply(what.seq, fact)
            case _:
                return None
        return self.state
