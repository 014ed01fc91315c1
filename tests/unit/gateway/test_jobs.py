"""What job clients are told, whatever is lost, repeated or comes late: rules, not examples."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.dialects.content import wire as content
from services.gateway.dialects.documents import wire as documents
from services.gateway.jobs.state import JobState
from shared.deltas import Merge
from shared.events import (
    CancelRequested,
    Delta,
    DocumentPlan,
    EndStatus,
    FileRef,
    PipelinePlan,
    PipelineStep,
    Plan,
    PreviousAttempt,
    Progress,
    PromptSource,
    RunClaimed,
    RunEnded,
    RunFact,
    RunScheduled,
    StepPrompt,
    StepResult,
    TodoGenerate,
    TodoProcess,
)
from shared.ids import now

AT = now()
FILE = FileRef(id="f", name="a.txt", kind="text", media_type="text/plain", size=1, sha256="")
DOCUMENT = DocumentPlan(file=FILE, prompt="?")
STEPS = ["keywords", "content_generation", "compliance_check"]
PIPELINE = PipelinePlan(
    pipeline="content", steps=[PipelineStep(name=name, template="?") for name in STEPS], inputs={}
)


class Story:
    """A job's facts, deltas and progress, written as its processor and workers would."""

    def __init__(self, plan: Plan = DOCUMENT) -> None:
        self.plan = plan
        self.facts: list[tuple[int, RunFact]] = []
        self.token_events: list[Delta | Progress] = []
        self.results: list[StepResult] = []
        self.attempt = 0
        self.text = ""
        self.fraction = 0.0
        self._n = -1

    def scheduled(self) -> None:
        self._add(RunScheduled(at=AT, plan=self.plan, priority=0, due=AT))

    def process(self, step: str = "extract") -> None:
        self._n += 1
        self._add(TodoProcess(at=AT, n=self._n, priority=0, step=step, plan=self.plan))

    def generate(self, step: str = "answer", *results: StepResult) -> None:
        self._n += 1
        self.results += results
        ask = StepPrompt(step=step, prompt="?")
        fact = TodoGenerate(
            at=AT,
            n=self._n,
            priority=0,
            ask=ask,
            plan=self.plan,
            results=list(self.results),
            last=False,
        )
        self._add(fact)

    def claim(self, max_tokens: int | None = 10) -> None:
        previous = None
        if self.text:
            previous = PreviousAttempt(attempt=self.attempt, text=self.text, reason="lost")
        prompt = PromptSource(
            provider="p",
            model="m",
            system=None,
            message_ids=[],
            temperature=None,
            max_tokens=max_tokens,
        )
        fact = RunClaimed(
            at=AT, worker="w", todo=0, prompt=prompt, previous=previous, fraction=self.fraction
        )
        self.attempt = self._add(fact)
        self.text = ""

    def read(self, fraction: float) -> None:
        self.fraction = max(self.fraction, fraction)
        self.token_events.append(Progress(attempt=self.attempt, step="extract", fraction=fraction))

    def write(self, text: str) -> None:
        self.token_events.append(Delta(attempt=self.attempt, offset=len(self.text), text=text))
        self.text += text

    def end(self, status: EndStatus = "completed", more: str = "") -> None:
        text = self.text + more
        self._add(
            RunEnded(
                at=AT,
                status=status,
                attempt=self.attempt,
                text=text,
                length=len(text),
                sha256=hashlib.sha256(text.encode()).hexdigest(),
                results=self.results,
                fraction=self.fraction,
            )
        )

    def add(self, fact: RunFact) -> None:
        self._add(fact)

    def _add(self, fact: RunFact) -> int:
        seq = (self.facts[-1][0] if self.facts else 0) + 2
        self.facts.append((seq, fact))
        return seq


def fresh(plan: Plan = DOCUMENT) -> JobState:
    return JobState("run", "session", plan)


def state_after(story: Story) -> JobState:
    """The state of whoever has read all there is."""
    state = fresh(story.plan)
    for seq, fact in story.facts:
        state.apply(seq, fact)
    for token_event in story.token_events:
        state.merge(token_event)
    return state


def as_delivered(story: Story, any_: random.Random) -> list[Any]:
    """The facts in order, and between them most of what is on TOKENS, nothing before its claim."""
    events: list[Any] = [*story.facts]
    for token_event in story.token_events:
        if any_.random() < 0.8:
            claim = next(
                i
                for i, e in enumerate(events)
                if isinstance(e, tuple) and e[0] == token_event.attempt
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

ACTS: list[Callable[[Story, random.Random], None]] = [
    lambda story, any_: story.write("".join(any_.choices("aä😀\n", k=any_.randint(1, 9)))),
    lambda story, any_: story.write("".join(any_.choices("xyz", k=any_.randint(1, 9)))),
    lambda story, _: story.claim(),
    lambda story, _: story.add(CancelRequested(at=AT)),
]


def a_story(any_: random.Random) -> Story:
    story = Story()
    if any_.random() < 0.2:
        story.scheduled()
    story.process()
    for _ in range(any_.randint(0, 3)):
        story.claim(None)
        story.read(any_.random())
    if any_.random() < 0.2:
        story.end("failed")
        return story
    story.generate("answer", StepResult(step="extract", text="the text"))
    story.claim()
    for _ in range(any_.randint(0, 12)):
        any_.choice(ACTS)(story, any_)
    story.end(
        any_.choice(["completed", "completed", "failed", "cancelled"]), any_.choice(["", "!"])
    )
    return story


@given(st.randoms(use_true_random=False))
def test_chunks_are_always_the_partial_and_progress_never_falls(any_: random.Random):
    """Ticks are lost, repeated and late; clients look when they can, and some come later."""
    story = a_story(any_)
    state, clients, reader = fresh(), [Documents()], state_after(story)

    for event in as_delivered(story, any_):
        if isinstance(event, tuple):
            state.apply(*event)
        elif state.merge(event) is Merge.GAP:
            for token_event in any_.sample(story.token_events, len(story.token_events)):
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
    story, shown = a_story(any_), 0
    for length in range(1, len(story.facts) + 1):
        seen = fresh()
        for seq, fact in story.facts[:length]:
            seen.apply(seq, fact)
        for token_event in story.token_events:
            if token_event.attempt <= story.facts[length - 1][0]:
                seen.merge(token_event)
        assert seen.progress >= shown
        shown = seen.progress


@given(st.randoms(use_true_random=False))
def test_who_reads_an_ended_job_after_its_ticks_have_gone_shows_the_same_progress(
    any_: random.Random,
):
    story = a_story(any_)
    late = fresh()

    for seq, fact in story.facts:
        late.apply(seq, fact)

    assert late.progress == state_after(story).progress


def test_progress_is_real():
    story = Story()
    story.process()
    story.claim(None)
    seen = [state_after(story).progress]
    for fraction in (0.1, 0.5, 0.4, 1.0):
        story.read(fraction)
        seen.append(state_after(story).progress)
    story.generate("answer", StepResult(step="extract", text="the text"))
    story.claim(max_tokens=100)
    for _ in range(3):
        story.write("x" * 200)
        seen.append(state_after(story).progress)
    story.end()
    seen.append(state_after(story).progress)

    assert seen == [0, 5, 25, 25, 50, 74, 99, 99, 100]


def test_a_schedule_that_fires_twice_or_after_the_end_changes_nothing():
    story = Story()
    story.scheduled()
    story.process()
    fired = story.facts[-1][1]
    story.claim(None)
    story.add(fired)
    running = state_after(story)
    story.end("cancelled")
    story.add(fired)

    assert (running.status, running.step) == ("running", "extract")
    assert state_after(story).status == "cancelled"


# -- content --------------------------------------------------------------------------


def a_pipeline(any_: random.Random) -> Story:
    story, answers = Story(PIPELINE), []
    story.process(STEPS[0])
    for index, step in enumerate(STEPS):
        before = [StepResult(step=STEPS[index - 1], text=answers[-1])] if index else []
        story.generate(step, *before)
        for _ in range(any_.randint(1, 3)):
            story.claim()
            for _ in range(any_.randint(0, 4)):
                story.write("".join(any_.choices("abc{}", k=3)))
        if any_.random() < 0.2:  # it missed the schema
            story.generate(step)
            story.claim()
            story.write("again")
        answers.append(any_.choice([story.text, story.text + "!", "another", ""]))
    if any_.random() < 0.3:
        story.end("failed")
    else:
        story.results.append(StepResult(step=STEPS[-1], text=answers[-1]))
        story.end()
    return story


@given(st.randoms(use_true_random=False), st.booleans())
def test_each_step_is_told_once_in_order_with_all_of_its_text(any_: random.Random, streaming: bool):
    story = a_pipeline(any_)
    state, clients = fresh(PIPELINE), [Content(streaming)]

    for event in as_delivered(story, any_):
        state.apply(*event) if isinstance(event, tuple) else state.merge(event)
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
