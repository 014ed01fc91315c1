"""The runs that one worker process is at: claimed, watched, and given up when they are lost.

What may go wrong is decided by a run's chain alone (architecture.md, laws 3 and 4): a
delivery proves nothing, a claim that the server stored does.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Generic, Protocol, TypeVar

import msgspec

from shared import subjects
from shared.bus import Bus, BusError, Incoming, Unsendable
from shared.chain import Overtaken, extend, read_chain
from shared.consumer import LEASE, Delivery, RetryLater
from shared.endings import append_final, ended, log_end, not_kept
from shared.events import (
    CancelRequested,
    Fact,
    PreviousAttempt,
    PromptSource,
    RunClaimed,
    RunEnded,
    TodoChat,
    TodoGenerate,
    TodoProcess,
)
from shared.ids import now
from shared.log import get_logger
from shared.objects import NotKept
from shared.run_state import ChainState
from shared.subjects import Address, fact_kind

log = get_logger()

OWNER_TIMEOUT = 0.3
"""Seconds that a run's owner has to say that it is still at it."""
_LOOK_EVERY = 5.0


class Writing(Protocol):
    """What writes an attempt's deltas or progress."""

    attempt: int

    def close(self) -> None:
        """Write nothing more."""
        ...

    def recheck(self) -> None:
        """The connection was lost: find out what is stored."""
        ...


W = TypeVar("W", bound=Writing)


class OwnedRun(Generic[W]):
    """A run that this worker is at: how far its chain is, and whether to stop."""

    def __init__(self, address: Address, state: ChainState) -> None:
        self.address = address
        self.state = state
        self.writer: W | None = None
        self.interrupted = asyncio.Event()
        """A cancel came, or the run was lost: stop the work."""
        self.lost = False

    def interrupt(self, *, lost: bool = False) -> None:
        """Stop the work, and write nothing more: what that would say goes with the final."""
        self.lost = self.lost or lost
        self.interrupted.set()
        if self.writer is not None:
            self.writer.close()

    @property
    def own_writer(self) -> W | None:
        """The writer of the run's latest attempt; None if that is another worker's."""
        writer = self.writer
        return writer if writer and writer.attempt == self.state.attempt else None

    def take_in(self, overtaken: Overtaken) -> None:
        """Take in the facts that were appended before ours."""
        # Refused, and nothing there: the chain was erased with its session.
        self.state.over = self.state.over or not overtaken.entries
        self.state.add(overtaken.entries)


class RunOwnership(Generic[W]):
    """Every run that this worker is at: taking, claiming, watching and ending them."""

    def __init__(self, bus: Bus, worker_id: str) -> None:
        self._bus = bus
        self.worker_id = worker_id
        self._runs: dict[str, OwnedRun[W]] = {}
        self._looks: set[asyncio.Task[None]] = set()

    # -- taking, owning, ending ------------------------------------------------------

    @contextmanager
    def take(self, delivery: Delivery) -> Generator[OwnedRun[W]]:
        """Own the run until its handling ends.

        Raises:
            RetryLater: this worker is at it already.
        """
        address = delivery.address
        if address.run in self._runs:
            raise RetryLater(LEASE, "this worker is at it already")
        state = ChainState(delivery.seq, n=_number(delivery))
        run = self._runs[address.run] = OwnedRun[W](address, state)
        try:
            yield run
        finally:
            del self._runs[address.run]
            if run.writer is not None:
                run.writer.close()

    async def look_up(self, run: OwnedRun[W], delivery: Delivery) -> None:
        """Read the run's state from the leader.

        What a schedule fired was checked against no chain: so what came before a
        first todo may have ended the run, or be the same todo.

        Raises:
            BusError: the chain could not be read.
        """
        run.state.add(await read_chain(self._bus, run.address.facts, delivery.seq))
        if isinstance(delivery.fact, TodoProcess) and delivery.fact.n == 0:
            for stored in await self._bus.facts_after(subjects.EVENTS, run.address.facts, 0):
                happened = fact_kind(stored.subject)
                if stored.seq < delivery.seq:
                    run.state.cancelled |= happened == "cancel"
                    run.state.over |= happened == "final" or happened.startswith("todo.")

    async def leave_to_owner(self, run: OwnedRun[W]) -> None:
        """Leave a run to the worker that claimed it, if that one answers that it is at it.

        Without asking, a server's pause of a few seconds takes every run from
        its healthy worker (docs/failures.md).

        Raises:
            RetryLater: its owner is at it.
        """
        claim = run.state.claim
        if run.state.over or claim is None or claim.worker == self.worker_id:
            return
        try:
            answer = await self._bus.call(
                subjects.owns(claim.worker), run.address.run.encode(), timeout=OWNER_TIMEOUT
            )
        except BusError:
            return  # silence: nobody is at it
        if answer.data == b"1":
            raise RetryLater(2.0, "its owner is at it")

    async def claim(
        self,
        run: OwnedRun[W],
        delivery: Delivery,
        prompt: PromptSource | None = None,
        previous: PreviousAttempt | None = None,
        fraction: float = 0.0,
    ) -> int | None:
        """Own the run; the claim's sequence is the attempt's id.

        None when another fact came first: decide again on where the run stands now.

        Raises:
            RetryLater: another worker was faster, and is at it.
        """
        claim = RunClaimed(
            at=now(),
            worker=self.worker_id,
            todo=delivery.seq,
            prompt=prompt,
            previous=previous,
            failures=run.state.failures,
            fraction=fraction,
        )
        subject = run.address.subject_of(claim)
        try:
            attempt = await extend(self._bus, subject, claim, expected=run.state.head)
        except Overtaken as overtaken:
            run.take_in(overtaken)
            await self.leave_to_owner(run)
            return None
        before = run.state.claim
        if before is not None and before.worker != self.worker_id:
            log.warning(
                "attempt.taken_over",
                attempt=attempt,
                previous_attempt=run.state.attempt,
                previous_worker=before.worker,
            )
        run.state.head = attempt
        run.state.take_claim(claim, attempt)
        return attempt

    async def append_next_todo(self, run: OwnedRun[W], subject: str, todo: Fact) -> bool:
        """Append the run's next todo, which ends this one; False when a cancel came first.

        A todo that cannot be kept ends the run.

        Raises:
            RetryLater: another attempt has begun.
        """
        attempt = run.state.attempt
        while not run.state.over and not run.state.cancelled:
            try:
                await extend(self._bus, subject, todo, expected=run.state.head)
            except Overtaken as overtaken:
                run.take_in(overtaken)
                _check_still_ours(run, attempt)
            except (NotKept, Unsendable) as error:
                log.error("todo.not_kept", subject=subject, error=str(error))
                await self.conclude(run, not_kept(ended("failed", attempt=attempt)))
            else:
                run.state.over = True
        return run.state.over

    async def conclude(self, run: OwnedRun[W], final: RunEnded) -> None:
        """Append the one final.  A cancel that came first wins over how the work ended.

        Raises:
            RetryLater: another attempt has begun.
        """
        attempt = run.state.attempt
        while not run.state.over:
            if run.state.cancelled:
                final = msgspec.structs.replace(
                    final, status="cancelled", stop_reason=None, error=None
                )
            try:
                final = await append_final(self._bus, run.address, final, expected=run.state.head)
            except Overtaken as overtaken:
                run.take_in(overtaken)
                _check_still_ours(run, attempt)
            else:
                run.state.over = True
                log_end(final, claims=run.state.claims)

    # -- being asked, cancelled, cut off ---------------------------------------------

    def on_owns(self, message: Incoming) -> None:
        """Another worker, or the store, asks whether this worker is at a run."""
        owned = message.data.decode() in self._runs
        self._bus.post(message.reply, b"1" if owned else b"0")

    def on_cancel(self, message: Incoming) -> None:
        """A cancel was stored: stop the run if it is this worker's."""
        run = self._runs.get(subjects.parse(message.subject).run)
        if run is not None:
            # The head stays where the chain was read last: between there and this
            # cancel may lie another worker's claim, and then the run is not ours to end.
            run.state.cancelled = True
            run.interrupt()

    def on_reconnect(self) -> None:
        """Token events, cancels or the run itself may be lost since: look at each."""
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
                    await self._check_run(run)

    async def _check_run(self, run: OwnedRun[W]) -> None:
        try:
            await self.look(run)
        except BusError:
            raise
        except Exception:  # one run's trouble must not end the watch over the others
            log.exception("run.look_failed", run_id=run.address.run)

    def _look_soon(self, run: OwnedRun[W]) -> None:
        task = asyncio.create_task(self._look_until_seen(run))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _look_until_seen(self, run: OwnedRun[W]) -> None:
        while run.address.run in self._runs:
            try:
                await self.look(run)
            except BusError:
                await self._bus.wait_connected()
                await asyncio.sleep(0.1)
            else:
                return

    async def look(self, run: OwnedRun[W]) -> bool:
        """Whether the run is still this attempt's; takes in a cancel on the way.

        Raises:
            BusError: its chain could not be read.
        """
        known = run.state.head
        stored = await self._bus.head(subjects.EVENTS, run.address.facts)
        if stored is None:  # erased with its session
            run.interrupt(lost=True)
            return False
        if stored.seq <= run.state.head:
            return True
        for link in await read_chain(self._bus, run.address.facts, known):
            match link.fact:
                case RunClaimed() as claim if claim.worker == self.worker_id:
                    continue
                case TodoProcess(n=n) if n <= run.state.n:
                    continue  # a schedule fired twice; an append will find it
                case CancelRequested():
                    run.state.add([link])
                    run.interrupt()
                case _:
                    run.interrupt(lost=True)
                    return False
        return True


def _number(delivery: Delivery) -> int:
    """Which of its run's todos this is."""
    fact = delivery.fact
    return fact.n if isinstance(fact, TodoChat | TodoProcess | TodoGenerate) else 0


def _check_still_ours(run: OwnedRun[W], attempt: int) -> None:
    if not run.state.over and run.state.attempt != attempt:
        raise RetryLater(LEASE, "another attempt has begun")
