"""The circuit breaker: what keeps failing is left alone for a while.

    closed ──(threshold failures in a row)──▶ open ──(cooldown over)──▶ half open
      ▲                                        ▲                            │
      │                                        └──────(the probe failed)────┤
      └───────────────────────(the probe succeeded)─────────────────────────┘

A model of a provider has a circuit of its own, so that a broken one costs the others
nothing.  A provider as a whole has one for what cannot be a model's: nobody is there.
A call goes through when both let it.

One state for all workers: records in a store that they share, and whoever wants to
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
from shared.offers import OpenCircuit

log = get_logger()

BELIEVED = 1.0
"""Seconds for which a state that was read is believed: calls of a healthy provider cost no I/O."""
TRIES = 20
"""Attempts to change a record that others are changing too."""
SOON = 5.0
"""Seconds after which to ask again while somebody else's probe is under way."""
FORGOTTEN = 3600.0
"""Seconds after its last change, and its cooldown, for which a record counts."""
LONGEST_NAME = 300
"""Characters of a model's name that anybody will want to see."""
MOST = 1_000
"""Circuits whose state one worker remembers at a time."""


class BreakerStore(Protocol):
    """Where the workers share their records; ``revision`` is 0 for what is not there."""

    async def get(self, key: str) -> tuple[bytes | None, int]:
        """The value and its revision.

        Raises:
            BreakerStoreUnavailable: it cannot be reached.
        """
        ...

    async def put(self, key: str, value: bytes, revision: int) -> bool:
        """Store ``value`` if ``revision`` is still the latest; False when somebody was faster.

        Raises:
            BreakerStoreUnavailable: it cannot be reached.
        """
        ...

    async def every_value(self) -> list[bytes]:
        """Every value that is kept.

        Raises:
            BreakerStoreUnavailable: they cannot be read.
        """
        ...


class BreakerStoreUnavailable(Exception):
    """The records cannot be reached; then the breaker lets everything through."""


class LastFailure(msgspec.Struct, frozen=True):
    """The latest failure that counted; a provider's sentence may quote a user, and is not kept."""

    code: str
    status: int | None = None
    run: str | None = None

    def __str__(self) -> str:
        what = self.code if self.status is None else f"status {self.status}"
        return f"{what} in run {self.run}" if self.run else what


class Record(msgspec.Struct, frozen=True):
    """What the workers know of one circuit.  Times are seconds since 1970."""

    failures: int = 0
    """In a row; of calls that were let through while the circuit was closed."""
    last: LastFailure | None = None
    opened_at: float | None = None
    probed_at: float | None = None
    """When the latest probe was let through, if it has not been heard of since."""
    at: float = 0.0
    """When this was written."""
    provider: str = ""
    model: str | None = None
    """Whose circuit it is, the beginning of its name; None: the provider's as a whole."""


class _Circuit(NamedTuple):
    """Whose state it is: a model's, or that of a provider as a whole."""

    provider: str
    model: str | None = None

    @property
    def key(self) -> str:
        """Where it is kept: names of models are no parts of a subject, and may be long."""
        if self.model is None:
            return self.provider
        return f"{self.provider}.{hashlib.sha256(self.model.encode()).hexdigest()[:32]}"

    @property
    def shown_model(self) -> str | None:
        return None if self.model is None else self.model[:LONGEST_NAME]


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
        self._seen: dict[_Circuit, _Seen] = {}

    async def admit(self, provider: str, model: str) -> None:
        """Let a call through, or refuse it while one of its circuits is open.

        Raises:
            ProviderError: not now; ``retry_after`` says when to ask again.
        """
        circuits = (_Circuit(provider), _Circuit(provider, model))
        try:
            while True:
                seen = {each: await self._look(each) for each in circuits}
                left = {each: self._left(seen[each].record) for each in circuits}
                if shut := next((each for each in circuits if left[each]), None):
                    break
                if await self._probe({each: seen[each] for each in circuits if left[each] == 0}):
                    return
        except BreakerStoreUnavailable:
            return
        name, last = shut.shown_model, seen[shut].record.last
        what = provider if name is None else f"The model {name!r} of {provider}"
        raise ProviderError(
            f"{what} has failed {self._threshold} times in a row"
            f"{f', last with {last},' if last else ''} and is left alone for a while. "
            f"Try again in {ceil(left[shut] or 0)} s.",
            code="provider_unavailable",
            transient=True,
            retry_after=left[shut],
        )

    async def succeeded(self, provider: str, model: str) -> None:
        """Count a call that was let through and has ended well."""
        await self._heal(_Circuit(provider))
        await self._heal(_Circuit(provider, model))

    async def failed(
        self, provider: str, model: str, fault: ProviderError, *, run: str | None = None
    ) -> None:
        """Count a call that was let through and has failed, if its fault is transient.

        With any other the provider did answer: the request was wrong, not its health.
        """
        last = LastFailure(fault.code, fault.status, run)
        if provider in self._exempt or (fault.whole and not fault.transient):
            return
        if not fault.transient:
            await self.succeeded(provider, model)
        elif fault.whole:
            if await self._hurt(_Circuit(provider), last):
                log.warning("breaker.opened", provider=provider)
        else:
            await self._heal(_Circuit(provider))  # it was there
            if await self._hurt(_Circuit(provider, model), last):
                log.warning("breaker.opened", provider=provider, model=model[:LONGEST_NAME])

    async def open_circuits(self) -> list[OpenCircuit]:
        """Every circuit that is not closed, whichever worker opened it; none if they are unknown.

        For people: it is read anew each time.
        """
        try:
            records = [
                msgspec.json.decode(v, type=Record) for v in await self._breakers.every_value()
            ]
        except BreakerStoreUnavailable:
            return []
        return sorted(
            (
                OpenCircuit(
                    provider=record.provider,
                    model=record.model,
                    state="open" if record.probed_at is None else "half_open",
                    retry_after=ceil(left),
                    last_run=record.last.run if record.last else None,
                )
                for record in records
                if record.provider and self._counts(record)
                if (left := self._left(record)) is not None
            ),
            key=lambda circuit: (circuit.provider, circuit.model or ""),
        )

    # -- one circuit --------------------------------------------------------------

    async def _probe(self, due: dict[_Circuit, _Seen]) -> bool:
        """Win the probe of every circuit that is due for one; False when somebody was faster."""
        won: list[_Circuit] = []
        now = self._clock()
        for circuit, seen in due.items():
            probed = msgspec.structs.replace(seen.record, probed_at=now)
            if await self._store(circuit, probed, seen.revision):
                won.append(circuit)
                continue
            await self._read(circuit)
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

    async def _heal(self, circuit: _Circuit) -> None:
        def healed(record: Record) -> Record:
            if record.opened_at is None:
                return Record() if record.failures else record
            late = record.probed_at is None
            return record if late else Record()

        if (seen := self._seen.get(circuit)) and healed(seen.record) == seen.record:
            return
        await self._change(circuit, healed)

    async def _hurt(self, circuit: _Circuit, last: LastFailure) -> bool:
        """Count a failure; True when the circuit opened with it."""

        def hurt(record: Record) -> Record:
            if record.opened_at is not None:
                # the probe has failed; without one this is news of before it opened
                late = record.probed_at is None
                return record if late else Record(opened_at=self._clock(), last=last)
            failures = record.failures + 1
            if failures < self._threshold:
                return Record(failures=failures, last=last)
            return Record(opened_at=self._clock(), last=last)

        before, after = await self._change(circuit, hurt)
        return before.opened_at is None and after.opened_at is not None

    def _left(self, record: Record) -> float | None:
        """Seconds until the next probe, 0 when it is due; None: the circuit is closed."""
        if record.opened_at is None:
            return None
        if record.probed_at is None:
            return max(0.0, record.opened_at + self._cooldown - self._clock())
        return min(SOON, max(0.0, record.probed_at + self._cooldown - self._clock()))

    def _counts(self, record: Record) -> bool:
        """Is the record recent enough to count?"""
        return self._clock() - record.at <= FORGOTTEN + self._cooldown

    async def _look(self, circuit: _Circuit) -> _Seen:
        seen = self._seen.get(circuit)
        if seen is None or self._clock() - seen.at >= BELIEVED:
            return await self._read(circuit)
        return seen

    async def _read(self, circuit: _Circuit) -> _Seen:
        value, revision = await self._breakers.get(circuit.key)
        record = msgspec.json.decode(value, type=Record) if value else Record()
        now = self._clock()
        if not self._counts(record):
            record = Record()
        if len(self._seen) >= MOST:
            self._seen.clear()
        seen = self._seen[circuit] = _Seen(record, revision, now)
        return seen

    async def _store(self, circuit: _Circuit, record: Record, revision: int) -> bool:
        record = msgspec.structs.replace(
            record, at=self._clock(), provider=circuit.provider, model=circuit.shown_model
        )
        stored = await self._breakers.put(circuit.key, msgspec.json.encode(record), revision)
        self._seen.pop(circuit, None)  # its new revision is not known
        return stored

    async def _change(
        self, circuit: _Circuit, change: Callable[[Record], Record]
    ) -> tuple[Record, Record]:
        """Change the record, from what to what; when others are faster every time, not at all."""
        try:
            for _ in range(TRIES):
                seen = await self._read(circuit)
                record = change(seen.record)
                if record == seen.record or await self._store(circuit, record, seen.revision):
                    return seen.record, record
        except BreakerStoreUnavailable:
            pass
        return Record(), Record()
