"""Requests to the store that only operators may send: users and tokens, from the command line.

Whoever reaches NATS may send these; whoever reaches a gateway must not.  So gateways
do not know this module (an import contract in ``pyproject.toml`` holds them to it),
and nothing that a client sends can become one of these requests.
"""

from datetime import datetime

import msgspec

from shared.bus import Bus
from shared.commands import Request
from shared.ids import LOCAL_USER
from shared.records import Token, User
from shared.requests import Answer
from shared.subjects import store_command

LOCAL_NAME = "local"
"""The user to whom everything belongs that was made before the first token."""


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


class Operation(Request[Answer], frozen=True, kw_only=True):
    """A request of an operator, on behalf of nobody."""

    user_id: str = LOCAL_USER


class CreateUser(Operation[UserAnswer], frozen=True, kw_only=True):
    """Add a user under a name that no other has.

    The client makes the id, so that sending once more cannot add a second one.  The
    name ``local`` has the id of the local user, whatever id is sent.
    """

    account_id: str
    user: str


class EnableUser(Operation[UserAnswer], frozen=True, kw_only=True):
    """Let a user's tokens count (again) or not."""

    user: str
    enabled: bool


class CreateToken(Operation[TokenAnswer], frozen=True, kw_only=True):
    """Make a credential of a user.

    Only its SHA-256 gets here: the token itself never leaves the client.
    """

    user: str
    token_id: str
    sha256: str
    label: str = ""
    expires_at: datetime | None = None


class RevokeToken(Operation[TokenAnswer], frozen=True, kw_only=True):
    """Let a credential count no more."""

    token_id: str


class ListUsers(Operation[UserList], frozen=True, kw_only=True):
    """All users, by name."""


class ListTokens(Operation[TokenList], frozen=True, kw_only=True):
    """All tokens, or those of one user, oldest first."""

    user: str | None = None


class Operator:
    """The operator's client of the store."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def ask(self, request: Operation[Answer]) -> Answer:
        """Carry out an operation; each may be done twice.

        Raises:
            NatterlogError: the store's own answer.
            Unavailable: no store answers.
        """
        data = msgspec.json.encode(request)
        answer = await self._bus.ask(store_command(request.name), data, timeout=2.0, tries=3)
        return request.decode_answer(answer)
