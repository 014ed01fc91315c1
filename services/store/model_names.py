"""Which models may be named: those on offer, and others that a worker knows somebody to have.

What the providers offer is in the tables, so a usual name costs nothing.  Of any
other name a worker is asked, who knows what names mean and whose lists say all.
Nobody waits for a provider that is slow: what cannot be said now lets the name
through, and the run will say it.
"""

import asyncio
from collections import OrderedDict
from contextlib import suppress
from typing import NamedTuple

from services.store.database import Database
from services.store.models import offered_names
from shared.bus import Bus, BusError
from shared.errors import ModelNotFound, NatterlogError
from shared.llm_client import LlmClient
from shared.log import get_logger
from shared.offers import FindModel, Refresh

log = get_logger()

TIMEOUT = 1.0
"""Seconds that a command waits for a worker's answer on a name."""
FRESH = 30.0
"""Seconds for which a name that is on no list counts as found, and the lists as new."""
RECENT = 5.0
"""Seconds for which a refusal is believed, and that nobody could say anything."""
MOST = 1000
"""Names of which something is remembered."""


class _Answer(NamedTuple):
    """What was said of a name, and until when it is believed."""

    until: float
    refusal: str | None


class ModelNames:
    """Judges the names of models."""

    def __init__(self, bus: Bus, database: Database) -> None:
        self._database = database
        self._workers = LlmClient(bus)
        self._offered: frozenset[str] | None = None
        self._changes = 0
        self._known: OrderedDict[str, _Answer] = OrderedDict()
        self._lookups: dict[str, tuple[float, asyncio.Task[None]]] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = float("-inf")

    def on_synced(self, session_id: str) -> None:
        """Forget what was known of names: other models are on offer than before."""
        del session_id  # it is a fact of none
        self._offered = None
        self._changes += 1
        self._known.clear()

    async def close(self) -> None:
        going = [task for _, task in self._lookups.values()]
        going += [] if self._refreshing is None else [self._refreshing]
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    async def check(self, name: str | None, *, path: str | None = "$.model") -> None:
        """Make sure that somebody may have the model; ``path`` is where another can be named.

        Raises:
            ModelNotFound: nobody has it; the sentence names those that there are.
        """
        if not name:
            return
        if name in await self._names():
            self._refresh(max_age=FRESH)
            return
        answer = self._known.get(name)
        if answer is None or answer.until < _now():
            answer = await self._look_up(name)
        if answer is not None and answer.refusal is not None:
            raise ModelNotFound(answer.refusal, path=path)

    async def _names(self) -> frozenset[str]:
        """The names on offer, read anew once they changed."""
        while self._offered is None:
            changes = self._changes
            offered = await self._database.read(offered_names)
            if changes == self._changes:
                self._offered = offered
        return self._offered

    async def _look_up(self, name: str) -> _Answer | None:
        """A worker's answer on the name; None while there is none."""
        if name not in self._lookups:
            self._lookups[name] = _now(), asyncio.create_task(self._find(name), name="find-model")
        since, lookup = self._lookups[name]
        # Who comes while a slow provider is being asked does not wait for it once more.
        left = max(0.0, since + TIMEOUT - _now())
        await asyncio.wait({lookup}, timeout=left)
        return self._known.get(name) if lookup.done() else None

    async def _find(self, name: str) -> None:
        try:
            await self._workers.ask(FindModel(model=name), restart=0.0)
            self._keep(name, _Answer(_now() + FRESH, None))
            self._refresh(max_age=RECENT)  # it may be a new one
        except ModelNotFound as error:
            self._keep(name, _Answer(_now() + RECENT, error.message))
        except (NatterlogError, BusError) as error:
            log.info("models.name_unchecked", error=str(error))
            self._keep(name, _Answer(_now() + RECENT, None))
        finally:
            del self._lookups[name]

    def _keep(self, name: str, answer: _Answer) -> None:
        self._known[name] = answer
        self._known.move_to_end(name)
        if len(self._known) > MOST:
            self._known.popitem(last=False)

    def _refresh(self, *, max_age: float) -> None:
        """Have the lists compared with the providers, behind whoever uses them."""
        if self._refreshing is None and _now() - self._refreshed_at > max_age:
            self._refreshing = asyncio.create_task(self._compare(), name="models-refresh")

    async def _compare(self) -> None:
        try:
            with suppress(NatterlogError, BusError):  # then the lists stay as they are
                await self._workers.ask(Refresh(), restart=0.0)
        finally:
            self._refreshed_at = _now()
            self._refreshing = None


def _now() -> float:
    return asyncio.get_running_loop().time()
