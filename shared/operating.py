"""What only operators may ask of the store: users and tokens, from the command line.

Whoever reaches NATS may ask these; whoever reaches a gateway must not.  So gateways
do not know this module (an import contract in ``pyproject.toml`` holds them to it),
and nothing that a client sends can become one of these requests.
"""

from datetime import datetime
from typing import ClassVar, overload

import msgspec

from shared.bus import Bus
from shared.commands import Request
from shared.ids import LOCAL_USER
from shared.records import Token, User
from shared.subjects import store_command

LOCAL_NAME = "local"
"""The user to whom everything belongs that was made before the first token."""


class Operation(Request, frozen=True, kw_only=True):
    """A request of an operator, on behalf of nobody."""

    user_id: str = LOCAL_USER


class CreateUser(Operation, frozen=True, kw_only=True):
    """Add a user under a name that no other has → :class:`UserAnswer`.

    The asker makes the id, so that asking once more cannot add a second one.  The
    name ``local`` has the id of the local user, whatever id is asked for.
    """

    name: ClassVar[str] = "create_user"
    account_id: str
    user: str


class EnableUser(Operation, frozen=True, kw_only=True):
    """Let a user's tokens count (again) or not → :class:`UserAnswer`."""

    name: ClassVar[str] = "enable_user"
    user: str
    enabled: bool


class CreateToken(Operation, frozen=True, kw_only=True):
    """Make a credential of a user → :class:`TokenAnswer`.

    Only its SHA-256 gets here: the token itself never leaves the asker.
    """

    name: ClassVar[str] = "create_token"
    user: str
    token_id: str
    sha256: str
    label: str = ""
    expires_at: datetime | None = None


class RevokeToken(Operation, frozen=True, kw_only=True):
    """Let a credential count no more → :class:`TokenAnswer`."""

    name: ClassVar[str] = "revoke_token"
    token_id: str


class ListUsers(Operation, frozen=True, kw_only=True):
    """All users, by name → :class:`UserList`."""

    name: ClassVar[str] = "list_users"


class ListTokens(Operation, frozen=True, kw_only=True):
    """All tokens, or those of one user, oldest first → :class:`TokenList`."""

    name: ClassVar[str] = "list_tokens"
    user: str | None = None


class UserAnswer(msgspec.Struct, frozen=True, kw_only=True):
    user: User
    seq: int


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    token: Token
    seq: int


class UserList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[User]
    seq: int


class TokenList(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Token]
    made: bool
    """Whether any token was ever made."""
    seq: int


_USER = CreateUser | EnableUser
_TOKEN = CreateToken | RevokeToken

_ANSWERS: dict[type[Operation], type] = {
    CreateUser: UserAnswer,
    EnableUser: UserAnswer,
    CreateToken: TokenAnswer,
    RevokeToken: TokenAnswer,
    ListUsers: UserList,
    ListTokens: TokenList,
}


class Operator:
    """Asks the store what only operators may ask."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    @overload
    async def ask(self, request: _USER) -> UserAnswer: ...
    @overload
    async def ask(self, request: _TOKEN) -> TokenAnswer: ...
    @overload
    async def ask(self, request: ListUsers) -> UserList: ...
    @overload
    async def ask(self, request: ListTokens) -> TokenList: ...

    async def ask(self, request: Operation) -> object:
        """Carry out an operation; each may be asked twice.

        Raises:
            NatterlogError: the store's own answer.
            Unavailable: no store answers.
        """
        data = msgspec.json.encode(request)
        answer = await self._bus.ask(store_command(request.name), data, timeout=2.0, tries=3)
        return msgspec.json.decode(answer, type=_ANSWERS[type(request)])  # pyright: ignore[reportUnknownVariableType]  (the overloads say)
