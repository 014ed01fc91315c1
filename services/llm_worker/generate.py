"""Stream one provider's answer into an attempt: the tries, the cancel, the way it ended."""

import asyncio
from collections.abc import Mapping
from traceback import extract_tb
from typing import NamedTuple

import msgspec
from prometheus_client import Counter

from services.llm_worker.breaker import Breaker
from services.llm_worker.delta_writer import DeltaWriter
from services.llm_worker.prices import Prices
from services.llm_worker.providers import faults
from services.llm_worker.providers.base import Ended, Prompt, Provider, ProviderError
from services.llm_worker.providers.redaction import Redaction, without_credentials
from services.llm_worker.refusals import PartRefused, as_refusal
from services.llm_worker.retries import backoff, lasting, worth_another
from shared.events import Try
from shared.log import get_logger

log = get_logger()

MOST_TRIES = 20
"""Failed calls of one attempt that its facts tell of: the last ones."""
LONGEST_REASON = 500
"""Characters of a provider's sentence there."""

_calls = Counter(
    "natterlog_provider_calls", "Calls of providers by outcome", ["provider", "outcome"]
)


class Outcome(NamedTuple):
    """How an attempt's streaming ended: exactly one of the first two is set."""

    ended: Ended | None
    fault: ProviderError | None
    failures: int
    """Failed calls in this run, those of earlier attempts included."""


class Calls(NamedTuple):
    """What every call of a provider goes through in this worker."""

    breaker: Breaker
    redaction: Redaction
    prices: Prices
    urls: Mapping[str, str]
    """Where each provider is, for the operators' log."""


async def generate(
    provider: Provider,
    prompt: Prompt,
    writer: DeltaWriter,
    calls: Calls,
    *,
    failures: int,
    most_failures: int,
    max_reply: int,
) -> Outcome:
    """Stream the provider's answer into ``writer`` and say how it ended.

    Before the first piece came, a passing fault is invisible to the user, so it
    is tried again here.  Afterwards another try would contradict words that are
    on the screen already: that is a new attempt, and the caller's decision.
    Every failed call is among the writer's ``tries``.

    At ``max_reply`` bytes the text ends, and the provider with it.
    """
    name, model = provider.name, prompt.model
    while True:
        try:
            await calls.breaker.admit(name, model)
        except ProviderError as closed:  # an open breaker is a clear failure at once
            return Outcome(None, closed, most_failures)
        try:
            ended = await _reply(provider, prompt, writer, calls.redaction, max_reply)
        except ProviderError as failed:
            fault = _judged(failed, prompt, writer, calls)
            _note(fault, provider, prompt, writer, calls)
            run = prompt.asker.run if prompt.asker else None
            await calls.breaker.failed(name, model, fault, run=run)
            if isinstance(fault, PartRefused):  # it was asked for too much, and did not fail
                return Outcome(None, fault, failures)
            failures += 1
            if writer.grew or not worth_another(fault, failures, most_failures):
                return Outcome(None, fault, failures)
            pause = backoff(failures, fault.retry_after)
            log.info("provider.retry", provider=name, failures=failures, pause=pause)
            await asyncio.sleep(pause)
        else:
            _calls.labels(name, "completed").inc()
            await calls.breaker.succeeded(name, model)
            notes = [calls.redaction(note) for note in ended.notes]
            return Outcome(msgspec.structs.replace(ended, notes=notes), None, failures)


async def _reply(
    provider: Provider, prompt: Prompt, writer: DeltaWriter, redaction: Redaction, max_reply: int
) -> Ended:
    """The end of a reply that was streamed; whatever an answer breaks here is its failure."""
    try:
        return await _stream(provider, prompt, writer, redaction, max_reply)
    except ProviderError:
        raise
    except Exception as error:
        where = [f"{frame.name}:{frame.lineno}" for frame in extract_tb(error.__traceback__)]
        # Its own words may be the provider's.
        log.error(
            "provider.reading_failed",
            provider=provider.name,
            error=type(error).__name__,
            where=where[-5:],
        )
        raise faults.garbled(provider.name) from error


class _LongEnough(Exception):
    """The reply has as many bytes as it may have."""


async def _stream(
    provider: Provider, prompt: Prompt, writer: DeltaWriter, redaction: Redaction, max_reply: int
) -> Ended:
    def write(piece: str) -> None:
        fitting = _fitting(piece, max_reply - writer.size)
        writer.add(fitting)
        if len(fitting) < len(piece):
            raise _LongEnough

    try:
        ended = await provider.stream(prompt, write)
    except _LongEnough:
        log.info("reply.too_long", provider=provider.name, most=max_reply)
        return Ended(stop_reason="max_length", usage=None)
    _stand_in(ended, writer, redaction)
    return ended


def _fitting(text: str, room: int) -> str:
    """As much of the text as ``room`` bytes hold, cut between two code points."""
    if len(text) * 4 <= room:
        return text
    return text.encode()[: max(room, 0)].decode(errors="ignore")


def _stand_in(ended: Ended, writer: DeltaWriter, redaction: Redaction) -> None:
    """Write the sentence that stands for a text, but not into the middle of one.

    Raises:
        ProviderError: there is one already.
    """
    if ended.sentence is None:
        return
    if writer.text.strip():
        raise ProviderError(ended.sentence, transient=False)
    writer.add(redaction(ended.sentence))


def _judged(
    failed: ProviderError, prompt: Prompt, writer: DeltaWriter, calls: Calls
) -> ProviderError:
    """The fault without secrets, and whether another prompt would not meet it."""
    fault = calls.redaction.clean(failed)
    fault.transient = not lasting(fault)
    return fault if writer.grew else as_refusal(fault, prompt) or fault


def _note(
    fault: ProviderError, provider: Provider, prompt: Prompt, writer: DeltaWriter, calls: Calls
) -> None:
    """Keep a failed call for the run's facts, count it, and log where it was."""
    _calls.labels(provider.name, fault.code).inc()
    usage = fault.usage
    writer.tries[:] = writer.tries[1 - MOST_TRIES :]
    writer.tries.append(
        Try(
            ms=writer.elapsed_ms,
            code=fault.code,
            message=fault.message[:LONGEST_REASON],
            status=fault.status,
            usage=usage,
            cost=calls.prices.cost(provider.name, prompt.model, usage) if usage else None,
        )
    )
    log.info(
        "provider.failed",
        provider=provider.name,
        model=prompt.model,
        code=fault.code,
        status=fault.status,
        retry_after=fault.retry_after,
        url=calls.urls.get(provider.name),
        location=fault.location and without_credentials(fault.location),
    )
