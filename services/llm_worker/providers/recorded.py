"""The provider that answers from the log: ``recorded/<run>``, with that run's timing and faults.

The n-th attempt of a run hears what the n-th attempt of the recorded one said,
when it said it, and fails where that failed.  ``recorded/<session>`` answers a
session's n-th run with the recorded session's n-th.  ``@10`` after the id is ten
times as fast, ``@max`` waits for nothing.  A user names his own alone.
"""

import asyncio

from msgspec import UNSET

from services.llm_worker.providers.base import Ended, ModelInfo, Prompt, ProviderError, Write
from shared.bus import Bus, BusError
from shared.chain import read_chain
from shared.commands import GetRun
from shared.errors import NatterlogError, NotFound
from shared.events import TodoChat
from shared.ids import is_id
from shared.log_entry import LogEntry
from shared.recording import Attempt, attempts_of, read_recording, runs_of
from shared.run_state import stop_reason
from shared.store_client import StoreClient
from shared.subjects import Address, parse

_EXAMPLE = "recorded/01997c3a-5f7f-7c02-b3c5-a1f2e4d60712"


class Recorded:
    """The provider ``recorded``."""

    name = "recorded"

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._store = StoreClient(bus)

    async def stream(self, prompt: Prompt, write: Write) -> Ended:
        """Write the recorded reply once more, at the times of its pieces.

        Raises:
            ProviderError: the recorded attempt failed here, or there is none.
        """
        named, speed = _parsed(prompt.model)
        try:
            attempt, offset = await self._attempt(named, prompt.asker)
        except NotFound as error:
            raise ProviderError(
                f"There is no run or session {named} of yours.",
                code="model_not_found",
                transient=False,
            ) from error
        except (NatterlogError, BusError) as error:
            raise ProviderError(
                f"The log cannot be read: {error}", code="provider_unavailable", transient=True
            ) from error
        pace = _Pace(speed)
        for ms, length in attempt.timeline:
            await pace.reach(ms)
            if length > offset:
                write(attempt.text[offset:length])
                offset = length
        if attempt.final is not None and attempt.final.latency_ms is not None:
            await pace.reach(attempt.final.latency_ms)
        if len(attempt.text) > offset:
            write(attempt.text[offset:])
        return _end(attempt)

    async def _attempt(self, named: str, asker: Address | None) -> tuple[Attempt, int]:
        """The recorded attempt whose turn it is, and from where on its text is to be said.

        A reply that goes on hears what was said when the recorded one went on.
        """
        if asker is None:
            raise NotFound("Nobody asks.")
        links = await self._facts(named, asker.user)
        run_id = named if _has(links, named) else await self._same_turn(links, asker)
        recorded = _answered(links, run_id)
        own = await read_chain(self._bus, asker.facts)  # the leader knows the claim just made
        done = len(_answered(own, asker.run))
        if not recorded or not recorded[-1].over:
            raise _nothing_more("the recorded run has not ended")
        if done > len(recorded):
            raise _nothing_more(f"the recorded run had {len(recorded)} attempts")
        attempt = recorded[max(done, 1) - 1]
        todos = (link.fact for link in own if isinstance(link.fact, TodoChat))
        goes_on = any(todo.turn.continues for todo in todos)
        return attempt, attempt.opening if goes_on else 0

    async def _same_turn(self, links: list[LogEntry], asker: Address) -> str:
        """The recorded run at the same place in its session as the asking run has in its own."""
        turn = runs_of(await self._session(asker.user, asker.session)).index(asker.run)
        recorded = runs_of(links)
        if turn >= len(recorded):
            raise _nothing_more(f"the recorded session has {len(recorded)} runs")
        return recorded[turn]

    async def _facts(self, named: str, user: str) -> list[LogEntry]:
        try:
            run = (await self._store.ask(GetRun(user_id=user, run_id=named))).run
        except NotFound:
            return await self._session(user, named)
        return await self._session(user, run.session_id)

    async def _session(self, user: str, session_id: str) -> list[LogEntry]:
        return await read_recording(self._bus, self._store, user, session_id)

    def notes(self, prompt: Prompt) -> list[str]:
        del prompt
        return ["Nothing of the prompt counts: this is a recording."]

    def takes(self, model: str, media_type: str) -> bool:
        del model, media_type
        return False

    async def models(self) -> list[ModelInfo]:
        return []

    async def aclose(self) -> None:
        pass


class _Pace:
    """Waits for times since the attempt began, at a speed; None waits for nothing."""

    def __init__(self, speed: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._speed = speed

    async def reach(self, ms: float) -> None:
        if self._speed is not None:
            due = self._began + ms / 1000 / self._speed
            await asyncio.sleep(max(0.0, due - self._loop.time()))


def _parsed(model: str) -> tuple[str, float | None]:
    """The id and the speed."""
    named, _, speed = model.partition("@")
    if not is_id(named):
        raise ProviderError(
            f"{model[:60]!r} is no recording: name a run or a session, as {_EXAMPLE}.",
            code="model_not_found",
            transient=False,
        )
    if speed == "max":
        return named, None
    try:
        factor = float(speed or 1)
    except ValueError:
        factor = 0.0
    if not 0.01 <= factor <= 1000:
        raise ProviderError(
            f"{speed[:20]!r} is no speed: say {_EXAMPLE}@10, or @max.",
            code="model_not_found",
            transient=False,
        )
    return named, factor


def _has(links: list[LogEntry], run_id: str) -> bool:
    return any(parse(link.subject).run == run_id for link in links)


def _answered(links: list[LogEntry], run_id: str) -> list[Attempt]:
    """The run's attempts that asked a model; without those that were lost before a word came."""
    return [
        attempt
        for attempt in attempts_of(links)
        if attempt.run_id == run_id
        and attempt.claim.prompt is not None
        and (attempt.text or not attempt.lost)
    ]


def _end(attempt: Attempt) -> Ended:
    """How the attempt ended, if that was by its provider's word.

    Raises:
        ProviderError: it failed, then and now.
    """
    final, fault = attempt.final, attempt.fault
    if attempt.lost and fault is None:
        raise ProviderError(f"Here the recorded attempt ended: {attempt.reason}.", transient=True)
    if fault is not None:
        raise ProviderError(
            fault.message,
            code=fault.code,
            transient=fault.retryable or attempt.lost,
            retry_after=None if fault.retry_after is UNSET else fault.retry_after,
            leave_alone=not attempt.lost,  # as it was: then the run ended with it
        )
    if final is not None and final.attempt != attempt.id:
        raise _nothing_more("the recorded run was ended by somebody else")
    # A cancelled reply ends with what was kept of it: nobody knows what would have come.
    reason = None if final is None else stop_reason(final.status, final.stop_reason)
    thoughts = None if final is None or attempt.opening else final.thoughts
    return Ended(stop_reason=reason or "end_turn", usage=attempt.usage, thoughts=thoughts)


def _nothing_more(why: str) -> ProviderError:
    return ProviderError(f"There is nothing more to say: {why}.", transient=False)
