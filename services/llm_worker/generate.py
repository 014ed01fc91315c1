"""Stream one provider's answer into an attempt: the tries, the cancel, the way it ended."""

import asyncio
import random
from contextlib import aclosing
from typing import NamedTuple

from prometheus_client import Counter

from services.llm_worker.breaker import Breaker
from services.llm_worker.delta_writer import DeltaWriter
from services.llm_worker.providers.base import Ended, Prompt, Provider, ProviderError
from services.llm_worker.refusals import Refused, as_refusal
from shared.log import get_logger

log = get_logger()

_calls = Counter(
    "natterlog_provider_calls", "Calls of providers by outcome", ["provider", "outcome"]
)


class Outcome(NamedTuple):
    """How an attempt's streaming ended: exactly one of the two is set."""

    ended: Ended | None
    fault: ProviderError | None
    failures: int
    """Failed calls in this run, those of earlier attempts included."""


async def generate(
    provider: Provider,
    prompt: Prompt,
    writer: DeltaWriter,
    breaker: Breaker,
    *,
    failures: int,
    most_failures: int,
    max_reply: int,
) -> Outcome:
    """Stream the provider's answer into ``writer`` and say how it ended.

    Before the first piece came, a passing fault is invisible to the user, so it
    is tried again here.  Afterwards another try would contradict words that are
    on the screen already: that is a new attempt, and the caller's decision.

    At ``max_reply`` bytes the text ends, and the provider with it.
    """
    while True:
        try:
            await breaker.admit(provider.name)
        except ProviderError as closed:  # an open breaker is a clear failure at once
            return Outcome(None, closed, most_failures)
        try:
            ended = await _stream(provider, prompt, writer, max_reply)
        except ProviderError as failed:
            fault = failed if writer.grew else as_refusal(failed, prompt) or failed
            _calls.labels(provider.name, fault.code).inc()
            await breaker.failed(provider.name, fault)
            if isinstance(fault, Refused):  # it was asked for too much, and did not fail
                return Outcome(None, fault, failures)
            failures += 1
            if fault.most_tries is not None and failures >= fault.most_tries:
                failures = max(failures, most_failures)
            if not fault.passing or writer.grew or failures >= most_failures:
                return Outcome(None, fault, failures)
            pause = backoff(failures, fault.retry_after)
            log.info("provider.retry", provider=provider.name, failures=failures, pause=pause)
            await asyncio.sleep(pause)
        else:
            _calls.labels(provider.name, "completed").inc()
            await breaker.succeeded(provider.name)
            return Outcome(ended, None, failures)


async def _stream(provider: Provider, prompt: Prompt, writer: DeltaWriter, max_reply: int) -> Ended:
    async with aclosing(provider.stream(prompt)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Ended):
                _stand_in(piece, writer)
                return piece
            fitting = _fitting(piece, max_reply - writer.size)
            writer.add(fitting)
            if len(fitting) < len(piece):
                log.info("reply.too_long", provider=provider.name, most=max_reply)
                return Ended(stop_reason="max_length", usage=None)
    raise ProviderError("The provider's answer ended without its end.", passing=True)


def _fitting(text: str, room: int) -> str:
    """As much of the text as ``room`` bytes hold, cut between two code points."""
    if len(text) * 4 <= room:
        return text
    return text.encode()[: max(room, 0)].decode(errors="ignore")


def _stand_in(ended: Ended, writer: DeltaWriter) -> None:
    """Write the sentence that stands for a text, but not into the middle of one.

    Raises:
        ProviderError: there is one already.
    """
    if ended.sentence is None:
        return
    if writer.text.strip():
        raise ProviderError(ended.sentence, passing=False)
    writer.add(ended.sentence)


def backoff(failures: int, wished: float | None) -> float:
    """Seconds before the next try: what the provider wished (30 at most), or 0.5, 1, 2 …"""
    if wished is not None:
        return min(wished, 30.0)
    return min(0.5 * 2 ** (failures - 1), 8.0) * random.uniform(0.75, 1.25)  # noqa: S311  (no secret)
