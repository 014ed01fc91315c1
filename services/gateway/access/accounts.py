"""Which credentials count, as this gateway knows it: from the store once, then from the facts.

Whatever is kept here is kept by SHA-256, and up to a number.  A fact about a user
or token reaches every gateway as soon as it is stored, so what was revoked is
refused at once, and the store is not asked again about what it answered before.
"""

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar
from weakref import WeakValueDictionary

from services.gateway.access.auth import User, missing_token, not_known
from services.gateway.single_flight import SingleFlight
from shared.bus import Bus, BusError, Incoming, Listening, Stored
from shared.commands import CheckToken, Holder
from shared.errors import NatterlogError, RateLimited
from shared.events import (
    Fact,
    TokenCreated,
    TokenRevoked,
    UserDisabled,
    UserEnabled,
    decode_fact,
)
from shared.ids import LOCAL_USER
from shared.log import get_logger
from shared.settings import BadSetting, Settings
from shared.store_client import StoreClient
from shared.subjects import EVENTS, LIVE, OUTSIDE_SESSIONS, Address, parse

log = get_logger()

T = TypeVar("T")

MOST = 10_000
"""Credentials that are remembered as known, and as many as unknown."""
GUESSES = 50
"""Unknown credentials a second about which the store is asked."""
_ROUND = 1.0
_TIMEOUT = 2.0
"""Seconds for which a request waits for what was missed while NATS was away."""
_PAGE = 1000


class Accounts:
    """``async with Accounts(settings, bus, store) as accounts: await accounts.user_of(token)``."""

    def __init__(self, settings: Settings, bus: Bus, store: StoreClient) -> None:
        self._settings = settings
        self._bus = bus
        self._store = store
        self._made: bool | None = None
        """Whether any token was ever made; None: not known yet."""
        self._anybody = User(LOCAL_USER)
        self._known: OrderedDict[str, User] = OrderedDict()
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._living: WeakValueDictionary[str, User] = WeakValueDictionary()
        """Everybody whose requests are open or remembered, by the credential's SHA-256."""
        self._checks = SingleFlight(self._check, name="token-check")
        self._guesses = _Budget(GUESSES)
        self._seen = 0
        self._account_seq = 0
        """The last fact about an account that was heard."""
        self._caught_up = asyncio.Event()
        self._catching_up: asyncio.Task[None] | None = None
        self._listening: Listening | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listening = await self._bus.listen_live(f"{LIVE}{OUTSIDE_SESSIONS}", self.on_fact)
        last = await self._bus.head(EVENTS, OUTSIDE_SESSIONS)
        self._account_seq = last.seq if last else 0  # what the store answers must not be older
        self._seen = (await self._bus.api(f"STREAM.INFO.{EVENTS}"))["state"]["last_seq"]
        self._caught_up.set()
        self._bus.on_reconnect(self._reconnected)
        self._spawn(self._keep())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._checks.cancel()
        for task in self._tasks:
            task.cancel()
        if self._listening is not None:
            await self._listening.close()

    # -- who it is ----------------------------------------------------------------------

    @property
    def needed(self) -> bool:
        """Whether nobody is let in without a credential."""
        return bool(self._made)

    async def user_of(self, credential: str | None) -> User:
        """Whoever the credential stands for; before the first token, the local user.

        Raises:
            Unauthorized: it stands for nobody, or is missing.
            RateLimited: too many unknown ones came at once.
            Unavailable: it is not known here, and the store does not answer.
        """
        if not self._caught_up.is_set():
            await self._wait_for_missed()
        if self._made is None:
            await self._check("")
        if not self._made:
            if self._settings.on_loopback or self._settings.open_network:
                return self._anybody
            raise missing_token()
        if credential is None:
            raise missing_token()
        return await self._user_with(_sha256(credential))

    async def may_listen(self) -> None:
        """Refuse to let a whole network in by accident; waits until the store answers.

        Raises:
            BadSetting: the gateway would listen beyond loopback, and anybody could use it.
        """
        if self._settings.on_loopback or self._settings.open_network:
            return
        while self._made is None:
            try:
                await self._check("")
            except NatterlogError as error:
                log.info("gateway.waits_for_store", error=str(error))
        if not self._made:
            raise BadSetting(
                f"NATTERLOG_HOST is {self._settings.host!r}, and no token was ever made, so "
                "everybody who can reach this machine could read and write everything. Make one "
                "first, while natterlog runs on loopback (NATTERLOG_HOST=127.0.0.1): `natterlog "
                "token create local`, or `natterlog user add NAME` and `natterlog token create "
                "NAME`; it prints the token. Then start it as you just did. (Where nobody but "
                "this machine reaches the address, as in a container, NATTERLOG_OPEN_NETWORK=true "
                "lets everybody in until the first token is made.)"
            )

    async def _user_with(self, digest: str) -> User:
        user = self._known.get(digest)
        if user is not None:
            self._known.move_to_end(digest)
        elif digest in self._unknown:
            self._unknown.move_to_end(digest)
            raise not_known()
        else:
            user = await self._check_once(digest)
        if user is None or not user.counts:
            raise not_known()
        return user

    async def _check_once(self, digest: str) -> User | None:
        """Ask the store; whoever comes with the same credential meanwhile waits for one answer."""
        if self._checks.under_way(digest) is None:
            self._guesses.spend()
        return await self._checks.of(digest).result()

    async def _check(self, digest: str) -> User | None:
        while True:
            request = CheckToken(user_id=LOCAL_USER, sha256=digest, min_seq=self._account_seq)
            answer = await self._store.ask(request)
            if answer.seq >= self._account_seq:  # else a fact came while the store was answering
                break
        if answer.made and not self._made:
            self._first_token()
        self._made = bool(self._made) or answer.made
        holder = answer.holder
        if holder is not None and hmac.compare_digest(holder.sha256, digest):
            user = self._user(holder)
            if user.counts:
                _keep(self._known, digest, user)
                return user
        if digest:
            _keep(self._unknown, digest, None)
        return None

    def _user(self, holder: Holder) -> User:
        user = self._living.get(holder.sha256)
        if user is None:
            user = User(holder.user_id, holder.token_id, holder.expires_at)
            self._living[holder.sha256] = user
        return user

    # -- what happens -------------------------------------------------------------------

    def on_fact(self, message: Incoming) -> None:
        self._take(Stored(message.sequence, message.subject.removeprefix(LIVE), message.data))

    def _take(self, stored: Stored) -> None:
        """Apply a fact about a user or token; hearing it twice is harmless."""
        self._seen = max(self._seen, stored.seq)
        fact = decode_fact(stored.data)
        react = self.FACTS.get(type(fact))
        if react is not None:
            react(self, parse(stored.subject), fact)
            self._account_seq = max(self._account_seq, stored.seq)

    def token_created(self, _: Address, fact: TokenCreated) -> None:
        self._unknown.pop(fact.sha256, None)
        self._first_token()

    def token_revoked(self, _: Address, fact: TokenRevoked) -> None:
        self._end(lambda user: user.token_id == fact.token_id)

    def user_disabled(self, address: Address, _: UserDisabled) -> None:
        self._end(lambda user: user.id == address.user)

    def user_enabled(self, _: Address, __: UserEnabled) -> None:
        self._unknown.clear()

    FACTS: ClassVar[dict[type[Fact], Callable[..., None]]] = {
        TokenCreated: token_created,
        TokenRevoked: token_revoked,
        UserDisabled: user_disabled,
        UserEnabled: user_enabled,
    }
    """What changes who is let in."""

    def _first_token(self) -> None:
        """Note that there is a token: from now on everybody needs one."""
        if not self._made:
            self._made = True
            self._anybody.end()

    def _end(self, whom: Callable[[User], bool]) -> None:
        for digest, user in [*self._living.items()]:
            if whom(user):
                self._end_one(digest, user)

    def _end_one(self, digest: str, user: User) -> None:
        """End what the credential opened; when it comes again the store is asked."""
        self._living.pop(digest, None)
        self._known.pop(digest, None)
        user.end()

    async def _keep(self) -> None:
        """Learn whether tokens are needed, and end what expires."""
        while True:
            if self._made is None:
                try:
                    await self._check("")
                except (NatterlogError, BusError) as error:
                    log.info("accounts.store_unreachable", error=str(error))
            self._end(lambda user: not user.counts)
            await asyncio.sleep(_ROUND)

    # -- after an outage ------------------------------------------------------------------

    def _reconnected(self) -> None:
        self._caught_up.clear()
        if self._catching_up is not None:
            self._catching_up.cancel()
        self._catching_up = self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        """Read what happened to accounts while NATS was away."""
        while True:
            try:
                await self._read_missed()
                break
            except BusError as error:
                log.warning("accounts.catch_up_failed", error=str(error))
                await asyncio.sleep(_ROUND)
        self._caught_up.set()

    async def _read_missed(self) -> None:
        state = (await self._bus.api(f"STREAM.INFO.{EVENTS}"))["state"]
        if not state["first_seq"] - 1 <= self._seen <= state["last_seq"]:
            await self._check_all()  # what was missed is not there any more
        while True:
            after = self._seen
            missed = await self._bus.read(EVENTS, OUTSIDE_SESSIONS, after=after, limit=_PAGE)
            for stored in missed:
                self._take(stored)
            if len(missed) < _PAGE:
                return

    async def _check_all(self) -> None:
        """Ask anew about everybody who is connected or remembered."""
        self._unknown.clear()
        for digest, user in [*self._living.items()]:
            try:
                if await self._check(digest) is not user:
                    self._end_one(digest, user)
            except NatterlogError as error:
                log.warning("accounts.store_unreachable", error=str(error))
                return

    async def _wait_for_missed(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._caught_up.wait()
        except TimeoutError:
            pass  # NATS is away: what was known before goes on

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="accounts")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class _Budget:
    """Questions to the store, so many a second: no more than that for whoever guesses tokens."""

    def __init__(self, rate: float) -> None:
        self._rate = self._left = rate
        self._at = time.monotonic()

    def spend(self) -> None:
        """Count one more question to the store.

        Raises:
            RateLimited: there were too many this second.
        """
        now = time.monotonic()
        self._left = min(self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            raise RateLimited("Too many unknown tokens are being tried.", retry_after=1.0)
        self._left -= 1


def _keep(kept: OrderedDict[str, T], digest: str, value: T) -> None:
    kept[digest] = value
    if len(kept) > MOST:
        kept.popitem(last=False)


def _sha256(credential: str) -> str:
    return hashlib.sha256(credential.encode(errors="surrogateescape")).hexdigest()
