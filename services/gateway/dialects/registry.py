"""Every dialect that the gateway speaks: a new one is a folder, and a line here."""

from aiohttp import web

from services.gateway.dialects.assistant.dialect import ASSISTANT
from services.gateway.dialects.base import Dialect
from services.gateway.dialects.channels.dialect import CHANNELS
from services.gateway.dialects.content.dialect import CONTENT
from services.gateway.dialects.documents.dialect import DOCUMENTS
from services.gateway.dialects.interview.dialect import INTERVIEW

DIALECTS = (ASSISTANT, CHANNELS, DOCUMENTS, CONTENT, INTERVIEW)
NATIVE = ASSISTANT
"""Whose manners count where a path is nobody's."""


def dialect_of(path: str) -> Dialect:
    """The dialect that a path belongs to: whoever has the longest prefix of it."""
    prefixes = {prefix: dialect for dialect in DIALECTS if (prefix := dialect.prefix_of(path))}
    return prefixes[max(prefixes, key=len)] if prefixes else NATIVE


def over_http() -> list[web.RouteDef]:
    """The routes of every dialect."""
    return [route for dialect in DIALECTS for route in dialect.http()]


def options() -> list[web.RouteDef]:
    """What is answered to OPTIONS, where a dialect does."""
    return [route for dialect in DIALECTS for route in dialect.options()]


def over_sockets() -> list[web.RouteDef]:
    """The WebSockets of every dialect."""
    return [route for dialect in DIALECTS for route in dialect.sockets()]
