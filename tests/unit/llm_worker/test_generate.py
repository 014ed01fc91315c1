"""Tries, faults and ends of one attempt's streaming."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from services.llm_worker.generate import LONGEST_REASON, MOST_TRIES, Calls, Outcome, generate
from services.llm_worker.prices import Prices
from services.llm_worker.providers.base import Ended, ModelInfo, Prompt, ProviderError, Write
from services.llm_worker.providers.redaction import Redaction
from services.llm_worker.refusals import PartRefused
from shared.events import Try, Usage
from shared.settings import Settings

PROMPT = Prompt(model="m", messages=[])
DONE = Ended(stop_reason="end_turn", usage=None)
SENTENCE = Ended(stop_reason="refusal", usage=None, sentence="The model refused.")
BUSY = ProviderError("Busy.", transient=True, retry_after=0.0)
WRONG = ProviderError("Wrong.", transient=False)


class Scripted:
    name = "scripted"

    def __init__(self, *scripts: Sequence[str | Ended | ProviderError]) -> None:
        self._scripts = list(scripts)
        self.closed = 0

    async def stream(self, prompt: Prompt, write: Write) -> Ended:
        try:
            for step in self._scripts.pop(0):
                match step:
                    case ProviderError():
                        raise step
                    case Ended():
                        return step
                    case _:
                        write(step)
            raise AssertionError("a script has an end")
        finally:
            self.closed += 1

    def notes(self, prompt: Prompt) -> list[str]:
        return []

    def takes(self, model: str, media_type: str) -> bool:
        return False

    async def models(self) -> list[ModelInfo]:
        return []

    async def aclose(self) -> None: ...


class Paper:
    """Where a writer would write."""

    def __init__(self) -> None:
        self.text = ""
        self.tries: list[Try] = []
        self.elapsed_ms = 7

    @property
    def grew(self) -> bool:
        return self.text != ""

    def add(self, text: str) -> None:
        self.text += text

    @property
    def size(self) -> int:
        return len(self.text.encode())


class Guard:
    """A breaker that keeps a diary."""

    def __init__(self, closed: ProviderError | None = None) -> None:
        self._closed = closed
        self.calls: list[str] = []

    async def admit(self, provider: str, model: str) -> None:
        if self._closed:
            raise self._closed

    async def succeeded(self, provider: str, model: str) -> None:
        self.calls.append(f"{provider}/{model} succeeded")

    async def failed(
        self, provider: str, model: str, fault: ProviderError, *, run: str | None = None
    ) -> None:
        del run
        self.calls.append(f"{provider}/{model} failed: {fault}")


async def outcome_of(
    provider: Scripted,
    paper: Any,
    guard: Any,
    *,
    failures: int = 0,
    most_failures: int = 3,
    max_reply: int = 1_000,
) -> Outcome:
    calls = Calls(guard, Redaction(["the-configured-key"]), Prices(Settings()), {})
    return await generate(
        provider,
        PROMPT,
        paper,
        calls,
        failures=failures,
        most_failures=most_failures,
        max_reply=max_reply,
    )


async def test_an_answer_is_written_and_its_end_told():
    provider, paper, guard = Scripted(["Good ", "day", DONE]), Paper(), Guard()

    outcome = await outcome_of(provider, paper, guard)

    assert outcome == Outcome(DONE, None, 0)
    assert (paper.text, guard.calls, provider.closed) == ("Good day", ["scripted/m succeeded"], 1)


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["12345", "67890", "more"], "1234567890"),
        (["1234567", "890123", "more"], "1234567890"),
        (["a piece that is far longer by itself"], "a piece th"),
        (["😀😀😀", "more"], "😀😀"),  # four bytes each: the third does not fit
        (["äöü", "€€", "more"], "äöü€"),
        (["1234567890", "😀"], "1234567890"),
    ],
)
async def test_a_reply_ends_at_its_bound_between_two_characters_and_its_provider_with_it(
    pieces: list[str], text: str
):
    provider, paper, guard = Scripted([*pieces, "never asked for", DONE]), Paper(), Guard()

    outcome = await outcome_of(provider, paper, guard, max_reply=10)

    assert outcome == Outcome(Ended(stop_reason="max_length", usage=None), None, 0)
    assert (paper.text, guard.calls, provider.closed) == (text, ["scripted/m succeeded"], 1)


async def test_a_reply_that_fills_its_bound_exactly_ends_as_it_would():
    provider, paper, guard = Scripted(["12345", "67890", "", DONE]), Paper(), Guard()

    outcome = await outcome_of(provider, paper, guard, max_reply=10)

    assert (outcome, paper.text) == (Outcome(DONE, None, 0), "1234567890")


async def test_a_fault_before_the_first_piece_is_tried_again():
    provider, paper, guard = Scripted([BUSY], [BUSY], ["Late", DONE]), Paper(), Guard()

    outcome = await outcome_of(provider, paper, guard)

    assert (outcome, paper.text) == (Outcome(DONE, None, 2), "Late")
    assert guard.calls == [
        "scripted/m failed: Busy.",
        "scripted/m failed: Busy.",
        "scripted/m succeeded",
    ]
    assert paper.tries == [Try(ms=7, code="provider_error", message="Busy.")] * 2


@pytest.mark.parametrize(
    ("script", "failures", "outcome"),
    [
        (["Half", BUSY], 0, Outcome(None, BUSY, 1)),  # it would contradict what was said
        ([BUSY], 2, Outcome(None, BUSY, 3)),  # those of earlier attempts count
        ([WRONG], 0, Outcome(None, WRONG, 1)),  # another try would be wrong as well
    ],
)
async def test_other_faults_are_the_callers_to_decide(
    script: list[str | Ended | ProviderError], failures: int, outcome: Outcome
):
    provider = Scripted(script, ["Never said", DONE])

    assert await outcome_of(provider, Paper(), Guard(), failures=failures) == outcome


async def test_a_provider_that_is_left_alone_is_a_failure_at_once():
    left_alone = ProviderError("Left alone.", transient=True, retry_after=9.0)
    provider, guard = Scripted(), Guard(left_alone)

    assert await outcome_of(provider, Paper(), guard) == Outcome(None, left_alone, 3)


async def test_a_sentence_stands_where_no_text_came():
    provider, paper = Scripted(["\n", SENTENCE]), Paper()

    outcome = await outcome_of(provider, paper, Guard())

    assert (outcome, paper.text) == (Outcome(SENTENCE, None, 0), "\nThe model refused.")


async def test_a_sentence_never_goes_on_with_a_text():
    provider, paper = Scripted([SENTENCE]), Paper()
    paper.add("What there was of a reply that is to go on")

    outcome = await outcome_of(provider, paper, Guard())

    assert outcome.fault is not None
    assert (outcome.fault.message, outcome.fault.transient) == ("The model refused.", False)
    assert paper.text == "What there was of a reply that is to go on"


async def test_a_fault_that_is_worth_one_more_try_gets_one():
    once_more = ProviderError("Nothing.", transient=True, retry_after=0.0, most_tries=2)
    provider = Scripted([once_more], [once_more], ["Never said", DONE])

    outcome = await outcome_of(provider, Paper(), Guard(), most_failures=5)

    assert (outcome, provider.closed) == (Outcome(None, once_more, 2), 2)


async def test_a_cancel_closes_the_providers_stream():
    provider, started = Scripted(), asyncio.Event()

    class Endless(Scripted):
        async def stream(self, prompt: Prompt, write: Write) -> Ended:
            try:
                started.set()
                await asyncio.Event().wait()
                return DONE
            finally:
                self.closed += 1

    provider = Endless()
    streaming = asyncio.create_task(outcome_of(provider, Paper(), Guard()))
    await started.wait()

    streaming.cancel()
    await asyncio.wait({streaming})

    assert (streaming.cancelled(), provider.closed) == (True, 1)


@pytest.mark.parametrize(
    "fault",
    [
        ProviderError("Come back tomorrow.", transient=True, retry_after=61.0),
        ProviderError("No first word.", code="timeout", transient=True, leave_alone=True),
        ProviderError("answered 429: Insufficient Balance", transient=True, status=429),
        ProviderError("broke off: Invalid API key provided", transient=True),
    ],
)
async def test_what_another_try_would_not_mend_is_not_tried_again(fault: ProviderError):
    provider, paper = Scripted([fault], ["Never said", DONE]), Paper()

    outcome = await outcome_of(provider, paper, Guard())

    assert (outcome, paper.text) == (Outcome(None, fault, 1), "")


async def test_a_failed_call_is_told_with_what_it_cost_and_without_its_secrets():
    fault = ProviderError(
        "No: the-configured-key. " + "x" * 9000, code="timeout", transient=False, status=504
    )
    fault.usage = Usage(input_tokens=3)
    guard, paper = Guard(), Paper()

    outcome = await outcome_of(Scripted([fault]), paper, guard)

    [tried] = paper.tries
    assert tried == Try(
        ms=7, code="timeout", message=tried.message, status=504, usage=Usage(input_tokens=3)
    )
    assert tried.message.startswith("No: [redacted]. xxx")
    assert len(tried.message) == LONGEST_REASON
    assert "the-configured-key" not in f"{outcome} {guard.calls}"


async def test_only_the_last_failed_calls_are_told():
    busy = [ProviderError(f"{n}", transient=True, retry_after=0.0) for n in range(MOST_TRIES + 5)]
    provider, paper = Scripted(*([fault] for fault in busy), ["Late", DONE]), Paper()

    await outcome_of(provider, paper, Guard(), most_failures=99)

    assert [tried.message for tried in paper.tries] == [f"{n}" for n in range(5, MOST_TRIES + 5)]


async def test_a_refused_parameter_is_a_failed_call_but_no_failure_of_the_run():
    fault = ProviderError("no", transient=False, status=400, text="unsupported 'temperature'")
    fault.sent = frozenset({"temperature"})
    paper = Paper()

    outcome = await outcome_of(Scripted([fault]), paper, Guard(), failures=1)

    assert isinstance(outcome.fault, PartRefused)
    assert (outcome.failures, [tried.status for tried in paper.tries]) == (1, [400])


async def test_what_breaks_the_reading_of_an_answer_is_that_answers_failure():
    class Deep(Scripted):
        async def stream(self, prompt: Prompt, write: Write) -> Ended:
            write("Half")
            raise RecursionError("nested too deep")

    paper = Paper()

    outcome = await outcome_of(Deep(), paper, Guard())

    assert outcome.fault is not None
    assert (outcome.fault.message, outcome.failures) == ("scripted sent what cannot be read.", 1)
    assert (paper.text, len(paper.tries)) == ("Half", 1)
