"""What a dialect is to the rest of the gateway."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from services.gateway.errors import Envelope
from services.gateway.replay.formats import ConversationFormat, JobFormat
from shared.events import Fact

Routes = Callable[[], list[web.RouteDef]]


def no_routes() -> list[web.RouteDef]:
    return []


def no_reactions() -> dict[type[Fact], Callable[..., Any]]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One family's wire contract; its folder holds all of it."""

    name: str
    """Its folder's name: the tag of its routes, and of its requests in the metrics."""
    summary: str
    prefixes: tuple[str, ...]
    """Where its paths begin."""
    envelope: Envelope
    """How it says what went wrong."""
    http: Routes
    """Its routes, each described beside its handler."""
    sockets: Routes = no_routes
    options: Routes = no_routes
    """Where OPTIONS says what a path is: part of its manners, and of no description."""
    reactions: Mapping[type[Fact], Callable[..., Any]] = field(default_factory=no_reactions)
    """The facts that something of its own reacts to, and with what; sessions and jobs are followed
    for every dialect alike."""
    recordings: Mapping[str, ConversationFormat | JobFormat]
    """How its recordings look, by the name that the command line has for them."""

    def prefix_of(self, path: str) -> str | None:
        """The longest of its prefixes that ``path`` begins with."""
        found = [p for p in self.prefixes if path == p or path.startswith(f"{p}/")]
        return max(found, key=len, default=None)
