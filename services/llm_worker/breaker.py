"""The circuit breaker: a provider that keeps failing is left alone for a while.

    closed ──(threshold failures in a row)──▶ open ──(cooldown over)──▶ half open
      ▲                                        ▲                            │
      │                                        └──────(the probe failed)────┤
      └───────────────────────(the probe succeeded)─────────────────────────┘

One state for all workers: a record on a shelf that they share, by the provider's
name, and whoever wants to change it has to have seen its latest revision.  So exactly one
of them wins the probe.  A probe whose worker died is up for winning again after
another cooldown.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from services.llm_worker.providers.base import ProviderError
from shared.offers import Circuit

BELIEVED = 1.0
"""Seconds for which a state that was read is believed: calls of a healthy provider cost no I/O."""
TRIES = 20
"""Attempts to change a record that others are changing too."""
SOON = 5.0
"""Seconds after which to ask again while somebody else's probe is under way."""


class Shelf(Protocol):
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


class ShelfUnavailable(Exception):
    """The shelf does not answer; then the breaker lets everything through."""


class Record(msgspec.Struct, frozen=True):
    """What the workers know of one provider.  Times are seconds since 1970."""

    failures: int = 0
    """In a row; of calls that were let through while the circuit was closed."""
    opened_at: float | None = None
    probed_at: float | None = None
    """When the latest probe was let through, if it has not been heard of since."""


class _Seen(NamedTuple):
    record: Record
    revision: int
    at: float


class Breaker:
    """Ask it before each call of a provider (:meth:`admit`), and tell it how the call ended."""

    def __init__(
        self,
        shelf: Shelf,
        threshold: int,
        cooldown: float,
        clock: Callable[[], float] = time.time,
        *,
        exempt: frozenset[str] = frozenset(),
    ) -> None:
        """``exempt`` providers are never left alone, however often they fail."""
        self._shelf = shelf
        self._exempt = exempt
        self._threshold = threshold
        self._cooldown = cooldown
        self._clock = clock
        """Shared by all workers, so a time of day."""
        self._seen: dict[str, _Seen] = {}

    async def admit(self, provider: str) -> None:
        """Let a call of ``provider`` through, or not.

        Raises:
            ProviderError: not now; ``retry_after`` says when to ask again.
        """
        try:
            seen = await self._look(provider)
            while (left := self._left(seen.record)) == 0:
                probed = msgspec.structs.replace(seen.record, probed_at=self._clock())
                if await self._store(provider, probed, seen.revision):
                    return
                seen = await self._read(provider)
        except ShelfUnavailable:
            return
        if left is not None:
            raise ProviderError(
                f"{provider} has failed {self._threshold} times in a row and is left alone.",
                code="provider_unavailable",
                passing=True,
                retry_after=left,
            )

    async def succeeded(self, provider: str) -> None:
        """A call that was let through has ended well."""

        def healed(record: Record) -> Record:
            late = record.opened_at is not None and record.probed_at is None
            return record if late else Record()

        if (seen := self._seen.get(provider)) and healed(seen.record) == seen.record:
            return
        await self._change(provider, healed)

    async def failed(self, provider: str, fault: ProviderError | None = None) -> None:
        """A call that was let through has failed; only a passing fault counts.

        With any other the provider did answer: the request was wrong, not its health.
        """
        if provider in self._exempt:
            return
        if fault is not None and not fault.passing:
            await self.succeeded(provider)
            return

        def hurt(record: Record) -> Record:
            if record.opened_at is not None:
                # the probe has failed; without one this is news of before it opened
                return record if record.probed_at is None else Record(opened_at=self._clock())
            failures = record.failures + 1
            if failures < self._threshold:
                return Record(failures=failures)
            return Record(opened_at=self._clock())

        await self._change(provider, hurt)

    async def circuit(self, provider: str) -> Circuit:
        """For people: how ``provider`` stands."""
        try:
            record = (await self._look(provider)).record
        except ShelfUnavailable:
            return "closed"
        if record.opened_at is None:
            return "closed"
        return "open" if record.probed_at is None else "half_open"

    def _left(self, record: Record) -> float | None:
        """Seconds until the next probe, 0 when it is due; None: the circuit is closed."""
        if record.opened_at is None:
            return None
        if record.probed_at is None:
            return max(0.0, record.opened_at + self._cooldown - self._clock())
        return min(SOON, max(0.0, record.probed_at + self._cooldown - self._clock()))

    async def _look(self, provider: str) -> _Seen:
        seen = self._seen.get(provider)
        if seen is None or self._clock() - seen.at >= BELIEVED:
            return await self._read(provider)
        return seen

    async def _read(self, provider: str) -> _Seen:
        value, revision = await self._shelf.get(provider)
        record = msgspec.json.decode(value, type=Record) if value else Record()
        seen = self._seen[provider] = _Seen(record, revision, self._clock())
        return seen

    async def _store(self, provider: str, record: Record, revision: int) -> bool:
        stored = await self._shelf.put(provider, msgspec.json.encode(record), revision)
        self._seen.pop(provider, None)  # its new revision is not known
        return stored

    async def _change(self, provider: str, change: Callable[[Record], Record]) -> None:
        """Change the record; when others are faster every time, their news are as good."""
        try:
            for _ in range(TRIES):
                seen = await self._read(provider)
                record = change(seen.record)
                if record == seen.record or await self._store(provider, record, seen.revision):
                    return
        except ShelfUnavailable:
            return
