"""Full text: which messages hold some words.  The one module that knows SQLite's FTS5.

The index belongs to the projection, as the messages' rows do.  Its tokenizer
finds words between spaces; scripts that write none are indexed character by
character, and a word of theirs is looked for as a phrase of such characters.
"""

import hashlib
import re
import sqlite3
from collections.abc import Iterable

import sqlalchemy as sa

from services.store.rows import MessageRow, message_row
from services.store.schema import messages, sessions
from shared.commands import HitPage, SearchMessages
from shared.errors import InvalidRequest
from shared.records import HIDDEN_MODES, Hit

AROUND = 60
"""Characters of a snippet before and after what was found."""
MOST_TERMS = 32
_PAGE = 200
# Thai, Lao, Tibetan, Myanmar, Khmer; kana and Han with their extensions.  Hangul has spaces.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_TERM = re.compile(r'"([^"]*)"|(\S+)')
_WORD = re.compile(r"\w+")
_HAS_SECURE_DELETE = sqlite3.sqlite_version_info >= (3, 42)


# -- the index ----------------------------------------------------------------------


def add(connection: sa.Connection, rows: Iterable[MessageRow]) -> None:
    """Take in the words of messages that are not in it."""
    values = [
        {"number": _number(row.id), "text": _spaced(row.content), "id": row.id}
        for row in rows
        if row.content
    ]
    if values:
        connection.execute(_ADD, values)


def forget(connection: sa.Connection, session_ids: list[str]) -> None:
    """Leave nothing of what was said in these sessions, in whatever part of the index."""
    theirs = sa.select(messages.c.id).where(messages.c.session_id.in_(session_ids))
    dropped = drop(connection, connection.execute(theirs).scalars())
    if dropped and not _HAS_SECURE_DELETE:
        # A dropped word stays in its segment until that is merged: merge all of them.
        connection.execute(_MERGE)


def drop(connection: sa.Connection, message_ids: Iterable[str]) -> int:
    """Take out the words of these messages; answers how many messages."""
    numbers = [{"number": _number(known)} for known in message_ids]
    if numbers:
        if _HAS_SECURE_DELETE:
            connection.execute(_SECURE)
        connection.execute(_DROP, numbers)
    return len(numbers)


def clear(connection: sa.Connection) -> None:
    connection.execute(sa.text("DELETE FROM words"))


def _number(message_id: str) -> int:
    """The message's row in the index: made of its id, so that it is the same in every replay."""
    digest = hashlib.blake2b(message_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _spaced(text: str) -> str:
    return _UNSPACED.sub(r" \g<0> ", text)


# -- asking it ----------------------------------------------------------------------


def search_messages(connection: sa.Connection, request: SearchMessages) -> HitPage:
    """The messages that hold all of the terms, of any branch, the newest first."""
    terms = _terms(request.query)
    values = {"terms": _expression(terms), "user": request.user_id, "before": request.before or "~"}
    total = connection.execute(_COUNT, values).scalar_one()
    limit = min(max(request.limit, 1), _PAGE)
    page = {"limit": limit + 1, "offset": max(request.offset, 0)}
    found = connection.execute(_FIND, values | page).all()
    rows = [message_row(row) for row in found[:limit]]
    return HitPage(
        items=[_hit(row, terms) for row in rows],
        next=rows[-1].id if len(found) > limit else None,
        total=total,
        seq=connection.execute(_APPLIED).scalar_one(),
    )


def _terms(query: str) -> list[str]:
    """Words, and quoted phrases, each of which has something that can be looked for.

    Raises:
        InvalidRequest: there is none.
    """
    terms = [phrase or word for phrase, word in _TERM.findall(query)]
    terms = [term for term in terms if _WORD.search(term)]
    if not terms:
        raise InvalidRequest("Say what to search for.", path="$.q")
    return terms[:MOST_TERMS]


def _expression(terms: list[str]) -> str:
    """The terms in FTS5's words: each quoted, so that none of them means anything else.

    The last one may be the beginning of a word, because it is still being typed.
    """
    phrases = ['"{}"'.format(" ".join(_WORD.findall(_spaced(term)))) for term in terms]
    return f"{' '.join(phrases)} *"


def _hit(row: MessageRow, terms: list[str]) -> Hit:
    return Hit(
        session_id=row.session_id,
        message_id=row.id,
        snippet=snippet(row.content, terms),
        created_at=row.created_at,
    )


def snippet(text: str, terms: list[str]) -> str:
    """What stands around the first of the terms, on one line."""
    patterns = [re.escape(word) for term in terms for word in _WORD.findall(term)]
    found = re.search("|".join(patterns), text, re.IGNORECASE)
    start, end = found.span() if found else (0, 0)
    first, last = max(0, start - AROUND), min(len(text), end + AROUND)
    if first and (space := text.find(" ", first, start)) >= 0:
        first = space + 1
    if last < len(text) and (space := text.rfind(" ", end, last)) > end:
        last = space
    shown = " ".join(text[first:last].split())
    return f"{'…' if first else ''}{shown}{'…' if last < len(text) else ''}"


_ADD = sa.text("INSERT INTO words(rowid, text, message_id) VALUES (:number, :text, :id)")
_DROP = sa.text("DELETE FROM words WHERE rowid = :number")
_SECURE = sa.text("INSERT INTO words(words, rank) VALUES ('secure-delete', 1)")
_MERGE = sa.text("INSERT INTO words(words) VALUES ('optimize')")
_APPLIED = sa.text("SELECT applied FROM projection")

_HELD = sa.text("SELECT message_id FROM words WHERE words MATCH :terms").columns(
    sa.column("message_id", sa.String)
)
_MINE = (
    messages.c.id.in_(_HELD),
    messages.c.user_id == sa.bindparam("user"),
    messages.c.depth > 0,
    messages.c.session_id == sessions.c.id,
    sessions.c.mode.not_in(HIDDEN_MODES),
    ~sessions.c.importing,
)
_COUNT = sa.select(sa.func.count()).select_from(messages, sessions).where(*_MINE)
_FIND = (
    sa.select(messages)
    .where(*_MINE, messages.c.id < sa.bindparam("before"))
    .order_by(messages.c.id.desc())
    .limit(sa.bindparam("limit"))
    .offset(sa.bindparam("offset"))
)
