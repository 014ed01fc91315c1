"""Work on chat and generate todos: each becomes a streamed text in the log.

``handle`` is the list of the steps of one text; they follow below in that
order.  What is asked, and what comes after the answer, is the task's
(:mod:`services.llm_worker.tasks`); who owns the run is settled by its chain
(:mod:`shared.ownership`).
"""

import asyncio
from contextlib import suppress
from datetime import timedelta

import msgspec
import structlog
from msgspec import UNSET

from services.llm_worker.breaker import Breaker
from services.llm_worker.delta_writer import DeltaWriter
from services.llm_worker.generate import Calls, Outcome, generate
from services.llm_worker.pacer import Pacer
from services.llm_worker.prices import Prices
from services.llm_worker.providers.base import Ended, Prompt, Provider, ProviderError
from services.llm_worker.providers.registry import Registry
from services.llm_worker.refusals import PartRefused, Refusals, learnt_notes
from services.llm_worker.retries import backoff, worth_another
from services.llm_worker.tasks import Next, Task, task_of
from shared.bus import Bus, BusError
from shared.commands import Context, GetContext
from shared.consumer import LEASE, Delivery, RetryLater
from shared.deltas import read_attempt
from shared.endings import ended as ended_now
from shared.errors import NotFound, Unavailable, shortened
from shared.events import EndStatus, Fault, PreviousAttempt, PromptSource
from shared.ids import now
from shared.log import get_logger
from shared.ownership import OwnedRun, RunOwnership
from shared.settings import Settings
from shared.store_client import StoreClient
from shared.subjects import TOKENS

log = get_logger()

_NEW = timedelta(seconds=5.0)
"""How old a todo is at most that nobody can have taken up long ago."""

MOST_REFUSALS = 20
"""Attempts of a run of which each may find out something that the model does not take."""
LONGEST_WISH = 7 * 24 * 3600.0
"""Seconds of a provider's wish that are passed on; more is a mistake."""
MOST_NOTED = 1_000

_CLOSING = 1.0
"""Seconds that a provider may take to close its connection before the final goes out."""

Run = OwnedRun[DeltaWriter]


class Worker:
    """What one llm_worker process works with; ``owned`` are the runs that it is at."""

    def __init__(
        self, bus: Bus, settings: Settings, registry: Registry, breaker: Breaker, worker_id: str
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._registry = registry
        self._store = StoreClient(bus)
        self._prices = Prices(settings)
        self._calls = Calls(breaker, registry.redaction, self._prices, registry.urls)
        self._pacer = Pacer(settings.publishes_per_second)
        self._refusals = Refusals()
        self._noted = set[str]()
        """Notes that stand in the log already: each does once."""
        self.owned = RunOwnership[DeltaWriter](bus, worker_id)

    # -- one text, step by step ---------------------------------------------------

    async def handle(self, delivery: Delivery) -> None:
        """Turn one todo into a text, and append what comes after it.

        Raises:
            RetryLater: the store is away, or another worker is at it.
            Rejected: it is no todo of this worker's.
        """
        address, task = delivery.address, task_of(delivery, self._bus, self._prices)
        bound = structlog.contextvars.bound_contextvars
        with (
            bound(run_id=address.run, session_id=address.session),
            self.owned.take(delivery) as run,
        ):
            context = await self._context(delivery, task)
            if context is None:
                return
            # Of a new todo the claim itself finds out who was faster; an old one may be long over.
            if delivery.delivered > 1 or now() - delivery.fact.at > _NEW:
                await self.owned.look_up(run, delivery)
                await self.owned.leave_to_owner(run)
            await self._answer(run, delivery, context, task)

    async def _context(self, delivery: Delivery, task: Task) -> Context | None:
        """What the text is to be written from; None when its session is gone.

        The todo is at hand, so the store need not have got further than to the fact before it.
        """
        address = delivery.address
        try:
            return await self._store.ask(
                GetContext(
                    user_id=address.user,
                    session_id=address.session,
                    turn=task.turn,
                    min_seq=delivery.fact.prev,
                )
            )
        except NotFound:
            log.info("run.gone")
            return None
        except (Unavailable, BusError) as error:
            raise RetryLater(1.0, "the store is away") from error

    async def _answer(self, run: Run, delivery: Delivery, context: Context, task: Task) -> None:
        """Attempt the text until it has an end: one claim, one text, one fact after it."""
        state = run.state
        opening = task.opening(context)
        lost_to: Fault | None = None
        while not state.over:
            if run.lost:
                raise RetryLater(LEASE, "another attempt has begun")
            previous, token_head = await self._previous(run, task, lost_to)
            if state.cancelled:
                return await self._conclude(run, task, "cancelled", previous)
            if state.deaths >= self._settings.silent_deaths:
                fault = Fault(code="internal", message="Every worker that tried was lost.")
                return await self._conclude(run, task, "failed", previous, error=fault)
            try:
                provider, model = await self._registry.resolve(context.model)
                refused = self._refusals.of(provider.name, model)
                prompt = await task.prompt(provider, model, context, refused)
                prompt = msgspec.structs.replace(prompt, asker=run.address)
            except ProviderError as error:
                return await self._conclude(run, task, "failed", previous, error=_fault(error))
            if run.interrupted.is_set():  # meanwhile: nothing need be claimed for that
                continue
            source = self._source(provider, prompt)
            attempt = await self.owned.claim(run, delivery, source, previous)
            if attempt is not None:
                writer = self._writer(run, attempt, token_head, opening)
                outcome = await self._write(run, writer, provider, prompt)
                lost_to = await self._settle(run, task, outcome, source)
        return None

    async def _settle(
        self, run: Run, task: Task, outcome: Outcome | None, source: PromptSource
    ) -> Fault | None:
        """Go on as the attempt ended, or wait until it is time for another: then with why."""
        if run.lost:
            return None
        if outcome is None:
            await self._conclude(run, task, "cancelled", None, source=source)
            return None
        if outcome.ended is not None:
            await self._complete(run, task, outcome.ended, source)
            return None
        fault = outcome.fault
        assert fault is not None  # noqa: S101  (one of the two is set)
        if isinstance(fault, PartRefused) and run.state.claims < MOST_REFUSALS:
            self._refusals.remember(source.provider, source.model, fault)
            log.info("prompt.refused", model=source.model, part=fault.part)
            return _fault(fault)  # the next attempt's prompt is made without it
        if not worth_another(fault, outcome.failures, self._settings.provider_failures):
            await self._conclude(run, task, "failed", None, source=source, error=_fault(fault))
            return None
        log.info("attempt.lost", attempt=run.state.attempt, reason=fault.code)
        with suppress(TimeoutError):  # a cancel need not wait for the next try
            pause = backoff(outcome.failures, fault.retry_after)
            await asyncio.wait_for(run.interrupted.wait(), pause)
        return _fault(fault)

    async def _complete(self, run: Run, task: Task, ended: Ended, source: PromptSource) -> None:
        """End the run or append its next todo, as the task judges the complete answer."""
        writer = run.own_writer
        verdict = task.judge(writer.text if writer else "", ended)
        match verdict:
            case Next(subject, todo, reason):
                attempt_before = _previous_attempt(writer, reason) if writer else None
                todo = msgspec.structs.replace(todo, previous=attempt_before)
                await self.owned.append_next_todo(run, subject, todo)
            case Fault():
                await self._conclude(
                    run, task, "failed", None, source=source, ended=ended, error=verdict
                )
            case None:
                await self._conclude(run, task, "completed", None, source=source, ended=ended)

    async def _previous(
        self, run: Run, task: Task, fault: Fault | None
    ) -> tuple[PreviousAttempt | None, int]:
        """What the attempt before wrote, and the last sequence of the run on TOKENS."""
        state = run.state
        if state.claim is None:
            if task.begins_run:
                return None, 0
            last = await self._bus.head(TOKENS, run.address.tokens)  # of an earlier step
            return None, last.seq if last else 0
        written = await read_attempt(self._bus, run.address, state.attempt)
        if (writer := run.own_writer) is not None:  # so we know all of it
            previous = _previous_attempt(writer, "the provider failed")
            return msgspec.structs.replace(previous, fault=fault), written.seq
        previous = PreviousAttempt(
            attempt=state.attempt,
            text=written.text,
            reason="its worker was lost",
            timeline=written.timeline,
        )
        return previous, written.seq

    def _source(self, provider: Provider, prompt: Prompt) -> PromptSource:
        """What the prompt is made of, for the claim."""
        notes = [*prompt.notes, *learnt_notes(prompt), *provider.notes(prompt)]
        if len(self._noted) > MOST_NOTED:
            self._noted.clear()
        for note in notes:
            if note not in self._noted:
                self._noted.add(note)
                log.warning("prompt.note", note=note)
        return PromptSource(
            provider=provider.name,
            model=prompt.model,
            system=prompt.system,
            message_ids=prompt.message_ids,
            temperature=prompt.temperature,
            max_tokens=prompt.max_tokens,
            notes=notes,
            files=prompt.sent,
            go_on=prompt.go_on,
        )

    async def _write(
        self, run: Run, writer: DeltaWriter, provider: Provider, prompt: Prompt
    ) -> Outcome | None:
        """Stream the provider into the log; None when the run was interrupted."""
        streaming = asyncio.create_task(
            generate(
                provider,
                prompt,
                writer,
                self._calls,
                failures=run.state.failures,
                most_failures=self._settings.provider_failures,
                max_reply=self._settings.max_reply,
            )
        )
        interrupted = asyncio.create_task(run.interrupted.wait())
        try:
            await asyncio.wait({streaming, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupted.cancel()
            if not streaming.done():  # closing its generator closes the provider's connection
                streaming.cancel()
                await asyncio.wait({streaming}, timeout=_CLOSING)
        if run.interrupted.is_set():
            _log_closing_failure(streaming)
            return None
        outcome = streaming.result()
        if run.state.claim is not None:
            run.state.claim = msgspec.structs.replace(run.state.claim, failures=outcome.failures)
        return outcome

    def _writer(self, run: Run, attempt: int, token_head: int, opening: str) -> DeltaWriter:
        """What writes this attempt's deltas; the one of an attempt before it is closed."""
        if run.writer is not None:
            run.writer.close()
        run.writer = DeltaWriter(
            self._bus,
            run.address,
            attempt,
            self._pacer,
            head=token_head,
            still_mine=lambda: self.owned.look(run),
            lost=lambda: run.interrupt(lost=True),
            claimed_at=run.state.claim.at if run.state.claim else None,
        )
        if run.state.claims > 1:
            run.writer.begin()
        if opening:
            run.writer.open_with(opening)
        return run.writer

    async def _conclude(
        self,
        run: Run,
        task: Task,
        status: EndStatus,
        previous: PreviousAttempt | None,
        *,
        source: PromptSource | None = None,
        ended: Ended | None = None,
        error: Fault | None = None,
    ) -> None:
        """End the run with what was written."""
        claim = run.state.claim
        source = source or (claim.prompt if claim else None)
        writer = run.own_writer
        if writer is not None:
            writer.close()
            text, timeline = writer.text, writer.timeline
        else:
            text, timeline = (previous.text, previous.timeline) if previous else ("", [])
        final = msgspec.structs.replace(
            ended_now(status, text, attempt=run.state.attempt, error=error),
            model=source.model if source else None,
            provider=source.provider if source else None,
            stop_reason=ended.stop_reason if ended and status == "completed" else None,
            usage=ended.usage if ended else None,
            thoughts=ended.thoughts if ended else None,
            notes=ended.notes if ended else [],
            latency_ms=writer.elapsed_ms if writer else None,
            first_delta_ms=writer.first_delta_ms if writer else None,
            timeline=timeline,
            tries=writer.tries if writer else [],
        )
        await self.owned.conclude(run, task.dress(final))


def _previous_attempt(writer: DeltaWriter, reason: str) -> PreviousAttempt:
    """What this worker's attempt wrote; its writer is closed first, so that no delta is missing."""
    writer.close()
    return PreviousAttempt(
        attempt=writer.attempt,
        text=writer.text,
        reason=reason,
        timeline=writer.timeline,
        tries=writer.tries,
    )


def _log_closing_failure(streaming: asyncio.Task[Outcome]) -> None:
    """A provider that fails while it is being closed changes nothing: the run was interrupted."""
    if streaming.done() and not streaming.cancelled() and (error := streaming.exception()):
        log.warning("provider.closing_failed", error=type(error).__name__)


def _fault(error: ProviderError) -> Fault:
    wish = error.retry_after
    return Fault(
        code=error.code,
        message=shortened(error.message),
        retryable=error.transient,
        retry_after=UNSET if wish is None else round(min(wish, LONGEST_WISH), 3),
    )
