"""A recording as the frames of a dialect, for who has no socket: the command line, the corpus."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple

from services.gateway.dialects.registry import DIALECTS
from services.gateway.replay.formats import ConversationFormat, JobFormat
from services.gateway.replay.player import JobReplay, Replay
from services.gateway.replay.recording import Recording, speed_of
from services.gateway.sessions.cursor import Cursor, CursorCodec
from shared.errors import InvalidRequest
from shared.events import DocumentPlan, RunScheduled, TodoGenerate, TodoProcess
from shared.log_entry import LogEntry

FORMATS: dict[str, ConversationFormat | JobFormat] = {
    name: shown_as for dialect in DIALECTS for name, shown_as in dialect.recordings.items()
}
"""By the name that the command line has for them."""


class Frame(NamedTuple):
    """One frame, and when it was sent: milliseconds since the recording began."""

    ms: float
    data: bytes


class Playback:
    """One run, or with ``run_id`` None all of a session, in any dialect that shows such runs."""

    def __init__(
        self,
        links: Sequence[LogEntry],
        *,
        user: str,
        session_id: str,
        run_id: str | None = None,
        epoch: str = "",
    ) -> None:
        self._links = list(links)
        self._user = user
        self._session_id = session_id
        self._recording = Recording(user, session_id, self._links, run_id)
        self._cursors = CursorCodec(epoch)

    @property
    def dialects(self) -> list[str]:
        """Those that show such a recording, the one that is meant when none is named first."""
        if not self._recording.is_job:
            return [name for name, it in FORMATS.items() if isinstance(it, ConversationFormat)]
        plans = (
            link.fact.plan
            for link in self._links
            if isinstance(link.fact, RunScheduled | TodoProcess | TodoGenerate)
        )
        document = isinstance(next(plans), DocumentPlan)
        return ["documents"] if document else ["content", "content-stream"]

    def gaps(self) -> list[str]:
        """What cannot be shown as it was, one sentence each."""
        return self._recording.gaps()

    async def frames(
        self, dialect: str | None = None, *, speed: str = "max", cursor: str | None = None
    ) -> AsyncGenerator[Frame]:
        """Every frame, each at its time.

        Raises:
            InvalidRequest: such a recording has none in that dialect, or the cursor is not in it.
        """
        names = self.dialects
        name = dialect or names[0]
        if name not in names:
            raise InvalidRequest(f"{name} shows no such recording: say {' or '.join(names)}.")
        match FORMATS[name]:
            case JobFormat() as job:
                if cursor:
                    raise InvalidRequest(f"The frames of {name} have no cursors.")
                played = self._job(job, speed)
            case ConversationFormat(cursors=False) if cursor:
                raise InvalidRequest(f"The frames of {name} have no cursors.")
            case ConversationFormat(one_run=True) as conversation:
                played = self._runs(conversation, speed, _cursor(cursor))
            case ConversationFormat() as conversation:
                played = self._all(conversation, self._recording, speed, _cursor(cursor))
        async for frame in played:
            yield frame

    async def _runs(
        self, shown_as: ConversationFormat, speed: str, cursor: Cursor | None
    ) -> AsyncGenerator[Frame]:
        """One stream after another, as a client opens one for each run."""
        for run_id in self._recording.runs:
            run = Recording(self._user, self._session_id, self._links, run_id)
            if cursor is not None and cursor.seq >= run.last_seq:
                continue
            async for frame in self._all(shown_as, run, speed, cursor):
                yield frame
            cursor = None

    async def _all(
        self, shown_as: ConversationFormat, recording: Recording, speed: str, cursor: Cursor | None
    ) -> AsyncGenerator[Frame]:
        branches = shown_as.shows_branches
        replay = Replay(recording, speed_of(speed), cursor, shows_branches=branches)
        translate = shown_as.translator(recording, self._cursors)
        if opening := shown_as.opening(recording, self._cursors, replay.cursor):
            yield Frame(replay.playing.next_ms, opening)
        while True:
            if events := await replay.next_events():
                for at, event in events:
                    for data in translate(at, event):
                        yield Frame(replay.playing.now_ms, data)
            elif replay.playing.over:
                return
            else:
                await asyncio.sleep(replay.playing.left())

    async def _job(self, shown_as: JobFormat, speed: str) -> AsyncGenerator[Frame]:
        job = JobReplay(self._recording, speed_of(speed), shown_as.translator(), _nobody_waits)
        while True:
            if frames := await job.frames():
                for data in frames:
                    yield Frame(job.playing.now_ms, data)
            elif job.playing.over:
                return
            else:
                await asyncio.sleep(job.playing.left())


def _nobody_waits() -> None:
    """Do nothing: what comes next is fetched."""


def _cursor(text: str | None) -> Cursor | None:
    """The cursor in ``text``, of whatever incarnation of the log: the recording says which."""
    if not text:
        return None
    numbers = text.split("-")[-3:]
    if len(numbers) != 3 or not all(n.isascii() and n.isdigit() for n in numbers):
        raise InvalidRequest("A cursor looks like 4e66adc88ecc-28-28-115.")
    return Cursor(*map(int, numbers))
