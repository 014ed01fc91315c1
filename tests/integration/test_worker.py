"""The real worker on a real nats-server; only the store and the provider are played."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from services.llm_worker.breaker import Breaker
from services.llm_worker.breaker_store import KvBreakerStore
from services.llm_worker.handlers import listen
from services.llm_worker.providers.base import Ended, ModelInfo, Prompt, ProviderError, Write
from services.llm_worker.providers.redaction import Redaction
from services.llm_worker.tasks import GO_ON
from services.llm_worker.worker import Worker
from shared import chain, endings, objects
from shared.bus import Bus, Incoming
from shared.chain import extend, read_chain
from shared.commands import Context, ContextMessage, GetContext
from shared.consumer import Delivery, RetryLater
from shared.deltas import AttemptText, read_attempt, split
from shared.endings import end_unhandled
from shared.errors import NotFound
from shared.events import (
    CancelRequested,
    Continued,
    Delta,
    Fault,
    PreviousAttempt,
    Progress,
    PromptSource,
    RunClaimed,
    RunEnded,
    Thoughts,
    TodoChat,
    Try,
    Turn,
    Usage,
    decode_token_event,
    encode,
)
from shared.ids import new_id, now
from shared.log_entry import LogEntry
from shared.objects import NotKept
from shared.ownership import RunOwnership
from shared.pulling import Consumer
from shared.settings import Settings
from shared.streams import FILES, ensure_streams
from shared.subjects import EVENTS, TOKENS, Address, fact_kind, store_command
from tests.support.nats_server import NatsServer

DEADLINE = 20.0
DONE = Ended(stop_reason="end_turn", usage=Usage(input_tokens=3, output_tokens=5))
BUSY = ProviderError("Overloaded.", code="provider_unavailable", transient=True, retry_after=0.0)
WRONG = ProviderError("No such model.", code="model_not_found", transient=False)

Script = Sequence[str | Ended | Exception | asyncio.Event]


class Scripted:
    """A provider that says what it is told to; an Event in a script is waited for."""

    def __init__(self, *scripts: Script) -> None:
        self.name = f"scripted-{new_id()}"  # a breaker of its own
        self.prompts: list[Prompt] = []
        self.waiting = asyncio.Event()
        self.closed = asyncio.Event()
        self._scripts = list(scripts)

    async def stream(self, prompt: Prompt, write: Write) -> Ended:
        self.prompts.append(prompt)
        try:
            for step in self._scripts.pop(0):
                match step:
                    case asyncio.Event():
                        self.waiting.set()
                        await step.wait()
                    case Exception():
                        raise step
                    case Ended():
                        return step
                    case _:
                        write(step)
            raise AssertionError("a script has an end")
        finally:
            self.closed.set()

    def notes(self, prompt: Prompt) -> list[str]:
        return []

    def takes(self, model: str, media_type: str) -> bool:
        return False

    async def models(self) -> list[ModelInfo]:
        return []

    async def aclose(self) -> None: ...


class Stage:
    """One run, its store, and what may be done to it behind a worker's back."""

    def __init__(self, url: str, bus: Bus) -> None:
        self.url = url
        self.bus = bus
        self.run = Address(new_id(), new_id(), new_id())
        self.todo = 0
        self.cut: ContextMessage | None = None
        """The reply that is to go on, if one is."""

    @asynccontextmanager
    async def worker(self, provider: Scripted, **settings: Any) -> AsyncIterator[Worker]:
        """A worker as its ``__main__`` makes it, but for the consumer."""

        class OneProvider:
            def __init__(self) -> None:
                self.redaction = Redaction(["the-configured-key"], ["http://inner.example:8000"])
                self.urls = {provider.name: "http://inner.example:8000/v1"}

            async def resolve(self, model: str | None) -> tuple[Scripted, str]:
                return provider, "model-1"

        async with Bus(self.url, name="worker") as bus:
            worker_id = new_id()
            breaker = Breaker(KvBreakerStore(bus), threshold=5, cooldown=60.0)
            registry: Any = OneProvider()
            worker = Worker(bus, Settings(**settings), registry, breaker, worker_id)
            await listen(bus, worker.owned)
            bus.on_reconnect(worker.owned.on_reconnect)
            await bus.head(EVENTS, "evt.>")  # so the server knows what it listens to
            yield worker

    def consumer(self, worker: Worker) -> Consumer:
        todos = f"evt.{self.run.user}.*.*.todo.chat.*"
        return Consumer(worker._bus, f"test-{self.run.user}", [todos], worker.handle, slots=4)

    @property
    def delivery(self) -> Delivery:
        turn = Turn(user_message_id="u", assistant_message_id="a", content="?")
        if self.cut is not None:
            before = Continued(length=len(self.cut.content), tokens=5)
            turn = msgspec.structs.replace(turn, content=None, continues=before)
        fact = TodoChat(at=now(), n=0, turn=turn)
        return Delivery(self.todo, self.run.todo_chat(0), self.run, fact, 1)

    async def begin(self) -> None:
        await self.bus.serve("store", {store_command("get_context"): self._context})
        await self.bus.head(EVENTS, "evt.>")
        self.todo = await extend(self.bus, self.run.todo_chat(0), self.delivery.fact, expected=0)

    async def _context(self, request: bytes) -> bytes:
        query = msgspec.json.decode(request, type=GetContext)
        assert (query.session_id, query.min_seq) == (self.run.session, 0)  # the todo's predecessor
        chain = await self.chain()
        if not chain:
            raise NotFound("There is no such session.")
        context = Context(
            messages=[
                ContextMessage(id="u", role="user", content="?"),
                *([] if self.cut is None else [self.cut]),
            ],
            system_prompt="Be brief.",
            model=None,
            temperature=0.5,
            max_tokens=100,
            seq=chain[-1].seq,
        )
        return msgspec.json.encode(context)

    async def chain(self) -> list[LogEntry]:
        return await read_chain(self.bus, self.run.facts)

    async def kinds(self) -> list[str]:
        return [fact_kind(link.subject) for link in await self.chain()]

    async def claims(self) -> list[tuple[int, RunClaimed]]:
        return [(k.seq, k.fact) for k in await self.chain() if isinstance(k.fact, RunClaimed)]

    async def final(self) -> RunEnded:
        [final] = [k.fact for k in await self.chain() if isinstance(k.fact, RunEnded)]
        return final

    async def cancel(self) -> int:
        return await self._append("cancel", CancelRequested(at=now()))

    async def claim(self, worker: str = "vanished") -> int:
        """Another worker claims the run."""
        source = PromptSource(
            provider="p", model="m", system=None, message_ids=[], temperature=None, max_tokens=None
        )
        claim = RunClaimed(at=now(), worker=worker, todo=self.todo, prompt=source)
        return await self._append("claim", claim)

    async def _append(self, what_happened: str, fact: CancelRequested | RunClaimed) -> int:
        head = (await self.chain())[-1].seq
        return await extend(self.bus, self.run.fact(what_happened), fact, expected=head)

    async def write(self, attempt: int, text: str, offset: int = 0) -> None:
        """Another worker writes the run's text, all of it so far or the next piece."""
        last = await self.bus.head(TOKENS, self.run.tokens)
        delta = encode(Delta(attempt, offset, text))
        await self.bus.append(self.run.tokens, delta, expected=last.seq if last else 0)

    async def written(self, length: int) -> None:
        """Wait until the log has so much of the latest attempt."""
        async with asyncio.timeout(DEADLINE):
            while len((await read_attempt(self.bus, self.run)).text) < length:  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # the log tells nobody what one missed

    async def ended(self) -> RunEnded:
        """Wait for the final."""
        async with asyncio.timeout(DEADLINE):
            while (await self.kinds())[-1] != "final":  # noqa: ASYNC110  (as above)
                await asyncio.sleep(0.001)
        return await self.final()

    async def erase(self) -> None:
        for link in await self.chain():
            await objects.erase_message(self.bus, EVENTS, link.seq)
        await self.bus.api(f"STREAM.PURGE.{TOKENS}", {"filter": self.run.tokens})


@pytest.fixture
async def stage(nats_server: NatsServer) -> AsyncIterator[Stage]:
    async with a_stage(nats_server) as made:
        yield made


@asynccontextmanager
async def a_stage(server: NatsServer, cut: ContextMessage | None = None) -> AsyncIterator[Stage]:
    async with Bus(server.url, name="test") as bus:
        await ensure_streams(bus)
        made = Stage(server.url, bus)
        made.cut = cut
        await made.begin()
        yield made


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(DEADLINE):
        await event.wait()


# -- a reply ------------------------------------------------------------------------


async def test_a_todo_becomes_a_reply(stage: Stage):
    provider = Scripted(["Grüße", ", ", "🌍", "!", DONE])
    heard: list[Incoming] = []
    await stage.bus.listen_live(f"live.{stage.run.tokens}", heard.append)

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    assert await stage.kinds() == ["todo.chat.0", "claim", "final"]
    [(attempt, claim)] = await stage.claims()
    final = await stage.final()
    assert claim == RunClaimed(
        at=claim.at,
        prev=stage.todo,
        nonce=claim.nonce,
        worker=worker.owned.worker_id,
        todo=stage.todo,
        prompt=PromptSource(
            provider=provider.name,
            model="model-1",
            system="Be brief.",
            message_ids=["u"],
            temperature=0.5,
            max_tokens=100,
            files=[],
        ),
    )
    assert final == RunEnded(
        at=final.at,
        prev=attempt,
        nonce=final.nonce,
        status="completed",
        attempt=attempt,
        text="Grüße, 🌍!",
        length=9,
        sha256=sha256("Grüße, 🌍!"),
        model="model-1",
        provider=provider.name,
        stop_reason="end_turn",
        usage=DONE.usage,
        latency_ms=final.latency_ms,
        first_delta_ms=final.timeline[0][0],
        timeline=final.timeline,
    )
    assert [prompt.system for prompt in provider.prompts] == ["Be brief."]
    lengths = [length for _, length in final.timeline]
    assert lengths == sorted(set(lengths))
    shown = AttemptText(attempt)
    for message in heard:
        delta = decode_token_event(message.data)
        assert isinstance(delta, Delta)
        shown.merge(delta)
    assert final.text.startswith(shown.text)


async def test_every_delta_is_in_the_log_before_the_end_is(stage: Stage):
    go_on = asyncio.Event()
    provider = Scripted(["One ", "two ", go_on, "three", DONE])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(8)
        go_on.set()
        await working

    assert (await stage.final()).text == "One two three"


async def test_a_long_reply_is_whole_although_its_final_is_over_256_kib(stage: Stage):
    text = "All work and no play. " * 20_000
    provider = Scripted(
        [*(text[start : start + 5000] for start in range(0, len(text), 5000)), DONE]
    )

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    final = await stage.final()
    assert (final.text, final.length, final.sha256) == (text, len(text), sha256(text))


async def test_a_redelivered_todo_of_an_ended_run_is_dropped(stage: Stage):
    provider = Scripted(["Once.", DONE])
    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)
        before = await stage.chain()

        await worker.handle(stage.delivery)

    assert await stage.chain() == before
    assert len(provider.prompts) == 1


async def test_a_todo_whose_session_is_gone_is_dropped(stage: Stage):
    provider = Scripted()
    await stage.erase()

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    assert (await stage.chain(), provider.prompts) == ([], [])


# -- cancel -------------------------------------------------------------------------


async def test_a_cancel_before_the_claim_ends_the_run_without_a_provider(stage: Stage):
    provider = Scripted()
    await stage.cancel()

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    assert await stage.kinds() == ["todo.chat.0", "cancel", "final"]
    final = await stage.final()
    assert (final.status, final.attempt, final.text) == ("cancelled", 0, "")
    assert provider.prompts == []


async def test_a_cancel_before_the_first_token_closes_the_provider(stage: Stage):
    provider = Scripted([asyncio.Event()])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await soon(provider.waiting)
        await stage.cancel()
        await soon(provider.closed)
        await working

    assert await stage.kinds() == ["todo.chat.0", "claim", "cancel", "final"]
    final = await stage.final()
    assert (final.status, final.text, final.timeline) == ("cancelled", "", [])


async def test_a_cancel_in_the_middle_keeps_the_partial_text(stage: Stage):
    provider = Scripted(["Half of ", asyncio.Event(), "it", DONE])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(8)
        await stage.cancel()
        await working

    [(attempt, _)] = await stage.claims()
    final = await stage.final()
    assert (final.status, final.attempt, final.text) == ("cancelled", attempt, "Half of ")
    assert (final.length, final.sha256) == (8, sha256("Half of "))
    assert (final.error, provider.closed.is_set()) == (None, True)


async def test_a_cancel_that_was_not_heard_live_is_found_in_the_chain(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("shared.ownership._LOOK_EVERY", 0.02)
    monkeypatch.setattr(RunOwnership, "on_cancel", lambda *_: None)
    provider = Scripted(["Half", asyncio.Event()])

    async with stage.worker(provider) as worker:
        watching = asyncio.create_task(worker.owned.watch())
        working = asyncio.create_task(worker.handle(stage.delivery))
        await soon(provider.waiting)
        await stage.cancel()
        await working
        watching.cancel()

    assert ((await stage.final()).status, (await stage.final()).text) == ("cancelled", "Half")


async def test_a_cancel_need_not_wait_for_the_next_try(stage: Stage):
    patient = ProviderError("Later.", transient=True, retry_after=30.0)
    provider = Scripted(["Half", patient])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await soon(provider.closed)
        await stage.cancel()
        async with asyncio.timeout(DEADLINE):
            await working

    assert ((await stage.final()).status, (await stage.final()).text) == ("cancelled", "Half")


async def test_a_provider_that_fails_while_it_is_closed_changes_nothing(stage: Stage):
    class Clumsy(Scripted):
        async def stream(self, prompt: Prompt, write: Write) -> Ended:
            try:
                return await super().stream(prompt, write)
            except asyncio.CancelledError:
                raise OSError("the connection was closed twice") from None

    provider = Clumsy(["Half", asyncio.Event()])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await soon(provider.waiting)
        await stage.cancel()
        await working

    assert ((await stage.final()).status, (await stage.final()).text) == ("cancelled", "Half")


# -- providers that fail ------------------------------------------------------------


async def test_a_fault_before_the_first_delta_is_retried_unseen(stage: Stage):
    provider = Scripted([BUSY], ["Here I am.", DONE])

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    assert await stage.kinds() == ["todo.chat.0", "claim", "final"]
    assert ((await stage.final()).status, (await stage.final()).text) == ("completed", "Here I am.")


async def test_a_fault_after_the_first_delta_is_a_new_attempt_told_as_a_reset(stage: Stage):
    go_on = asyncio.Event()
    provider = Scripted(["Half of", go_on, BUSY], ["The whole.", DONE])
    heard: list[Delta] = []

    def hear(message: Incoming) -> None:
        delta = decode_token_event(message.data)
        assert isinstance(delta, Delta)
        heard.append(delta)

    await stage.bus.listen_live(f"live.{stage.run.tokens}", hear)
    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(7)
        go_on.set()
        await working

    assert await stage.kinds() == ["todo.chat.0", "claim", "claim", "final"]
    (first, one), (second, other) = await stage.claims()
    final = await stage.final()
    assert one.previous is None
    assert other.previous == PreviousAttempt(
        attempt=first,
        text="Half of",
        reason="the provider failed",
        timeline=other.previous.timeline if other.previous else [],
        fault=Fault(
            code="provider_unavailable", message="Overloaded.", retryable=True, retry_after=0.0
        ),
        tries=other.previous.tries if other.previous else [],
    )
    assert other.previous is not None
    assert [tried.message for tried in other.previous.tries] == ["Overloaded."]
    assert (one.failures, other.failures) == (0, 1)
    assert (final.status, final.attempt, final.text) == ("completed", second, "The whole.")
    published = [(delta.attempt, delta.offset, delta.text) for delta in heard[:2]]
    assert published == [(first, 0, "Half of"), (second, 0, "")]


async def test_after_three_failures_the_run_fails_and_keeps_the_partial_text(stage: Stage):
    provider = Scripted(["One", BUSY], ["Two", BUSY], ["Three", BUSY], ["Four", DONE])

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    claims = await stage.claims()
    final = await stage.final()
    assert [claim.previous and claim.previous.text for _, claim in claims] == [None, "One", "Two"]
    assert [claim.failures for _, claim in claims] == [0, 1, 2]
    assert (final.status, final.attempt, final.text) == ("failed", claims[-1][0], "Three")
    assert final.error == Fault(
        code="provider_unavailable", message="Overloaded.", retryable=True, retry_after=0.0
    )


async def test_a_fault_that_will_not_pass_ends_the_run_at_once(stage: Stage):
    provider = Scripted([WRONG], ["Never said.", DONE])

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    final = await stage.final()
    assert (final.status, final.error) == (
        "failed",
        Fault(code="model_not_found", message="No such model.", retryable=False),
    )
    assert len(provider.prompts) == 1


async def test_an_answer_that_just_stops_is_no_answer(stage: Stage):
    provider = Scripted(["Cut o"], ["Whole.", DONE])

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    assert (len(await stage.claims()), (await stage.final()).text) == (2, "Whole.")


async def test_every_failed_call_is_told_in_the_fact_that_ends_its_attempt(stage: Stage):
    provider = Scripted([BUSY], ["Half", BUSY], [BUSY], ["Whole.", DONE])

    async with stage.worker(provider, provider_failures=9) as worker:
        await worker.handle(stage.delivery)

    (_, first), (_, second) = await stage.claims()
    final = await stage.final()
    assert (first.previous, second.previous and second.previous.text) == (None, "Half")
    assert second.previous is not None
    assert [tried.message for tried in second.previous.tries] == ["Overloaded."] * 2
    [tried] = final.tries
    assert tried == Try(ms=tried.ms, code="provider_unavailable", message="Overloaded.")
    assert (final.status, final.text) == ("completed", "Whole.")


async def test_failed_calls_before_the_first_word_are_told_though_the_run_was_cancelled(
    stage: Stage,
):
    patient = ProviderError("Later.", code="timeout", transient=True, retry_after=30.0, status=504)
    provider = Scripted([patient])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await soon(provider.closed)
        await stage.cancel()
        async with asyncio.timeout(DEADLINE):
            await working

    final = await stage.final()
    [tried] = final.tries
    assert tried == Try(ms=tried.ms, code="timeout", message="Later.", status=504)
    assert (final.status, final.text) == ("cancelled", "")


async def test_a_wish_for_more_than_a_minute_fails_at_once_and_is_passed_on(stage: Stage):
    tomorrow = ProviderError("Tomorrow.", transient=True, retry_after=3600.0, status=429)
    provider = Scripted([tomorrow], ["Never said.", DONE])

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    final = await stage.final()
    assert (final.status, len(provider.prompts)) == ("failed", 1)
    assert final.error == Fault(
        code="provider_error", message="Tomorrow.", retryable=True, retry_after=3600.0
    )


async def test_a_first_word_that_never_came_is_not_asked_for_again(stage: Stage):
    silent = ProviderError("Silence.", code="timeout", transient=True, leave_alone=True)
    provider = Scripted([silent], ["Never said.", DONE])

    async with stage.worker(provider) as worker:
        await worker.handle(stage.delivery)

    final = await stage.final()
    assert (final.status, len(provider.prompts)) == ("failed", 1)
    assert final.error == Fault(code="timeout", message="Silence.", retryable=True)


async def test_a_refused_parameter_is_left_out_and_counts_as_no_failure(stage: Stage):
    refusal = ProviderError("no", transient=False, status=400, text="temperature is not supported")
    refusal.sent = frozenset(("temperature",))
    provider = Scripted([refusal], ["At last.", DONE])

    async with stage.worker(provider, provider_failures=1) as worker:
        await worker.handle(stage.delivery)

    (_, first), (_, second) = await stage.claims()
    assert first.prompt is not None
    assert second.prompt is not None
    assert (first.prompt.notes, second.prompt.notes) == (
        [],
        ["model-1 takes no temperature, so it was not sent."],
    )
    assert [prompt.learnt for prompt in provider.prompts] == [set(), {"temperature"}]
    assert (second.failures, (await stage.final()).text) == (0, "At last.")


async def test_attempts_that_a_provider_ended_are_no_silent_deaths(stage: Stage):
    failing: list[Script] = [[f"{n}", BUSY] for n in range(4)]
    provider = Scripted(*failing, ["Whole.", DONE])

    async with stage.worker(provider, provider_failures=9, silent_deaths=2) as worker:
        await worker.handle(stage.delivery)

    assert (len(await stage.claims()), (await stage.final()).text) == (5, "Whole.")


async def test_a_failed_run_is_one_warning_with_its_code_and_nobodys_words(stage: Stage):
    provider = Scripted(["Half of", WRONG])

    async with stage.worker(provider) as worker:
        with capture_logs() as logs:
            await worker.handle(stage.delivery)

    warnings = [line for line in logs if line["log_level"] != "info"]
    [(attempt, _)] = await stage.claims()
    assert warnings == [
        {
            "event": "run.failed",
            "log_level": "warning",
            "code": "model_not_found",
            "provider": provider.name,
            "model": "model-1",
            "attempt": attempt,
            "attempts": 1,
            "tries": 1,
            "length": 7,
        }
    ]
    [logged] = [line for line in logs if line["event"] == "provider.failed"]
    assert logged["url"] == "http://inner.example:8000/v1"


async def test_what_a_provider_gives_away_is_in_no_fact_and_no_log(stage: Stage):
    message = "No: the-configured-key, Bearer abcdefgh, inner.example:8000, http://10.0.0.9/x"
    busy = ProviderError(message, transient=True, retry_after=0.0, text=message)
    moved = ProviderError(
        message, transient=False, text=message, location="http://user:pass@10.0.0.9/x?key=abcdefgh"
    )
    provider = Scripted([busy], ["Half", busy], [moved])

    async with stage.worker(provider) as worker:
        with capture_logs() as logs:
            await worker.handle(stage.delivery)

    facts = "".join(encode(link.fact).decode() for link in await stage.chain())
    final = await stage.final()
    shown = "No: [redacted], Bearer [redacted], [private address], http://[private address]/x"
    assert final.error == Fault(code="provider_error", message=shown)
    assert [tried.message for tried in final.tries] == [shown]
    for secret in ("the-configured-key", "abcdefgh", "inner.example", "10.0.0.9"):
        assert secret not in facts
    assert "No:" not in str(logs)
    assert [line["location"] for line in logs if line.get("location")] == ["http://10.0.0.9/x"]
    assert not [line for line in logs for secret in ("key", "pass@") if secret in str(line)]


# -- owners -------------------------------------------------------------------------


async def test_a_run_whose_owner_is_at_it_is_left_alone(stage: Stage):
    go_on = asyncio.Event()
    provider = Scripted(["Mine ", go_on, "alone.", DONE])

    async with stage.worker(provider) as owner, stage.worker(Scripted()) as other:
        working = asyncio.create_task(owner.handle(stage.delivery))
        await soon(provider.waiting)
        with pytest.raises(RetryLater) as later:
            await other.handle(stage.delivery)
        with pytest.raises(RetryLater):
            await owner.handle(stage.delivery)
        go_on.set()
        await working

    assert str(later.value) == "its owner is at it"
    assert await stage.kinds() == ["todo.chat.0", "claim", "final"]
    assert (await stage.final()).text == "Mine alone."


async def test_a_run_whose_owner_is_silent_is_taken_over(stage: Stage):
    lost = await stage.claim()
    await stage.write(lost, "Half of")

    async with stage.worker(Scripted(["The whole.", DONE])) as worker:
        await worker.handle(stage.delivery)

    (_, _), (attempt, claim) = await stage.claims()
    final = await stage.final()
    assert claim.previous == PreviousAttempt(
        attempt=lost, text="Half of", reason="its worker was lost", timeline=[(0, 7)]
    )
    assert (final.status, final.attempt, final.text) == ("completed", attempt, "The whole.")
    deltas = [decode_token_event(m.data) for m in await stage.bus.read(TOKENS, stage.run.tokens)]
    assert deltas[:2] == [Delta(lost, 0, "Half of"), Delta(attempt, 0, "")]


async def test_who_takes_over_a_run_logs_whose_it_was(stage: Stage):
    lost = await stage.claim()
    [(_, before)] = await stage.claims()

    with capture_logs() as logs:
        async with stage.worker(Scripted(["The whole.", DONE])) as worker:
            await worker.handle(stage.delivery)

    (_, _), (attempt, _) = await stage.claims()
    by_event = {line["event"]: line for line in logs}
    assert by_event["attempt.taken_over"] == {
        "event": "attempt.taken_over",
        "log_level": "warning",
        "attempt": attempt,
        "previous_attempt": lost,
        "previous_worker": before.worker,
    }
    assert by_event["run.ended"]["attempts"] == 2


async def test_six_vanished_workers_are_enough(stage: Stage):
    last = [await stage.claim() for _ in range(6)][-1]
    await stage.write(last, "Half of")

    async with stage.worker(Scripted()) as worker:
        await worker.handle(stage.delivery)

    final = await stage.final()
    assert (final.status, final.attempt, final.text) == ("failed", last, "Half of")
    assert final.error == Fault(code="internal", message="Every worker that tried was lost.")


async def test_two_workers_that_race_for_a_todo_write_one_final(stage: Stage):
    providers = [Scripted(["Hello.", DONE], ["Hello.", DONE]) for _ in range(2)]

    async with stage.worker(providers[0]) as one, stage.worker(providers[1]) as other:
        outcomes = await asyncio.gather(
            one.handle(stage.delivery), other.handle(stage.delivery), return_exceptions=True
        )
        for worker in (one, other):
            await worker.handle(stage.delivery)

    assert {type(outcome) for outcome in outcomes} <= {type(None), RetryLater}
    final = await stage.final()
    assert (final.status, final.text) == ("completed", "Hello.")
    assert [seq for seq, _ in await stage.claims()][-1] == final.attempt
    assert (await stage.kinds())[-1] == "final"


@pytest.mark.parametrize("has_written", [True, False])
async def test_a_worker_that_was_overtaken_gives_up(stage: Stage, has_written: bool):
    go_on = asyncio.Event()
    provider = Scripted(["Stale ", go_on, "words", DONE])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(6)
        newer = await stage.claim("another")
        if has_written:
            await stage.write(newer, "Fresh")
        go_on.set()
        with pytest.raises(RetryLater):
            await working

    assert await stage.kinds() == ["todo.chat.0", "claim", "claim"]
    if has_written:
        written = await read_attempt(stage.bus, stage.run)
        assert (written.attempt, written.text) == (newer, "Fresh")


async def test_a_claim_tells_what_the_attempt_before_wrote_whosever_it_was(stage: Stage):
    go_on = asyncio.Event()
    provider = Scripted(["Ours", go_on, BUSY], ["The whole.", DONE])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(4)
        theirs = await stage.claim("vanished")
        await stage.write(theirs, "Theirs")
        go_on.set()
        await working

    (_, _), (_, _), (attempt, claim) = await stage.claims()
    assert claim.previous == PreviousAttempt(
        attempt=theirs, text="Theirs", reason="its worker was lost", timeline=[(0, 6)]
    )
    assert ((await stage.final()).attempt, (await stage.final()).text) == (attempt, "The whole.")


async def test_a_cancel_does_not_let_an_overtaken_worker_end_the_run(stage: Stage):
    provider = Scripted(["Stale ", asyncio.Event()])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(6)
        await stage.claim("another")
        await stage.cancel()
        with pytest.raises(RetryLater):
            await working

    assert await stage.kinds() == ["todo.chat.0", "claim", "claim", "cancel"]


async def test_a_run_that_the_store_ended_is_let_go(stage: Stage):
    provider = Scripted(["Half", asyncio.Event()])
    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(4)
        [(attempt, _)] = await stage.claims()
        final = RunEnded(
            at=now(), status="cancelled", attempt=attempt, text="", length=0, sha256=sha256("")
        )
        await extend(stage.bus, stage.run.fact("final"), final, expected=attempt)
        worker.owned.on_reconnect()
        with pytest.raises(RetryLater):
            await working

        await worker.handle(stage.delivery)

    assert await stage.kinds() == ["todo.chat.0", "claim", "final"]


@pytest.mark.parametrize("cancelled", [True, False])
async def test_nothing_is_written_back_into_an_erased_session(stage: Stage, cancelled: bool):
    go_on = asyncio.Event()
    provider = Scripted(["Secret ", go_on, "words", go_on, DONE])

    async with stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(7)
        if cancelled:
            await stage.cancel()
        await stage.erase()
        go_on.set()
        await asyncio.gather(working, return_exceptions=True)

    assert (await stage.bus.read(TOKENS, stage.run.tokens), await stage.kinds()) in [
        ([], []),
        ([], ["final"]),  # the cancel was faster than the erase
    ]


# -- stopping and bad days ------------------------------------------------------------


async def test_a_shutdown_in_mid_reply_hands_it_to_the_next_worker_at_once(stage: Stage):
    stuck = Scripted(["Half of ", asyncio.Event()])
    next_one = Scripted(["The whole.", DONE])

    async with (
        stage.worker(stuck) as leaving,
        stage.worker(next_one) as staying,
        stage.consumer(leaving) as todos,
    ):
        await stage.written(8)
        async with asyncio.timeout(5.0):  # sooner than the server would give it away
            await todos.stop(grace=0)
            async with stage.consumer(staying):
                final = await stage.ended()

    (first, _), (second, claim) = await stage.claims()
    previous = claim.previous
    assert previous is not None
    assert previous == PreviousAttempt(
        attempt=first,
        text="Half of ",
        reason="its worker was lost",
        timeline=[(previous.timeline[0][0], 8)],
    )
    assert (final.status, final.attempt, final.text) == ("completed", second, "The whole.")


async def test_a_shutdown_lets_a_reply_finish_within_the_grace_period(stage: Stage):
    go_on = asyncio.Event()
    provider = Scripted(["Half of ", go_on, "it.", DONE])

    async with stage.worker(provider) as worker, stage.consumer(worker) as todos:
        await stage.written(8)
        stopping = asyncio.create_task(todos.stop(grace=DEADLINE))
        go_on.set()
        await stopping

    assert await stage.kinds() == ["todo.chat.0", "claim", "final"]
    assert (await stage.final()).text == "Half of it."


async def test_a_reply_outlives_the_death_of_its_server(own_nats_server: NatsServer):
    go_on = asyncio.Event()
    provider = Scripted(["Before, ", go_on, "after.", DONE])

    async with a_stage(own_nats_server) as stage, stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(8)
        await own_nats_server.kill()
        go_on.set()
        await own_nats_server.start()
        async with asyncio.timeout(DEADLINE):
            await working
        written = await read_attempt(stage.bus, stage.run)

        assert await stage.kinds() == ["todo.chat.0", "claim", "final"]
        final = await stage.final()
        assert (final.status, final.text) == ("completed", "Before, after.")
        assert final.text.startswith(written.text)


async def test_a_reply_goes_on_while_its_server_pauses(own_nats_server: NatsServer):
    go_on = asyncio.Event()
    provider = Scripted(["Before, ", go_on, "after.", DONE])

    async with a_stage(own_nats_server) as stage, stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(stage.delivery))
        await stage.written(8)
        own_nats_server.pause()
        go_on.set()
        await asyncio.sleep(0)
        own_nats_server.resume()
        async with asyncio.timeout(DEADLINE):
            await working

        assert (await stage.final()).text == "Before, after."


# -- what cannot be kept ----------------------------------------------------------------


async def refuse_large_fields(bus: Bus) -> None:
    """Let FILES take nothing of any size, as where its disk is full."""
    config = (await bus.api(f"STREAM.INFO.{FILES}"))["config"]
    await bus.api(f"STREAM.UPDATE.{FILES}", config | {"max_msg_size": 1_000})


async def test_a_reply_that_cannot_be_kept_fails_and_is_paid_for_once(
    own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(endings, "_AGAIN", (0.0, 0.0))
    provider = Scripted(["y" * 300_000, DONE])

    async with a_stage(own_nats_server) as stage, stage.worker(provider) as worker:
        await refuse_large_fields(stage.bus)
        async with stage.consumer(worker):
            final = await stage.ended()
        chain = await stage.kinds()
        [(attempt, _)] = await stage.claims()

    assert chain == ["todo.chat.0", "claim", "final"]
    assert final == RunEnded(
        at=final.at,
        prev=attempt,
        nonce=final.nonce,
        status="failed",
        attempt=attempt,
        text="",
        length=0,
        sha256=sha256(""),
        model="model-1",
        provider=provider.name,
        usage=DONE.usage,
        latency_ms=final.latency_ms,
        first_delta_ms=final.first_delta_ms,
        error=Fault(
            code="internal", message="What was written could not be kept; the log says why."
        ),
    )
    assert len(provider.prompts) == 1


async def test_a_reply_is_kept_if_its_storage_had_only_moments_of_weakness(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(endings, "_AGAIN", (0.0, 0.0))
    pack, refusals = chain.pack, 2

    async def weak(bus: Bus, subject: str, data: bytes) -> bytes:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise NotKept("the disk is full")
        return await pack(bus, subject, data)

    monkeypatch.setattr(chain, "pack", weak)

    async with stage.worker(Scripted(["y" * 300_000, DONE])) as worker:
        await worker.handle(stage.delivery)

    final = await stage.final()
    assert (final.status, final.length, refusals) == ("completed", 300_000, 0)


async def test_a_run_that_nobody_can_handle_ends_although_its_text_cannot_be_kept(
    own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(endings, "_AGAIN", (0.0, 0.0))
    fault = Fault(code="internal", message="This could not be handled; the log says why.")

    async with a_stage(own_nats_server) as stage:
        attempt = await stage.claim()
        for offset in range(0, 400_000, 40_000):
            await stage.write(attempt, "z" * 40_000, offset)
        await refuse_large_fields(stage.bus)
        done = await end_unhandled(stage.bus, stage.run, fault, although_claimed=True)
        final = await stage.final()

    assert done
    assert (final.status, final.attempt, final.length) == ("failed", attempt, 0)


async def test_a_lost_attempt_of_any_length_is_kept_in_the_next_claim(stage: Stage):
    text = "".join(f"{n:07d}\x01" for n in range(400_000))  # 3.2 MB, and 5 MB of JSON
    attempt, offset = await stage.claim(), 0
    for piece in split(text):
        await stage.write(attempt, piece, offset)
        offset += len(piece)

    async with stage.worker(Scripted(["Once more.", DONE])) as worker:
        await worker.handle(stage.delivery)

    [_, (_, claim)] = await stage.claims()
    assert claim.previous is not None
    assert (claim.previous.attempt, claim.previous.text == text) == (attempt, True)
    stored = await stage.bus.facts_after(EVENTS, stage.run.facts, 0)
    assert max(len(fact.data) for fact in stored) <= 256 * 1024
    assert (await stage.final()).text == "Once more."


async def test_a_reply_that_ends_at_its_bound_says_so(stage: Stage):
    provider = Scripted(["0123456789" * 10, "more", DONE])

    async with stage.worker(provider, max_reply=42) as worker:
        await worker.handle(stage.delivery)

    final = await stage.final()
    assert (final.status, final.stop_reason, final.error) == ("completed", "max_length", None)
    assert (final.text, final.usage) == (("0123456789" * 10)[:42], None)
    await soon(provider.closed)


# -- a reply that goes on ---------------------------------------------------------------

CUT = ContextMessage(
    id="a",
    role="assistant",
    content="Once upon a",
    thoughts=Thoughts(text="A raven?", blocks=[{"signature": "one"}]),
    provider="p",
    model="model-1",
    stop_reason="max_tokens",
)
MORE = Ended(
    stop_reason="max_tokens",
    usage=Usage(input_tokens=9, output_tokens=2),
    thoughts=Thoughts(text="Midnight.", blocks=[{"signature": "two"}]),
)


@pytest.fixture
async def cut_stage(nats_server: NatsServer) -> AsyncIterator[Stage]:
    async with a_stage(nats_server, CUT) as made:
        yield made


async def test_a_reply_goes_on_and_its_run_has_the_whole_of_it(cut_stage: Stage):
    go_on = asyncio.Event()
    provider = Scripted([go_on, " midnight", " dreary", MORE])
    heard: list[Delta | Progress] = []
    await cut_stage.bus.listen_live(
        f"live.{cut_stage.run.tokens}",
        lambda message: heard.append(decode_token_event(message.data)),
    )

    async with cut_stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(cut_stage.delivery))
        await cut_stage.written(11)  # what was there comes at once
        go_on.set()
        await working

    [(attempt, claim)] = await cut_stage.claims()
    final = await cut_stage.final()
    whole = "Once upon a midnight dreary"
    assert (final.status, final.text, final.length) == ("completed", whole, 27)
    assert (final.sha256, final.stop_reason) == (sha256(whole), "max_tokens")
    assert final.usage == MORE.usage
    assert final.timeline[0][1] == 11
    assert final.first_delta_ms == final.timeline[1][0]
    first = heard[0]
    assert isinstance(first, Delta)
    assert (first.attempt, first.offset, first.text) == (attempt, 0, "Once upon a")
    [prompt] = provider.prompts
    assert [(m.role, m.content) for m in prompt.messages] == [
        ("user", "?"),
        ("assistant", "Once upon a"),
        ("user", GO_ON),
    ]
    assert claim.prompt is not None
    assert (claim.prompt.message_ids, claim.prompt.go_on) == (["u", "a"], GO_ON)


async def test_thoughts_of_a_reply_that_goes_on_are_kept_together(cut_stage: Stage):
    provider = Scripted([" midnight", MORE])
    provider.name = "p"

    async with cut_stage.worker(provider) as worker:
        await worker.handle(cut_stage.delivery)

    assert (await cut_stage.final()).thoughts == Thoughts(
        text="A raven?\n\nMidnight.", blocks=[{"signature": "one"}, {"signature": "two"}]
    )


async def test_signed_thoughts_of_another_model_are_kept_as_text_alone(cut_stage: Stage):
    provider = Scripted([" midnight", DONE])

    async with cut_stage.worker(provider) as worker:
        await worker.handle(cut_stage.delivery)

    assert (await cut_stage.final()).thoughts == Thoughts(text="A raven?")


async def test_a_fault_before_the_first_new_word_is_retried_unseen(cut_stage: Stage):
    provider = Scripted([BUSY], [" midnight", DONE])

    async with cut_stage.worker(provider) as worker:
        await worker.handle(cut_stage.delivery)

    assert await cut_stage.kinds() == ["todo.chat.0", "claim", "final"]
    assert (await cut_stage.final()).text == "Once upon a midnight"


async def test_a_continuation_that_starts_over_begins_with_the_old_text(cut_stage: Stage):
    go_on = asyncio.Event()
    provider = Scripted([" noon", go_on, BUSY], [" midnight", DONE])

    async with cut_stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(cut_stage.delivery))
        await cut_stage.written(16)
        go_on.set()
        await working

    (_, _), (second, claim) = await cut_stage.claims()
    final = await cut_stage.final()
    assert claim.previous is not None
    assert claim.previous.text == "Once upon a noon"
    assert (final.attempt, final.text) == (second, "Once upon a midnight")


async def test_a_continuation_of_a_lost_worker_begins_with_the_old_text(cut_stage: Stage):
    lost = await cut_stage.claim()
    await cut_stage.write(lost, "Once upon a no")
    provider = Scripted([" midnight", DONE])

    async with cut_stage.worker(provider) as worker:
        await worker.handle(cut_stage.delivery)

    (_, _), (_, claim) = await cut_stage.claims()
    assert claim.previous is not None
    assert claim.previous.text == "Once upon a no"
    assert (await cut_stage.final()).text == "Once upon a midnight"


async def test_a_continuation_cancelled_before_its_first_word_has_the_old_text(cut_stage: Stage):
    provider = Scripted([asyncio.Event()])

    async with cut_stage.worker(provider) as worker:
        working = asyncio.create_task(worker.handle(cut_stage.delivery))
        await soon(provider.waiting)
        await cut_stage.cancel()
        await working

    final = await cut_stage.final()
    assert (final.status, final.text, final.stop_reason) == ("cancelled", "Once upon a", None)


async def test_a_cancel_that_comes_just_before_the_end_takes_the_stop_reason(stage: Stage):
    provider = Scripted(["Whole", DONE])
    appended = asyncio.Event()

    async with stage.worker(provider) as worker:
        conclude = worker.owned.conclude

        async def later(run: Any, final: RunEnded) -> None:
            await stage.cancel()
            appended.set()
            await conclude(run, final)

        worker.owned.conclude = later  # type: ignore[method-assign]
        await worker.handle(stage.delivery)

    final = await stage.final()
    assert appended.is_set()
    assert (final.status, final.text, final.stop_reason) == ("cancelled", "Whole", None)
