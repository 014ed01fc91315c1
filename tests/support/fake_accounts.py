"""The fake store's users and tokens, and the facts by which gateways hear of them."""

import hashlib
from datetime import datetime
from typing import TYPE_CHECKING

from shared import commands as c
from shared.errors import Unavailable
from shared.events import Fact, TokenCreated, TokenRevoked, UserDisabled, UserEnabled, encode
from shared.ids import LOCAL_USER, new_id, now
from shared.subjects import user_address

if TYPE_CHECKING:
    from tests.support.fake_store import FakeStore


class FakeAccounts:
    """Whose which credential is; ``away`` answers as if there were no store."""

    def __init__(self, store: "FakeStore") -> None:
        self._store = store
        self._holders: dict[str, c.Holder] = {}
        self._disabled: set[str] = set()
        self._made = False
        self.away = False
        self.checks = 0
        """How often it was asked about a credential."""

    async def check_token(self, q: c.CheckToken) -> c.TokenCheck:
        if self.away:
            raise Unavailable("There is no store.", retry_after=1.0)
        self.checks += bool(q.sha256)
        holder = self._holders.get(q.sha256)
        if holder is not None and holder.user_id in self._disabled:
            holder = None
        seq = max(self._store.seq, q.min_seq)
        return c.TokenCheck(holder=holder, made=self._made, seq=seq)

    async def make(
        self, value: str, user: str = LOCAL_USER, *, expires_at: datetime | None = None
    ) -> str:
        """Make a token; answers its id."""
        digest = hashlib.sha256(value.encode()).hexdigest()
        token_id = new_id()
        self._holders[digest] = c.Holder(
            user_id=user, token_id=token_id, sha256=digest, expires_at=expires_at
        )
        self._made = True
        fact = TokenCreated(
            at=now(), token_id=token_id, sha256=digest, label="", expires_at=expires_at
        )
        await self._append(user, "token.created", fact)
        return token_id

    async def revoke(self, token_id: str) -> None:
        gone = {d: h for d, h in self._holders.items() if h.token_id == token_id}
        for digest, holder in gone.items():
            del self._holders[digest]
            fact = TokenRevoked(at=now(), token_id=token_id)
            await self._append(holder.user_id, "token.revoked", fact)

    async def disable(self, user: str) -> None:
        self._disabled.add(user)
        await self._append(user, "user.disabled", UserDisabled(at=now()))

    async def enable(self, user: str) -> None:
        self._disabled.discard(user)
        await self._append(user, "user.enabled", UserEnabled(at=now()))

    async def _append(self, user: str, happened: str, fact: Fact) -> None:
        subject = user_address(user).fact(happened)
        self._store.seq = await self._store.bus.store(subject, encode(fact))
