"""A replay is byte for byte what a client that kept up was sent: rules over generated sessions."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.gateway.jobs.state import JobState
from services.gateway.playback import FORMATS
from services.gateway.replay.formats import ConversationFormat, JobFormat, Translate
from services.gateway.replay.player import JobReplay, Replay
from services.gateway.replay.recording import Recording, speed_of
from services.gateway.sessions.client_events import MessagesChanged, ThoughtsAdded
from services.gateway.sessions.cursor import Cursor, CursorCodec
from services.gateway.sessions.follower import Follower
from shared.bus import Stored
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import AnyTokenEvent, EndStatus, Plan, StepResult, Usage, encode
from shared.ids import new_id
from shared.plans import step_names
from tests.support.plans import a_document, a_pipeline, an_ask
from tests.support.scripted_log import BUSY, SESSION, USER, ScriptedLog
from tests.unit.gateway.served_log import ServedLog, feed_of, live

CURSORS = CursorCodec("epoch")
STEPS = ("keywords", "content_generation", "compliance_check")
TEXTS = st.text("ab é🙂\u0301", min_size=1, max_size=6)
PIECES = st.lists(TEXTS, max_size=4)
PAUSE = st.integers(1, 4_000)
FEW = settings().max_examples // 2
"""A session takes long to be lived through."""


class Watching:
    """A live client of a dialect that reads whenever there is something."""

    def __init__(self, follower: Follower, translate: Translate, opening: bytes) -> None:
        self.cursors = [follower.cursor]
        self.frames = [opening]
        self.ahead = [False]
        """Whether a frame is shown again after its cursor, which is before the fact it is of."""
        self._follower = follower
        self._translate = translate

    async def read(self) -> None:
        while events := await self._follower.next_events():
            for cursor, event in events:
                for frame in self._translate(cursor, event):
                    self.frames.append(frame)
                    self.cursors.append(cursor)
                    again = isinstance(event, MessagesChanged | ThoughtsAdded)
                    self.ahead.append(again and cursor.seq < events[-1][0].seq)

    def after(self, cursor: Cursor) -> list[bytes]:
        """The frames that a client gets which comes back with the cursor ``cursor``."""
        at = [i for i, its in enumerate(self.cursors) if its == cursor]
        again = [i for i in at if self.ahead[i]]
        return self.frames[again[0] if again else at[-1] + 1 :]


class Session:
    """Lives through a session: what happens next is drawn, and every client reads at once."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.log = ServedLog()
        self.clients: dict[tuple[str, str | None], Watching] = {}
        self._draw = draw
        self._feed = feed_of(self.log)
        self._waiting: list[str] = []
        self._leaf = "m"
        self.slow: Watching | None = None
        """A client that reads now and then; how often decides how large its pieces are."""

    async def live(self) -> None:
        self.log.opens()
        await self._feed.open()
        for name in ("assistant-socket", "channels"):
            self._watch(name, None, Cursor(0))
        self.slow = self._watching("assistant-socket", None, Cursor(0))
        for _ in range(self._one_of(1, 2, 3)):
            await self._turn()
        await self.slow.read()
        await self._feed.close()

    # -- what happens -----------------------------------------------------------------

    async def _turn(self) -> None:
        await self._rate_or_choose()
        questions = self.log.messages(role="user")
        self._pause()
        if self._waiting:
            run_id = self._waiting.pop(0)
            self.log.dispatches(run_id, self._leaf)
            await self._fact()
        elif questions and self._one_of(False, True):
            last = questions[-1]
            run_id = self.log.sends(None, user_message_id=last.id, parent_id=last.parent_id)
            await self._accepted(run_id)
        else:
            run_id = self.log.sends("Hello")
            await self._accepted(run_id)
        previous = None
        for lost in range(self._one_of(0, 1, 2) + 1):
            self._pause()
            self.log.claims(run_id, previous=previous)
            await self._fact()
            await self._write()
            if lost:
                previous = self.log.left("its worker was lost")
            else:
                previous = self.log.left("the provider failed", fault=BUSY)
        await self._end(run_id)
        if self._waiting:
            await self._turn()

    async def _rate_or_choose(self) -> None:
        """Between two turns another branch may be chosen; replies are rated at any time."""
        if replies := self.log.messages(role="assistant"):
            reply = replies[self._one_of(*range(len(replies)))].id
            match self._one_of("nothing", "rate", "choose"):
                case "rate":
                    self.log.rates(reply, self._one_of("up", "down", None))
                    await self._fact()
                case "choose":
                    self.log.chooses(reply)
                    await self._fact()
                case _:
                    pass

    async def _write(self) -> None:
        for piece in self._draw(PIECES):
            self._pause()
            match self._one_of("write", "write", "write", "send", "rename", "rate"):
                case "rate":
                    for reply in self.log.messages(role="assistant")[:1]:
                        self.log.rates(reply.id, self._one_of("up", None))
                        await self._fact()
                case "send":
                    run_id = self.log.sends("And then?", waiting=True)
                    self._waiting.append(run_id)
                    await self._accepted(run_id)
                case "rename":
                    self.log.updates(title=piece)
                    await self._fact()
                case _:
                    await self._token_event(self.log.writes(piece))

    async def _end(self, run_id: str) -> None:
        status: EndStatus = self._one_of("completed", "completed", "failed", "cancelled")
        self._pause()
        if status == "cancelled":
            self.log.cancels(run_id)
            await self._fact()
            self._pause()
        nobodys = status == "cancelled" and not self.log.text and self._one_of(False, True)
        more = self._draw(st.sampled_from(["", "", "more"]))
        text = self.log.text + more
        usage = Usage(input_tokens=1, output_tokens=len(text))
        self.log.ends(run_id, text, status, attempt=0 if nobodys else None, usage=usage)
        await self._fact()

    # -- who looks on -------------------------------------------------------------------

    async def _accepted(self, run_id: str) -> None:
        self._watch("assistant", run_id, Cursor(self.log.last.seq - 1))
        await self._fact()

    def _watch(self, name: str, run_id: str | None, cursor: Cursor) -> None:
        self.clients[name, run_id] = self._watching(name, run_id, cursor)

    def _watching(self, name: str, run_id: str | None, cursor: Cursor) -> Watching:
        dialect, recording = conversation(name), recording_of(self.log, None, empty=True)
        follower = Follower(
            self._feed, cursor, run_id=run_id, shows_branches=dialect.shows_branches
        )
        translate = dialect.translator(recording, CURSORS)
        return Watching(follower, translate, dialect.opening(recording, CURSORS, cursor))

    async def _fact(self) -> None:
        self._feed.on_fact(*self.log.last)
        await self._all_read()

    async def _token_event(self, token_event: AnyTokenEvent) -> None:
        self._feed.on_token_event(live(Stored(0, "tok", encode(token_event))))
        await self._all_read()

    async def _all_read(self) -> None:
        for client in self.clients.values():
            await client.read()
        if self.slow is not None and self._one_of(False, False, True):
            await self.slow.read()

    def _pause(self) -> None:
        self.log.passes(self._draw(PAUSE))

    def _one_of(self, *choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))


def conversation(name: str) -> ConversationFormat:
    dialect = FORMATS[name]
    assert isinstance(dialect, ConversationFormat)
    return dialect


def recording_of(log: ScriptedLog, run_id: str | None, *, empty: bool = False) -> Recording:
    return Recording(USER, SESSION, [] if empty else log.entries, run_id)


async def replayed(
    log: ScriptedLog, name: str, run_id: str | None = None, cursor: Cursor | None = None
) -> list[bytes]:
    """Every frame of the replay, the opening first."""
    recording, dialect = recording_of(log, run_id), conversation(name)
    replay = Replay(recording, None, cursor, shows_branches=dialect.shows_branches)
    frames = [dialect.opening(recording, CURSORS, replay.cursor)]
    translate = dialect.translator(recording, CURSORS)
    while events := await replay.next_events():
        for at, event in events:
            frames += translate(at, event)
    assert replay.playing.over
    return frames


@settings(max_examples=FEW)
@given(data=st.data())
def test_a_replayed_session_is_byte_for_byte_what_was_sent(data: st.DataObject):
    async def play() -> None:
        session = Session(data.draw)
        await session.live()

        for (name, run_id), client in session.clients.items():
            frames = await replayed(session.log, name, run_id)
            assert frames[1:] == client.frames[1:], name

    asyncio.run(play())


@settings(max_examples=FEW)
@given(data=st.data())
def test_what_is_shown_at_a_fact_does_not_depend_on_when_a_client_came_to_it(data: st.DataObject):
    async def play() -> None:
        session = Session(data.draw)
        await session.live()

        replayed_frames = await replayed(session.log, "assistant-socket")
        assert session.slow is not None
        assert of_messages(session.slow.frames) == of_messages(replayed_frames)

    asyncio.run(play())


def of_messages(frames: list[bytes]) -> list[dict[str, Any]]:
    """The frames that show messages, without the cursors, which say how much text was read."""
    found = [json.loads(frame) for frame in frames]
    kinds = ("resync", "message_start", "message_complete")
    return [frame | {"cursor": None} for frame in found if frame["type"] in kinds]


@settings(max_examples=FEW)
@given(data=st.data())
def test_a_replay_goes_on_after_any_cursor(data: st.DataObject):
    async def play() -> None:
        session = Session(data.draw)
        await session.live()
        (name, run_id), client = data.draw(st.sampled_from(list(session.clients.items())))
        seen = data.draw(st.integers(1, len(client.frames) - 1))
        assume(recording_of(session.log, run_id).first_seq - 1 <= client.cursors[seen].seq)

        rest = await replayed(session.log, name, run_id, client.cursors[seen])

        assert rest[1:] == client.after(client.cursors[seen])

    asyncio.run(play())


# -- jobs -----------------------------------------------------------------------


class JobSession:
    """Lives through a job: readings, answers, misses, losses, and some end."""

    def __init__(self, draw: Callable[..., Any], plan: Plan) -> None:
        self.log = ScriptedLog()
        self.run_id = new_id()
        self.sent: dict[str, list[bytes]] = {name: [] for name in job_dialects()}
        self._draw = draw
        self._plan = plan
        self._state = JobState(self.run_id, SESSION, plan)
        self._shows = {name: dialect.translator() for name, dialect in job_dialects().items()}

    def live(self) -> None:
        if self._one_of(False, True):
            self.log.schedules(self.run_id, self._plan, 0)
            self._fact()
        results: list[StepResult] = []
        previous = None
        status: EndStatus = self._one_of("completed", "completed", "failed", "cancelled")
        steps = step_names(self._plan)
        last = steps[-1] if status == "completed" else self._one_of(*steps)
        for n, step in enumerate(steps):
            if step == "extract":
                self.log.hands_to_processor(self.run_id, self._plan, n, step, results)
            else:
                self.log.hands_to_llm_worker(
                    self.run_id,
                    self._plan,
                    n,
                    an_ask(step),
                    results,
                    last=False,
                    previous=previous,
                )
            self._fact()
            lost = None
            for again in range(self._one_of(0, 0, 1, 2) + 1):
                self.log.claims(self.run_id, previous=lost if again else None, max_tokens=10)
                self._fact()
                self._work(step)
                lost = self.log.left("its worker was lost")
            if step == last:
                break
            more = "" if step == "extract" else self._one_of("", "!")
            previous = self.log.left("its answer was taken", more=more)
            results.append(StepResult(step=step, text=previous.text))
        if status == "cancelled":
            self.log.cancels(self.run_id)
            self._fact()
        text = self.log.text + self._one_of("", ".")
        usage = Usage(input_tokens=1, output_tokens=len(text))
        self.log.ends(self.run_id, text, status, results=results, usage=usage)
        self._fact()

    def _work(self, step: str) -> None:
        if step == "extract":
            for thousandths in self._draw(st.lists(st.integers(0, 1000), max_size=3).map(sorted)):
                self._pause()
                self._token_event(self.log.reads(thousandths))
            return
        for piece in self._draw(PIECES):
            self._pause()
            self._token_event(self.log.writes(piece))

    def _fact(self) -> None:
        self._pause()
        entry = self.log.entries[-1]
        self._state.apply(entry.seq, entry.fact)  # type: ignore[arg-type]
        self._show()

    def _token_event(self, token_event: AnyTokenEvent) -> None:
        self._state.merge(token_event)
        self._show()

    def _show(self) -> None:
        for name, show in self._shows.items():
            self.sent[name] += show(self._state)

    def _pause(self) -> None:
        self.log.passes(self._draw(PAUSE))

    def _one_of(self, *choices: Any) -> Any:
        return self._draw(st.sampled_from(choices))


def job_dialects() -> dict[str, JobFormat]:
    return {name: d for name, d in FORMATS.items() if isinstance(d, JobFormat)}


@given(data=st.data(), plan=st.sampled_from([a_document(), a_pipeline(*STEPS)]))
def test_a_replayed_job_is_byte_for_byte_what_was_sent(data: st.DataObject, plan: Plan):
    async def play() -> None:
        session = JobSession(data.draw, plan)
        session.live()

        for name, dialect in job_dialects().items():
            recording = recording_of(session.log, session.run_id)
            replay = JobReplay(recording, None, dialect.translator(), lambda: None)
            frames: list[bytes] = []
            while made := await replay.frames():
                frames += made
            assert frames == session.sent[name], name

    asyncio.run(play())


# -- by hand ----------------------------------------------------------------------


def a_reply(*, ended: bool = True) -> tuple[ScriptedLog, str]:
    log = ScriptedLog()
    run_id = log.sends("Hello")
    log.passes(10)
    log.claims(run_id)
    log.passes(5)
    log.writes("Good ")
    log.passes(5)
    log.writes("day")
    if ended:
        log.ends(run_id)
    return log, run_id


@pytest.mark.parametrize(("text", "speed"), [("1", 1.0), ("0.5", 0.5), ("10", 10.0), ("max", None)])
def test_a_speed_is_a_number_or_max(text: str, speed: float | None):
    assert speed_of(text) == speed


@pytest.mark.parametrize("text", ["", "0", "-1", "1e9", "nan", "inf", "fast", "Max"])
def test_what_is_no_speed_is_refused(text: str):
    with pytest.raises(InvalidRequest) as refused:
        speed_of(text)

    assert refused.value.path == "$.speed"


def test_a_run_that_is_not_in_its_session_is_not_there():
    log, _ = a_reply()

    with pytest.raises(NotFound):
        recording_of(log, new_id())


def test_a_run_that_goes_on_has_no_end_to_be_shown():
    log, run_id = a_reply(ended=False)

    with pytest.raises(Conflict):
        recording_of(log, run_id).need_end()


async def test_a_cursor_of_elsewhere_is_refused():
    log, run_id = a_reply()

    with pytest.raises(InvalidRequest):
        Replay(recording_of(log, run_id), None, Cursor(10_000))


async def test_text_that_has_no_times_is_shown_in_one_piece_and_said_to_be():
    log = ScriptedLog()
    run_id = log.sends("Hello")
    log.claims(run_id)
    log.text = "Lost with TOKENS"
    log.claims(run_id, previous=log.left("its worker was lost"))
    log.ends(run_id, "All.")

    frames = await replayed(log, "channels", run_id)

    assert b'"content":"Lost with TOKENS"' in frames[3]
    (one, other) = recording_of(log, run_id).gaps()
    assert "in one piece" in one
    assert "in one piece" in other


async def test_a_replay_waits_for_each_moment_at_its_speed(monkeypatch: pytest.MonkeyPatch):
    log, run_id = a_reply()
    replay = Replay(recording_of(log, run_id), 0.5)
    loop = asyncio.get_running_loop()
    now, began = 0.0, loop.time()
    monkeypatch.setattr(loop, "time", lambda: began + now)
    shown: list[tuple[float, list[str]]] = []

    for now in (0.0, 0.029, 0.03, 0.04, 1.0):
        kinds: list[str] = []
        while events := await replay.next_events():
            kinds += [type(event).__name__ for _, event in events]
        shown.append((now, kinds))
    replay.playing.close()

    assert shown == [
        (0.0, ["TurnAccepted"]),
        (0.029, []),
        (0.03, ["TextAdded"]),
        (0.04, ["TextAdded", "ReplyEnded"]),
        (1.0, []),
    ]
