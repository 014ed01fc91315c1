"""Users and tokens: what is decided when operators make them, and whose a token is.

A name belongs to one user and a credential to one token, however many stores
decide at once: all users' facts of a kind are one chain.
"""

import hmac
import re

import sqlalchemy as sa

from services.store.applying import read_applied
from services.store.chains import Chains, Decide
from services.store.database import Database
from services.store.queries import not_found
from services.store.rows import TokenRow, UserRow, token_row, user_row
from services.store.schema import tokens, users
from shared import ids
from shared.commands import CheckToken, Holder, TokenCheck
from shared.errors import Conflict, InvalidRequest, NotFound
from shared.events import (
    AccountFact,
    TokenCreated,
    TokenRevoked,
    UserCreated,
    UserDisabled,
    UserEnabled,
)
from shared.operating import (
    LOCAL_NAME,
    CreateToken,
    CreateUser,
    EnableUser,
    ListTokens,
    ListUsers,
    RevokeToken,
    TokenAnswer,
    TokenList,
    UserAnswer,
    UserList,
)
from shared.records import Token, User
from shared.subjects import Scope, user_address

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
LABEL = 200
"""Characters of a label."""


class Accounts:
    """The operations on users and tokens."""

    def __init__(self, chains: Chains, database: Database) -> None:
        self._chains = chains
        self._database = database

    # -- users ------------------------------------------------------------------------

    async def create_user(self, request: CreateUser) -> UserAnswer:
        account = ids.LOCAL_USER if request.user == LOCAL_NAME else request.account_id
        _check_user(request.user, account)

        async def decide() -> AccountFact | None:
            known = await self._database.read(find_user, request.user)
            if known is None:
                return UserCreated(at=ids.now(), name=request.user)
            if known.id != account:
                raise Conflict(f"There is a user {request.user!r} already.")
            return None

        await self._append(account, "user", decide)
        return await self._database.read(_user_answer, request.user)

    async def enable_user(self, request: EnableUser) -> UserAnswer:
        user = await self._user(request.user)

        async def decide() -> AccountFact | None:
            known = await self._user(request.user)
            if (known.disabled_at is None) == request.enabled:
                return None
            if request.enabled:
                return UserEnabled(at=ids.now())
            return UserDisabled(at=ids.now())

        await self._append(user.id, "user", decide)
        return await self._database.read(_user_answer, request.user)

    async def _user(self, name: str) -> UserRow:
        """The user of that name.

        Raises:
            NotFound: nobody has it.
        """
        found = await self._database.read(find_user, name)
        if found is None:
            raise NotFound(f"There is no user {name[:100]!r}; `natterlog user add` makes one.")
        return found

    # -- tokens -----------------------------------------------------------------------

    async def create_token(self, request: CreateToken) -> TokenAnswer:
        _check_token(request)
        if request.user == LOCAL_NAME:  # he was there before anybody was added
            await self._need_local()
        user = await self._user(request.user)

        async def decide() -> AccountFact | None:
            known = await self._database.read(_find_token, request.sha256)
            if known is not None and known.id == request.token_id:
                return None
            if known is not None:
                raise Conflict("This token was made before; please choose another value.")
            return TokenCreated(
                at=ids.now(),
                token_id=request.token_id,
                sha256=request.sha256,
                label=request.label,
                expires_at=request.expires_at,
            )

        await self._append(user.id, "token", decide)
        return await self._database.read(_token_answer, request.token_id)

    async def revoke_token(self, request: RevokeToken) -> TokenAnswer:
        row = await self._token(request.token_id)

        async def decide() -> AccountFact | None:
            if (await self._token(request.token_id)).revoked_at is not None:
                return None
            return TokenRevoked(at=ids.now(), token_id=request.token_id)

        await self._append(row.user_id, "token", decide)
        return await self._database.read(_token_answer, request.token_id)

    async def _need_local(self) -> None:
        if await self._database.read(find_user, LOCAL_NAME) is None:
            await self.create_user(CreateUser(account_id=ids.LOCAL_USER, user=LOCAL_NAME))

    async def _token(self, token_id: str) -> TokenRow:
        """The token of that id.

        Raises:
            NotFound: there is none.
        """
        found = await self._database.read(_token_by_id, token_id)
        if found is None:
            raise NotFound("There is no such token; `natterlog token list` has the ids.")
        return found

    async def _append(self, user: str, kind: str, decide: Decide) -> None:
        address = user_address(user)
        await self._chains.append_outside(address, decide, scope=Scope.EVERYBODY, kind=kind)


def _check_user(name: str, account: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "A user's name has letters, digits and . _ @ + -, 100 at most, "
            "and begins with a letter or digit.",
            path="$.user",
        )
    if not ids.is_id(account):
        raise InvalidRequest("account_id must be a UUID.", path="$.account_id")


def _check_token(request: CreateToken) -> None:
    if not ids.is_id(request.token_id):
        raise InvalidRequest("token_id must be a UUID.", path="$.token_id")
    if not _SHA256.fullmatch(request.sha256):
        raise InvalidRequest("Expected a SHA-256 in hexadecimal.", path="$.sha256")
    if len(request.label) > LABEL:
        raise InvalidRequest(f"A label has {LABEL} characters at most.", path="$.label")
    if request.expires_at is not None and request.expires_at.tzinfo is None:
        raise InvalidRequest("A time has a zone.", path="$.expires_at")


# -- queries ------------------------------------------------------------------------


def check_token(connection: sa.Connection, request: CheckToken) -> TokenCheck:
    """Whose a credential is; none of a revoked one or of a disabled user."""
    row = _find_token(connection, request.sha256)
    holder = None
    if row is not None and hmac.compare_digest(row.sha256, request.sha256):
        enabled = sa.select(users.c.id).where(users.c.id == row.user_id)
        enabled = enabled.where(users.c.disabled_at.is_(None))
        if row.revoked_at is None and connection.execute(enabled).one_or_none() is not None:
            holder = Holder(
                user_id=row.user_id,
                token_id=row.id,
                sha256=row.sha256,
                expires_at=row.expires_at,
            )
    return TokenCheck(holder=holder, made=_any_made(connection), seq=read_applied(connection))


def list_users(connection: sa.Connection, request: ListUsers) -> UserList:
    del request
    rows = connection.execute(_WITH_COUNTS.order_by(users.c.name))
    return UserList(items=[_user(row) for row in rows], seq=read_applied(connection))


def list_tokens(connection: sa.Connection, request: ListTokens) -> TokenList:
    query = sa.select(tokens, users.c.name).join(users, users.c.id == tokens.c.user_id)
    if request.user is not None:
        if find_user(connection, request.user) is None:
            raise NotFound(f"There is no user {request.user[:100]!r}.")
        query = query.where(users.c.name == request.user)
    rows = connection.execute(query.order_by(tokens.c.created_at, tokens.c.id))
    return TokenList(
        items=[_token(row) for row in rows],
        made=_any_made(connection),
        seq=read_applied(connection),
    )


def find_user(connection: sa.Connection, name: str) -> UserRow | None:
    row = connection.execute(sa.select(users).where(users.c.name == name)).one_or_none()
    return None if row is None else user_row(row)


def _any_made(connection: sa.Connection) -> bool:
    return connection.execute(sa.select(tokens.c.id).limit(1)).one_or_none() is not None


def _find_token(connection: sa.Connection, sha256: str) -> TokenRow | None:
    row = connection.execute(sa.select(tokens).where(tokens.c.sha256 == sha256)).one_or_none()
    return None if row is None else token_row(row)


def _token_by_id(connection: sa.Connection, token_id: str) -> TokenRow | None:
    row = connection.execute(sa.select(tokens).where(tokens.c.id == token_id)).one_or_none()
    return None if row is None else token_row(row)


def _user_answer(connection: sa.Connection, name: str) -> UserAnswer:
    row = connection.execute(_WITH_COUNTS.where(users.c.name == name)).one()
    return UserAnswer(user=_user(row), seq=read_applied(connection))


def _token_answer(connection: sa.Connection, token_id: str) -> TokenAnswer:
    query = sa.select(tokens, users.c.name).join(users, users.c.id == tokens.c.user_id)
    row = connection.execute(query.where(tokens.c.id == token_id)).one_or_none()
    if row is None:
        raise not_found("token")
    return TokenAnswer(token=_token(row), seq=read_applied(connection))


def _user(row: "sa.Row[tuple[object, ...]]") -> User:
    return User(
        id=row.id,
        name=row.name,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        tokens=row.tokens,
    )


def _token(row: "sa.Row[tuple[object, ...]]") -> Token:
    return Token(
        id=row.id,
        user=row.name,
        label=row.label,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )


_WITH_COUNTS = sa.select(
    users,
    sa.select(sa.func.count())
    .where(tokens.c.user_id == users.c.id, tokens.c.revoked_at.is_(None))
    .scalar_subquery()
    .label("tokens"),
)
