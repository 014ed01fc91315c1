"""The circuit breaker: what keeps failing is left alone for a while.

    closed ──(threshold failures in a row)──▶ open ──(cooldown over)──▶ half open
      ▲                                        ▲                            │
      │                                        └──────(the probe failed)────┤
      └───────────────────────(the probe succeeded)─────────────────────────┘

A model of a provider has a circuit of its own, so that a broken one costs the others
nothing.  A provider as a whole has one for what cannot be a model's: nobody is there.
A call goes through when both let it.

One state for all workers: records on a shelf that they share, and whoever wants to
change one has to have seen its latest revision.  So exactly one of them wins the probe.
A probe whose worker died is up for winning again after another cooldown.  What nobody
has touched for an hour is forgotten: names of models come from strangers.
"""

import hashlib
import time
from collections.abc import Callable
from math import ceil
from typing import NamedTuple, Protocol

import msgspec

from services.llm_worker.providers.base import ProviderError
from shared.log import get_logger
from shared.offers import Circuit

log = get_logger()

BELIEVED = 1.0
"""Seconds for which a state that was read is believed: calls of a healthy provider cost no I/O."""
TRIES = 20
"""Attempts to change a record that others are changing too."""
SOON = 5.0
"""Seconds after which to ask again while somebody else's probe is under way."""
FORGOTTEN = 3600.0
"""Seconds after its last change, and its cooldown, for which a record counts."""
LONGEST_NAME = 100
"""Characters of a model's name that are shown."""
MOST = 1_000
"""Circuits whose state one worker remembers at a time."""


class BreakerStore(Protocol):
    """Where the workers share their records; ``revision`` is 0 for what is not there."""

    async def get(self, key: str) -> tuple[bytes | None, int]:
        """The value and its revision.

        Raises:
            ShelfUnavailable: it cannot be reached.
        """
        ...

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        """Store ``value`` if ``revision`` is still the latest; False when somebody was faster.

        Raises:
            ShelfUnavailable: it cannot be reached.
        """
        ...


class BreakerStoreUnavailable(Exception):
    """The shelf does not answer; then the breaker lets everything through."""


class Record(msgspec.Struct, frozen=True):
    """What the workers know of one circuit.  Times are seconds since 1970."""

    failures: int = 0
    """In a row; of calls that were let through while the circuit was closed."""
    opened_at: float | None = None
    probed_at: float | None = None
    """When the latest probe was let through, if it has not been heard of since."""
    at: float = 0.0
    """When this was written."""


class _Seen(NamedTuple):
    record: Record
    revision: int
    at: float


class Breaker:
    """Admits each call of a provider (:meth:`admit`), and counts how the calls ended."""

    def __init__(
        self,
        store: BreakerStore,
        threshold: int,
        cooldown: float,
        clock: Callable[[], float] = time.time,
        *,
        exempt: frozenset[str] = frozenset(),
    ) -> None:
        """``exempt`` providers are never left alone, however often they fail."""
        self._breakers = store
        self._exempt = exempt
        self._threshold = threshold
        self._cooldown = cooldown
        self._clock = clock
        """Shared by all workers, so a time of day."""
        self._seen: dict[str, _Seen] = {}

    async def admit(self, provider: str, model: str) -> None:
        """Let a call through, or not.

        Raises:
            ProviderError: not now; ``retry_after`` says when to ask again.
        """
        circuits = (provider, _of_model(provider, model))
        try:
            while True:
                seen = {key: await self._look(key) for key in circuits}
                left = {key: self._left(seen[key].record) for key in circuits}
                if shut := next((key for key in circuits if left[key]), None):
                    break
                if await self._probe({key: seen[key] for key in circuits if left[key] == 0}):
                    return
        except BreakerStoreUnavailable:
            return
        name = model[:LONGEST_NAME]
        what = provider if shut == provider else f"The model {name!r} of {provider}"
        raise ProviderError(
            f"{what} has failed {self._threshold} times in a row and is left alone for a while. "
            f"Try again in {ceil(left[shut] or 0)} s.",
            code="provider_unavailable",
            transient=True,
            retry_after=left[shut],
        )

    async def succeeded(self, provider: str, model: str) -> None:
        """A call that was let through has ended well."""
        await self._heal(provider)
        await self._heal(_of_model(provider, model))

    async def failed(self, provider: str, model: str, fault: ProviderError) -> None:
        """A call that was let through has failed; only a transient fault counts.

        With any other the provider did answer: the request was wrong, not its health.
        """
        if provider in self._exempt or (fault.whole and not fault.transient):
            return
        if not fault.transient:
            await self.succeeded(provider, model)
        elif fault.whole:
            if await self._hurt(provider):
                log.warning("breaker.opened", provider=provider)
        else:
            await self._heal(provider)  # it was there
            if await self._hurt(_of_model(provider, model)):
                log.warning("breaker.opened", provider=provider, model=model[:LONGEST_NAME])

    async def circuit(self, provider: str) -> Circuit:
        """For people: how ``provider`` stands."""
        try:
            record = (await self._look(provider)).record
        except BreakerStoreUnavailable:
            return "closed"
        if record.opened_at is None:
            return "closed"
        return "open" if record.probed_at is None else "half_open"

    # -- one circuit --------------------------------------------------------------

    async def _probe(self, due: dict[str, _Seen]) -> bool:
        """Win the probe of every circuit that is due for one; False when somebody was faster."""
        won: list[str] = []
        now = self._clock()
        for key, seen in due.items():
            probed = msgspec.structs.replace(seen.record, probed_at=now)
            if await self._store(key, probed, seen.revision):
                won.append(key)
                continue
            await self._read(key)
            for other in won:  # no call will tell how it went
                await self._change(
                    other,
                    lambda record: (
                        msgspec.structs.replace(record, probed_at=None)
                        if record.probed_at == now
                        else record
                    ),
                )
            return False
        return True

    async def _heal(self, key: str) -> None:
        def healed(record: Record) -> Record:
            if record.opened_at is None:
                return Record() if record.failures else record
            late = record.probed_at is None
            return record if late else Record()

        if (seen := self._seen.get(key)) and healed(seen.record) == seen.record:
            return
        await self._change(key, healed)

    async def _hurt(self, key: str) -> bool:
        """Count a failure; True when the circuit opened with it."""

        def hurt(record: Record) -> Record:
            if record.opened_at is not None:
                # the probe has failed; without one this is news of before it opened
                return record if record.probed_at is None else Record(opened_at=self._clock())
            failures = record.failures + 1
            if failures < self._threshold:
                return Record(failures=failures)
            return Record(opened_at=self._clock())

        before, after = await self._change(key, hurt)
        return before.opened_at is None and after.opened_at is not None

    def _left(self, record: Record) -> float | None:
        """Seconds until the next probe, 0 when it is due; None: the circuit is closed."""
        if record.opened_at is None:
            return None
        if record.probed_at is None:
            return max(0.0, record.opened_at + self._cooldown - self._clock())
        return min(SOON, max(0.0, record.probed_at + self._cooldown - self._clock()))

    async def _look(self, key: str) -> _Seen:
        seen = self._seen.get(key)
        if seen is None or self._clock() - seen.at >= BELIEVED:
            return await self._read(key)
        return seen

    async def _read(self, key: str) -> _Seen:
        value, revision = await self._breakers.get(key)
        record = msgspec.json.decode(value, type=Record) if value else Record()
        now = self._clock()
        if now - record.at > FORGOTTEN + self._cooldown:
            record = Record()
        if len(self._seen) >= MOST:
            self._seen.clear()
        seen = self._seen[key] = _Seen(record, revision, now)
        return seen

    async def _store(self, key: str, record: Record, revision: int) -> bool:
        record = msgspec.structs.replace(record, at=self._clock())
        stored = await self._breakers.put(key, msgspec.json.encode(record), revision)
        self._seen.pop(key, None)  # its new revision is not known
        return stored

    async def _change(self, key: str, change: Callable[[Record], Record]) -> tuple[Record, Record]:
        """Change the record, from what to what; when others are faster every time, not at all."""
        try:
            for _ in range(TRIES):
                seen = await self._read(key)
                record = change(seen.record)
                if record == seen.record or await self._store(key, record, seen.revision):
                    return seen.record, record
        except BreakerStoreUnavailable:
            pass
        return Record(), Record()


def _of_model(provider: str, model: str) -> str:
    """The key of a model's circuit: names of models are no parts of a subject, and may be long."""
    return f"{provider}.{hashlib.sha256(model.encode()).hexdigest()[:32]}"
