"""What job clients are told, whatever is lost, repeated or comes late: rules, not examples."""

import random
from collections.abc import Callable
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.dialects.content import wire as content
from services.gateway.dialects.documents import wire as documents
from services.gateway.jobs.state import JobState
from shared.deltas import Merge
from shared.events import Delta, EndStatus, Plan, Progress, StepResult
from shared.log_entry import LogEntry
from tests.support.plans import a_document, a_pipeline, a_result, an_ask
from tests.support.scripted_log import SESSION, ScriptedLog

RUN = "01a21600-0000-7000-8000-0000000000b1"
DOCUMENT = a_document()
STEPS = ["keywords", "content_generation", "compliance_check"]
PIPELINE = a_pipeline(*STEPS)
READ = a_result("extract", "the text")


class JobLog(ScriptedLog):
    """One job's log, and what was on TOKENS; with its todos counted and its results kept."""

    def __init__(self, plan: Plan = DOCUMENT) -> None:
        super().__init__(first=2, step=2)
        self.plan = plan
        self.token_events: list[Delta | Progress] = []
        self.results: list[StepResult] = []
        self._fraction = 0.0
        self._todos = count()

    def process(self, step: str = "extract") -> None:
        self.hands_to_processor(RUN, self.plan, next(self._todos), step)

    def generate(self, step: str = "answer", *results: StepResult) -> None:
        self.results += results
        n, prompt = next(self._todos), an_ask(step)
        self.hands_to_llm_worker(RUN, self.plan, n, prompt, self.results, last=False)

    def claim(self, max_tokens: int = 10) -> None:
        """The next attempt, which knows what the one before had written."""
        previous = self.left("its worker was lost") if self.text else None
        self.claims(RUN, previous=previous, fraction=self._fraction, max_tokens=max_tokens)

    def reads(self, thousandths: int) -> Progress:
        progress = super().reads(thousandths)
        self._fraction = max(self._fraction, progress.fraction)
        self.token_events.append(progress)
        return progress

    def writes(self, text: str) -> Delta:
        delta = super().writes(text)
        self.token_events.append(delta)
        return delta

    def end(self, status: EndStatus = "completed", more: str = "") -> None:
        text = self.text + more
        self.ends(RUN, text, status, results=self.results, fraction=self._fraction)


def fresh(plan: Plan = DOCUMENT) -> JobState:
    return JobState(RUN, SESSION, plan)


def apply(state: JobState, entry: LogEntry) -> None:
    state.apply(entry.seq, entry.fact)  # type: ignore[arg-type]


def state_after(log: JobLog) -> JobState:
    """The state of whoever has read all there is."""
    state = fresh(log.plan)
    for entry in log.entries:
        apply(state, entry)
    for token_event in log.token_events:
        state.merge(token_event)
    return state


def as_delivered(log: JobLog, any_: random.Random) -> list[LogEntry | Delta | Progress]:
    """The facts in order, and between them most of what is on TOKENS, nothing before its claim."""
    events: list[LogEntry | Delta | Progress] = [*log.entries]
    for token_event in log.token_events:
        if any_.random() < 0.8:
            claim = next(
                i
                for i, e in enumerate(events)
                if isinstance(e, LogEntry) and e.seq == token_event.attempt
            )
            events.insert(any_.randint(claim + 1, len(events)), token_event)
    return events


class Documents:
    """A document client that holds every frame against the contract."""

    def __init__(self, floor: int = 0) -> None:
        self.shown = documents.Shown()
        self.text = ""
        self.progress = floor
        self.ended = 0

    def look(self, state: JobState) -> None:
        for frame in documents.frames_of(state, self.shown):
            assert not self.ended, "nothing comes after the end"
            match frame:
                case documents.JobUpdate():
                    assert isinstance(frame.progress, int)
                    assert self.progress <= frame.progress <= 100
                    self.progress = frame.progress
                case documents.AiChunk():
                    self.text = self.text + frame.chunk if frame.chunk else ""
                    assert self.text == frame.partial
                case documents.JobCompleted():
                    assert (frame.ai_response, self.progress) == (self.text, 100)
                    self.ended += 1
                case documents.JobFailed():
                    assert self.progress < 100
                    self.ended += 1
                case _:
                    raise AssertionError(frame)


# -- documents ----------------------------------------------------------------------

ACTS: list[Callable[[JobLog, random.Random], object]] = [
    lambda log, any_: log.writes("".join(any_.choices("aä😀\n", k=any_.randint(1, 9)))),
    lambda log, any_: log.writes("".join(any_.choices("xyz", k=any_.randint(1, 9)))),
    lambda log, _: log.claim(),
    lambda log, _: log.cancels(RUN),
]


def a_documents_log(any_: random.Random) -> JobLog:
    log = JobLog()
    if any_.random() < 0.2:
        log.schedules(RUN, log.plan, 0)
    log.process()
    for _ in range(any_.randint(0, 3)):
        log.claim()
        log.reads(any_.randint(0, 1000))
    if any_.random() < 0.2:
        log.end("failed")
        return log
    log.generate("answer", READ)
    log.claim()
    for _ in range(any_.randint(0, 12)):
        any_.choice(ACTS)(log, any_)
    log.end(any_.choice(["completed", "completed", "failed", "cancelled"]), any_.choice(["", "!"]))
    return log


@given(st.randoms(use_true_random=False))
def test_chunks_are_always_the_partial_and_progress_never_falls(any_: random.Random):
    """Token events are lost, repeated and late; clients look when they can, and some come later."""
    log = a_documents_log(any_)
    state, clients, reader = fresh(), [Documents()], state_after(log)

    for event in as_delivered(log, any_):
        if isinstance(event, LogEntry):
            apply(state, event)
        elif state.merge(event) is Merge.GAP:
            for token_event in any_.sample(log.token_events, len(log.token_events)):
                state.merge(token_event)
        for client in clients:
            if any_.random() < 0.5:
                client.look(state)
        if any_.random() < 0.2:
            clients.append(Documents(floor=max(c.progress for c in clients)))
    for client in [*clients, Documents()]:
        client.look(state)
        client.look(state)
        assert client.ended == 1
        assert client.text == reader.written.text


@given(st.randoms(use_true_random=False))
def test_whoever_reads_all_of_it_shows_at_least_the_progress_that_others_showed(
    any_: random.Random,
):
    log, shown = a_documents_log(any_), 0
    for length, last in enumerate(log.entries, start=1):
        seen = fresh()
        for entry in log.entries[:length]:
            apply(seen, entry)
        for token_event in log.token_events:
            if token_event.attempt <= last.seq:
                seen.merge(token_event)
        assert seen.progress >= shown
        shown = seen.progress


@given(st.randoms(use_true_random=False))
def test_who_reads_an_ended_job_after_its_token_events_have_gone_shows_the_same_progress(
    any_: random.Random,
):
    log = a_documents_log(any_)
    late = fresh()

    for entry in log.entries:
        apply(late, entry)

    assert late.progress == state_after(log).progress


def test_progress_is_real():
    log = JobLog()
    log.process()
    log.claim()
    seen = [state_after(log).progress]
    for thousandths in (100, 500, 400, 1000):
        log.reads(thousandths)
        seen.append(state_after(log).progress)
    log.generate("answer", READ)
    log.claim(max_tokens=100)
    for _ in range(3):
        log.writes("x" * 200)
        seen.append(state_after(log).progress)
    log.end()
    seen.append(state_after(log).progress)

    assert seen == [0, 5, 25, 25, 50, 74, 99, 99, 100]


def test_a_schedule_that_fires_twice_or_after_the_end_changes_nothing():
    log = JobLog()
    log.schedules(RUN, log.plan, 0)
    log.process()
    fired = log.entries[-1].fact
    log.claim()
    log.append(fired, RUN)
    running = state_after(log)
    log.end("cancelled")
    log.append(fired, RUN)

    assert (running.status, running.step) == ("running", "extract")
    assert state_after(log).status == "cancelled"


# -- content --------------------------------------------------------------------------


def a_pipelines_log(any_: random.Random) -> JobLog:
    log, answers = JobLog(PIPELINE), []
    log.process(STEPS[0])
    for index, step in enumerate(STEPS):
        before = [a_result(STEPS[index - 1], answers[-1])] if index else []
        log.generate(step, *before)
        for _ in range(any_.randint(1, 3)):
            log.claim()
            for _ in range(any_.randint(0, 4)):
                log.writes("".join(any_.choices("abc{}", k=3)))
        if any_.random() < 0.2:  # it missed the schema
            log.generate(step)
            log.claim()
            log.writes("again")
        answers.append(any_.choice([log.text, log.text + "!", "another", ""]))
    if any_.random() < 0.3:
        log.end("failed")
    else:
        log.results.append(a_result(STEPS[-1], answers[-1]))
        log.end()
    return log


@given(st.randoms(use_true_random=False), st.booleans())
def test_each_step_is_told_once_in_order_with_all_of_its_text(any_: random.Random, streaming: bool):
    log = a_pipelines_log(any_)
    state, clients = fresh(PIPELINE), [Content(streaming)]

    for event in as_delivered(log, any_):
        apply(state, event) if isinstance(event, LogEntry) else state.merge(event)
        for client in clients:
            if any_.random() < 0.5:
                client.look(state)
        if any_.random() < 0.1:
            clients.append(Content(streaming))

    for client in [*clients, Content(streaming)]:
        client.look(state)
        assert client.ended == 1
        assert client.steps == [done.step for done in state.done]
        if streaming:
            assert client.texts[: len(state.done)] == [done.text for done in state.done]
    assert [done.step for done in state.done] == STEPS[: len(state.done)]


class Content:
    """A content client that puts together what it is told."""

    def __init__(self, streaming: bool) -> None:
        self.shown = content.Shown(streaming=streaming)
        self.steps: list[str] = []
        self.texts = [""]
        self.ended = 0

    def look(self, state: JobState) -> None:
        for frame in content.frames_of(state, self.shown):
            assert not self.ended, "nothing comes after the end"
            match frame:
                case content.Chunk():
                    assert frame.step == STEPS[len(self.steps)]
                    assert frame.content
                    self.texts[-1] += frame.content
                case content.Reset():
                    assert frame.step == STEPS[len(self.steps)]
                    self.texts[-1] = ""
                case content.Progress():
                    self.steps.append(frame.step)
                    self.texts.append("")
                case content.Result() | content.Failed():
                    self.ended += 1
                case _:
                    raise AssertionError(frame)
