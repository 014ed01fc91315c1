"""Work on chat todos: each becomes a streamed reply in the log.

``handle`` is the list of the steps of one reply; they follow below in that
order.  What may go wrong is decided by the run's chain alone (architecture.md, laws 3
and 4): a delivery proves nothing, a claim that the server stored does.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress

import msgspec
import structlog

from services.llm_worker.breaker import Breaker
from services.llm_worker.delta_writer import DeltaWriter
from services.llm_worker.generate import Outcome, backoff, generate
from services.llm_worker.pacer import Pacer
from services.llm_worker.providers.base import Ended, Prompt, PromptMessage, Provider, ProviderError
from services.llm_worker.providers.registry import Registry
from services.llm_worker.standing import Standing
from shared import subjects
from shared.bus import Bus, BusError, Incoming
from shared.chain import Overtaken, extend, read_chain
from shared.commands import Context, GetContext
from shared.consumer import ACK_WAIT, Delivery, RetryLater
from shared.deltas import read_attempt
from shared.endings import ended as ended_now
from shared.errors import NotFound, Unavailable
from shared.events import (
    CancelRequested,
    EndStatus,
    Fault,
    PreviousAttempt,
    PromptSource,
    RunClaimed,
)
from shared.ids import now
from shared.log import get_logger
from shared.settings import Settings
from shared.store_client import StoreClient
from shared.subjects import Address

log = get_logger()

ASK_OWNER = 0.3
"""Seconds that a run's owner has to say that it is still at it."""
_LOOK_EVERY = 5.0
_CLOSING = 1.0
"""Seconds that a provider may take to close its connection before the final goes out."""


class HeldRun:
    """A run that this worker is at: how far its chain is, and whether to stop."""

    def __init__(self, address: Address, standing: Standing) -> None:
        self.address = address
        self.standing = standing
        self.writer: DeltaWriter | None = None
        self.interrupted = asyncio.Event()
        """A cancel came, or the run was lost: stop the provider."""
        self.lost = False

    def interrupt(self, *, lost: bool = False) -> None:
        """Stop the provider, and write no more deltas: what they would say goes with the final."""
        self.lost = self.lost or lost
        self.interrupted.set()
        if self.writer is not None:
            self.writer.close()

    @property
    def own_writer(self) -> DeltaWriter | None:
        """The writer of the run's latest attempt; None if that is another worker's."""
        writer = self.writer
        return writer if writer and writer.attempt == self.standing.attempt else None


class Worker:
    """Everything that one llm_worker process remembers: the runs that it is at."""

    def __init__(
        self, bus: Bus, settings: Settings, registry: Registry, breaker: Breaker, worker_id: str
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._registry = registry
        self._breaker = breaker
        self._id = worker_id
        self._store = StoreClient(bus)
        self._pacer = Pacer(settings.publishes_per_second)
        self._runs: dict[str, HeldRun] = {}
        self._looks: set[asyncio.Task[None]] = set()

    # -- one reply, step by step --------------------------------------------------

    async def handle(self, delivery: Delivery) -> None:
        """Turn one todo into a reply.

        Raises:
            RetryLater: the store is away, or another worker is at it.
        """
        address = delivery.address
        bound = structlog.contextvars.bound_contextvars
        with bound(run_id=address.run, session_id=address.session), self._hold(delivery) as run:
            context = await self._context(delivery)
            if context is None:
                return
            await self._look_up(run, delivery, context)
            await self._ask_owner(run)
            await self._reply(run, delivery, context)

    @contextmanager
    def _hold(self, delivery: Delivery) -> Generator[HeldRun]:
        """Be at the run, for whoever asks, until its handling ends."""
        address = delivery.address
        if address.run in self._runs:
            raise RetryLater(ACK_WAIT, "this worker is at it already")
        run = self._runs[address.run] = HeldRun(address, Standing(delivery.seq))
        try:
            yield run
        finally:
            del self._runs[address.run]
            if run.writer is not None:
                run.writer.close()

    async def _context(self, delivery: Delivery) -> Context | None:
        """What the reply is to be written from; None when its session is gone."""
        address = delivery.address
        try:
            return await self._store.ask(
                GetContext(
                    user_id=address.user,
                    session_id=address.session,
                    run_id=address.run,
                    min_seq=delivery.seq,
                )
            )
        except NotFound:
            log.info("run.gone")
            return None
        except (Unavailable, BusError) as error:
            raise RetryLater(1.0, "the store is away") from error

    async def _look_up(self, run: HeldRun, delivery: Delivery, context: Context) -> None:
        """Where the run stands; the leader is asked only if the run got past its todo."""
        if context.run.last_seq != delivery.seq:
            run.standing.add(await read_chain(self._bus, run.address.facts, delivery.seq))
            run.standing.over = run.standing.over or context.run.ended_at is not None

    async def _ask_owner(self, run: HeldRun) -> None:
        """Leave a run to the worker that claimed it, if it says that it is at it.

        Without asking, a server's pause of a few seconds takes every reply from
        its healthy worker (docs/failures.md).
        """
        claim = run.standing.claim
        if run.standing.over or claim is None or claim.worker == self._id:
            return
        try:
            answer = await self._bus.call(
                subjects.holds(claim.worker), run.address.run.encode(), timeout=ASK_OWNER
            )
        except BusError:
            return  # silence: nobody is at it
        if answer.data == b"1":
            raise RetryLater(2.0, "its owner is at it")

    async def _reply(self, run: HeldRun, delivery: Delivery, context: Context) -> None:
        """Attempt the reply until it has an end: one claim, one text, one final."""
        standing = run.standing
        while not standing.over:
            if run.lost:
                raise RetryLater(ACK_WAIT, "another attempt has begun")
            previous, tick_head = await self._previous(run)
            if standing.cancelled:
                return await self._conclude(run, "cancelled", previous)
            if standing.claims >= self._settings.silent_deaths:
                fault = Fault(code="internal", message="Every worker that tried was lost.")
                return await self._conclude(run, "failed", previous, error=fault)
            try:
                provider, prompt = await self._prompt(context)
            except ProviderError as error:
                return await self._conclude(run, "failed", previous, error=_fault(error))
            if run.interrupted.is_set():  # meanwhile: nothing need be claimed for that
                continue
            source = _source(context, provider, prompt)
            try:
                attempt = await self._claim(run, delivery, source, previous)
            except Overtaken as overtaken:
                self._take_in(run, overtaken)
                await self._ask_owner(run)
                continue
            outcome = await self._write(run, attempt, tick_head, provider, prompt)
            await self._settle(run, outcome, source)
        return None

    async def _settle(self, run: HeldRun, outcome: Outcome | None, source: PromptSource) -> None:
        """End the run as its attempt ended, or wait until it is time for another."""
        if run.lost:
            return None
        if outcome is None:
            return await self._conclude(run, "cancelled", None, source=source)
        fault = outcome.fault
        if fault is None:
            return await self._conclude(run, "completed", None, source=source, ended=outcome.ended)
        if not fault.passing or outcome.failures >= self._settings.provider_failures:
            return await self._conclude(run, "failed", None, source=source, error=_fault(fault))
        log.info("attempt.lost", attempt=run.standing.attempt, reason=fault.code)
        with suppress(TimeoutError):  # a cancel need not wait for the next try
            pause = backoff(outcome.failures, fault.retry_after)
            await asyncio.wait_for(run.interrupted.wait(), pause)
        return None

    async def _previous(self, run: HeldRun) -> tuple[PreviousAttempt | None, int]:
        """What the attempt before wrote, and the last sequence of the run's deltas."""
        standing = run.standing
        if standing.claim is None:
            return None, 0
        written = await read_attempt(self._bus, run.address, standing.attempt)
        text, reason, timeline = written.text, "its worker was lost", []
        if (writer := run.own_writer) is not None:  # so we know all of it
            text, timeline = writer.text, writer.timeline
            reason = "the provider failed"
        previous = PreviousAttempt(
            attempt=standing.attempt, text=text, reason=reason, timeline=timeline
        )
        return previous, written.seq

    async def _prompt(self, context: Context) -> tuple[Provider, Prompt]:
        provider, model = await self._registry.resolve(context.model)
        messages = [PromptMessage(m.role, m.content) for m in context.messages]
        prompt = Prompt(
            model=model,
            messages=messages,
            system=context.system_prompt,
            temperature=context.temperature,
            max_tokens=context.max_tokens,
        )
        return provider, prompt

    async def _claim(
        self,
        run: HeldRun,
        delivery: Delivery,
        source: PromptSource,
        previous: PreviousAttempt | None,
    ) -> int:
        """Own the run; the claim's sequence is the attempt's id.

        Raises:
            Overtaken: somebody else's fact came first.
        """
        claim = RunClaimed(
            at=now(),
            worker=self._id,
            todo=delivery.seq,
            prompt=source,
            previous=previous,
            failures=run.standing.failures,
        )
        attempt = await extend(
            self._bus, run.address.fact("claim"), claim, expected=run.standing.head
        )
        run.standing.head = run.standing.attempt = attempt
        run.standing.claim = claim
        run.standing.claims += 1
        return attempt

    async def _write(
        self, run: HeldRun, attempt: int, tick_head: int, provider: Provider, prompt: Prompt
    ) -> Outcome | None:
        """Stream the provider into the log; None when the run was interrupted."""
        if run.writer is not None:
            run.writer.close()
        writer = run.writer = DeltaWriter(
            self._bus,
            run.address,
            attempt,
            self._pacer,
            head=tick_head,
            still_mine=lambda: self._look(run),
            lost=lambda: run.interrupt(lost=True),
        )
        if run.standing.claims > 1:
            writer.begin()
        streaming = asyncio.create_task(
            generate(
                provider,
                prompt,
                writer,
                self._breaker,
                failures=run.standing.failures,
                most_failures=self._settings.provider_failures,
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
            _say_what_closing_broke(streaming)
            return None
        outcome = streaming.result()
        if run.standing.claim is not None:
            run.standing.claim = msgspec.structs.replace(
                run.standing.claim, failures=outcome.failures
            )
        return outcome

    async def _conclude(
        self,
        run: HeldRun,
        status: EndStatus,
        previous: PreviousAttempt | None,
        *,
        source: PromptSource | None = None,
        ended: Ended | None = None,
        error: Fault | None = None,
    ) -> None:
        """Append the one final.  A cancel that came first wins over how the text ended."""
        writer = run.own_writer
        if writer is not None:
            writer.close()
            text, timeline = writer.text, writer.timeline
        else:
            text, timeline = (previous.text, previous.timeline) if previous else ("", [])
        final = msgspec.structs.replace(
            ended_now(status, text, attempt=run.standing.attempt, error=error),
            model=source.model if source else None,
            provider=source.provider if source else None,
            stop_reason=ended.stop_reason if ended else None,
            usage=ended.usage if ended else None,
            latency_ms=writer.elapsed_ms if writer else None,
            first_delta_ms=writer.first_delta_ms if writer else None,
            timeline=timeline,
        )
        while True:
            attempt = run.standing.attempt
            if run.standing.cancelled:
                final = msgspec.structs.replace(final, status="cancelled", error=None)
            try:
                await extend(
                    self._bus, run.address.fact("final"), final, expected=run.standing.head
                )
            except Overtaken as overtaken:
                self._take_in(run, overtaken)
                if run.standing.over:
                    return
                if run.standing.attempt != attempt:
                    raise RetryLater(ACK_WAIT, "another attempt has begun") from overtaken
            else:
                run.standing.over = True
                log.info("run.ended", status=final.status, attempt=attempt, length=final.length)
                return

    def _take_in(self, run: HeldRun, overtaken: Overtaken) -> None:
        # Refused, and nothing there: the chain was erased with its session.
        run.standing.over = run.standing.over or not overtaken.links
        run.standing.add(overtaken.links)

    # -- being asked, cancelled, cut off ---------------------------------------------

    def on_holds(self, message: Incoming) -> None:
        """Another worker, or the store, asks whether this worker is at a run."""
        held = message.data.decode() in self._runs
        self._bus.post(message.reply, b"1" if held else b"0")

    def on_cancel(self, message: Incoming) -> None:
        """Somebody wants a run to stop."""
        run = self._runs.get(subjects.parse(message.subject).run)
        if run is not None:
            # The head stays where the chain was read last: between there and this
            # cancel may lie another worker's claim, and then the run is not ours to end.
            run.standing.cancelled = True
            run.interrupt()

    def on_reconnect(self) -> None:
        """Deltas, cancels or the run itself may have been lost meanwhile: look at each."""
        for run in self._runs.values():
            self._look_soon(run)
            if run.writer is not None:
                run.writer.recheck()

    async def watch(self) -> None:
        """Look at each run's chain now and then: a live cancel may get lost on its way."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            with suppress(BusError):  # the bus is away; the next round looks again
                for run in list(self._runs.values()):
                    await self._look_in_peace(run)

    async def _look_in_peace(self, run: HeldRun) -> None:
        try:
            await self._look(run)
        except BusError:
            raise
        except Exception:  # one run's trouble must not end the watch over the others
            log.exception("run.look_failed", run_id=run.address.run)

    def _look_soon(self, run: HeldRun) -> None:
        task = asyncio.create_task(self._look_until_seen(run))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _look_until_seen(self, run: HeldRun) -> None:
        while run.address.run in self._runs:
            try:
                await self._look(run)
            except BusError:
                await self._bus.wait_connected()
                await asyncio.sleep(0.1)
            else:
                return

    async def _look(self, run: HeldRun) -> bool:
        """Whether the run is still this attempt's; takes in a cancel on the way.

        Raises:
            BusError: its chain could not be read.
        """
        known = run.standing.head
        stored = await self._bus.head(subjects.EVENTS, run.address.facts)
        if stored is None:  # erased with its session
            run.interrupt(lost=True)
            return False
        if stored.seq <= run.standing.head:
            return True
        for link in await read_chain(self._bus, run.address.facts, known):
            match link.fact:
                case RunClaimed() as claim if claim.worker == self._id:
                    continue
                case CancelRequested():
                    run.standing.add([link])
                    run.interrupt()
                case _:
                    run.interrupt(lost=True)
                    return False
        return True


def _source(context: Context, provider: Provider, prompt: Prompt) -> PromptSource:
    notes = provider.notes(prompt)
    for note in notes:
        log.warning("prompt.note", note=note)
    return PromptSource(
        provider=provider.name,
        model=prompt.model,
        system=prompt.system,
        message_ids=[m.id for m in context.messages],
        temperature=prompt.temperature,
        max_tokens=prompt.max_tokens,
        notes=notes,
    )


def _say_what_closing_broke(streaming: asyncio.Task[Outcome]) -> None:
    """A provider that fails while it is being closed changes nothing: the run was interrupted."""
    if streaming.done() and not streaming.cancelled() and (error := streaming.exception()):
        log.warning("provider.closing_failed", error=repr(error))


def _fault(error: ProviderError) -> Fault:
    return Fault(code=error.code, message=error.message, retryable=error.passing)
