"""The one way of a dialect to begin a run: it is counted, then the store is asked to begin it.

The store's client refuses such commands anywhere else, so that no dialect can
forget to count (a test looks for that, too).
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web

from services.gateway.access.rates import Rate
from services.gateway.context import RATE, USER, Gateway, gateway_of
from shared.commands import Started, StartsRun
from shared.errors import NatterlogError, Unavailable, Unreached


class RunPermit:
    """Permission to begin one run; it is counted already."""

    def __init__(self, gateway: Gateway, request: web.Request, rate: Rate | None) -> None:
        self._gateway = gateway
        self._request = request
        self._rate = rate
        self._used = False

    async def start(self, command: StartsRun[Started]) -> Started:
        """Begin the run; a repeat of one that was begun before does not count.

        Raises:
            NatterlogError: the store's own answer: it was not begun, and does not count.
            Unavailable: it may have been.
        """
        self._used = True
        try:
            answer = await self._gateway.store.start_run(command)
        except NatterlogError as error:
            if isinstance(error, Unreached) or not isinstance(error, Unavailable):
                self._take_back()
            raise
        if answer.repeated:
            self._take_back()
        return answer

    def give_up(self) -> None:
        """Take the count back where nothing was begun with it."""
        if not self._used:
            self._take_back()

    def _take_back(self) -> None:
        if self._rate is not None:
            self._gateway.rates.take_back(self._request[USER].id)
            self._request[RATE] = self._rate._replace(left=self._rate.left + 1)


@asynccontextmanager
async def run_permit(request: web.Request) -> AsyncGenerator[RunPermit]:
    """Permission to begin one run, where more is to be done between counting and beginning.

    Raises:
        RateLimited: the user has begun as many as he may for now.
    """
    gateway = gateway_of(request)
    rate = await gateway.rates.count(request[USER].id)
    if rate is not None:
        request[RATE] = rate._replace(left=max(0, rate.left))
        if rate.left < 0:
            raise rate.refusal()
    permit = RunPermit(gateway, request, rate)
    try:
        yield permit
    finally:
        permit.give_up()


async def start(request: web.Request, command: StartsRun[Started]) -> Started:
    """Count, and begin a run.

    Raises:
        RateLimited: the user has begun as many as he may for now.
        NatterlogError: the store's own answer.
    """
    async with run_permit(request) as permit:
        return await permit.start(command)
