"""``natterlog user …`` and ``natterlog token …``: who may use the system that runs.

They ask the store over NATS, as only operators can.  A token is made here, printed
once, and sent nowhere: the store is told its SHA-256.
"""

import argparse
import asyncio
import hashlib
import re
import secrets
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from services.running import running_nats_url
from shared.bus import Bus, BusError
from shared.errors import NatterlogError
from shared.ids import new_id, now
from shared.operating import (
    CreateToken,
    CreateUser,
    EnableUser,
    ListTokens,
    ListUsers,
    Operator,
    RevokeToken,
)
from shared.records import Token, User
from shared.settings import Settings

FAILED = 1
GUESSABLE = 16
"""Characters below which a token of one's own is told to be weak."""
_MOST = 500
_DURATION = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

Work = Callable[[Operator, argparse.Namespace], Coroutine[Any, Any, None]]


class Refused(Exception):
    """What was asked for makes no sense; the message says why."""


def run(asked: argparse.Namespace, settings: Settings) -> int:
    """Do what the command line asks for, on the system that runs → the exit code."""
    url = running_nats_url(settings)
    if url is None:
        sys.stderr.write(
            f"natterlog: nothing runs on {settings.data_dir.resolve()}. Start natterlog first "
            "(`natterlog up`), or name another system by NATTERLOG_DATA_DIR or "
            "NATTERLOG_NATS_URL.\n"
        )
        return FAILED
    try:
        asyncio.run(_with_operator(url, _WORK[asked.work], asked))
    except (NatterlogError, BusError, OSError, Refused) as error:
        sys.stderr.write(f"natterlog: {error}\n")
        return FAILED
    return 0


async def _with_operator(url: str, work: Work, asked: argparse.Namespace) -> None:
    async with Bus(url, name="operator") as bus:
        await work(Operator(bus), asked)


# -- users ------------------------------------------------------------------------


async def _add_user(operator: Operator, asked: argparse.Namespace) -> None:
    answer = await operator.ask(CreateUser(account_id=new_id(), user=asked.user))
    name = answer.user.name
    sys.stdout.write(f"Added {name}. Now make a token: natterlog token create {name}\n")


async def _disable_user(operator: Operator, asked: argparse.Namespace) -> None:
    answer = await operator.ask(EnableUser(user=asked.user, enabled=False))
    sys.stdout.write(f"Disabled {answer.user.name}.\n")


async def _enable_user(operator: Operator, asked: argparse.Namespace) -> None:
    answer = await operator.ask(EnableUser(user=asked.user, enabled=True))
    sys.stdout.write(f"Enabled {answer.user.name}.\n")


async def _list_users(operator: Operator, asked: argparse.Namespace) -> None:
    users = (await operator.ask(ListUsers())).items
    if asked.json:
        _write_json(users)
        return
    _write_table(("name", "id", "created", "tokens", "state"), [_user_row(user) for user in users])


def _user_row(user: User) -> tuple[str, ...]:
    state = "disabled" if user.disabled_at else "enabled"
    return user.name, user.id, _day(user.created_at), str(user.tokens), state


# -- tokens -----------------------------------------------------------------------


async def _create_token(operator: Operator, asked: argparse.Namespace) -> None:
    value = secrets.token_urlsafe(32) if asked.value is None else _own_value(asked.value)
    request = CreateToken(
        user=asked.user,
        token_id=new_id(),
        sha256=hashlib.sha256(value.encode()).hexdigest(),
        label=asked.label,
        expires_at=expiry(asked.expires, now()) if asked.expires else None,
    )
    token = (await operator.ask(request)).token
    until = f", until {_day(token.expires_at)}" if token.expires_at else ""
    if len(value) < GUESSABLE:
        sys.stderr.write("natterlog: this token is short, and might be guessed.\n")
    sys.stdout.write(f"Token {token.id} of {token.user}{until}. It is shown this once:\n{value}\n")


def _own_value(text: str) -> str:
    """A token that can be sent in a header and in a URL.

    Raises:
        Refused: it cannot.
    """
    if not (0 < len(text) <= _MOST and text.isascii() and text.isprintable() and " " not in text):
        raise Refused(f"A token has 1 to {_MOST} visible ASCII characters, and no spaces.")
    return text


def expiry(text: str, present: datetime) -> datetime:
    """When a token ends: so long from now, or at a time (UTC where it names no zone).

    Raises:
        Refused: it is neither, or over.
    """
    duration = _DURATION.fullmatch(text)
    try:
        if duration:
            moment = present + timedelta(**{_UNITS[duration[2]]: int(duration[1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise Refused(
            f"{text[:40]!r} is no time: say 30d, 12h, 45m or 2w, or a date as 2027-01-31."
        ) from None
    if moment <= present:
        raise Refused(f"{text[:40]!r} is over already.")
    return moment.astimezone(UTC)


async def _list_tokens(operator: Operator, asked: argparse.Namespace) -> None:
    tokens = (await operator.ask(ListTokens(user=asked.user))).items
    if asked.json:
        _write_json(tokens)
        return
    head = ("id", "user", "label", "created", "expires", "state")
    _write_table(head, [_token_row(token) for token in tokens])


def _token_row(token: Token) -> tuple[str, ...]:
    state = "valid"
    if token.revoked_at:
        state = "revoked"
    elif token.expires_at and token.expires_at <= now():
        state = "expired"
    expires = _day(token.expires_at) if token.expires_at else "–"
    return token.id, token.user, token.label or "–", _day(token.created_at), expires, state


async def _revoke_token(operator: Operator, asked: argparse.Namespace) -> None:
    token = (await operator.ask(RevokeToken(token_id=asked.token_id))).token
    sys.stdout.write(f"Revoked {token.id} of {token.user}.\n")


# -- writing ----------------------------------------------------------------------


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}Z"


def _write_json(items: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(items), indent=2)
    sys.stdout.write(f"{text.decode()}\n")


def _write_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write(f"{'  '.join(cells).rstrip()}\n")


_WORK: dict[str, Work] = {
    "user add": _add_user,
    "user disable": _disable_user,
    "user enable": _enable_user,
    "user list": _list_users,
    "token create": _create_token,
    "token list": _list_tokens,
    "token revoke": _revoke_token,
}
