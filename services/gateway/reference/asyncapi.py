"""``/api/asyncapi.json``: the sockets, and the bus beneath them, as AsyncAPI 3.1.

The sockets come from the route table and the descriptions beside their handlers, the
bus from ``shared``: every event under its subject, every request with its answer.
"""

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from aiohttp import web

from services.gateway.dialects.registry import dialect_of
from services.gateway.http.describe import SocketDescription, socket_description_of
from services.gateway.http.json_schema import Schema, Schemas, name_of, plain
from services.gateway.reference import bus_subjects
from services.gateway.reference.bus_subjects import Plain, Subject
from services.gateway.reference.openapi import SECURITY

ASYNCAPI = "3.1.0"

INTRODUCTION = """\
The sockets of the gateway, for front ends, and the bus between the services, for whoever looks \
into a running system. Everything is JSON in UTF-8. What is asked over HTTP is described in \
[`/api/openapi.json`](/api/openapi.json).

A socket is refused by how it is closed, because a browser cannot read the status of a refused \
upgrade: 4401 no valid credential, 4404 not there, 4429 too many sockets, 4400 a binary frame, \
1009 a frame over the limit, 1012 the gateway restarts, 1013 try again later."""

TAGS = {
    "sockets": "What front ends connect to.",
    "facts": "What happened: in the stream `EVENTS`, on disk when it is acknowledged.",
    "deltas": "What a running attempt says: in the stream `TOKENS`, for fifteen minutes.",
    "requests": "What the store is asked.",
    "signals": "What nobody keeps, what could not be handled, what the workers share.",
}

_WAY = re.compile(r"(?<=\.) [\w, ]+ → [\w, ]+$")
"""From whom an event comes, and who listens: its subject says so."""


def document(routes: Iterable[web.RouteDef]) -> dict[str, Any]:
    """The document that describes the sockets among ``routes``, and the bus."""
    made = _Document()
    for route in routes:
        description = socket_description_of(route)
        if description is not None:
            made.add_socket(route, description)
    for subject in bus_subjects.every_subject():
        made.add_subject(subject)
    return made.whole()


class _Document:
    """Collects channels, and the messages that they share."""

    def __init__(self) -> None:
        self._schemas = Schemas(draft_7=True)
        self._messages: dict[str, Schema] = {}
        self._channels: dict[str, Schema] = {}
        self._operations: dict[str, Schema] = {}

    def whole(self) -> dict[str, Any]:
        return {
            "asyncapi": ASYNCAPI,
            "info": {
                "title": "natterlog",
                "version": version("natterlog"),
                "description": INTRODUCTION,
                "tags": [{"name": name, "description": TAGS[name]} for name in TAGS],
            },
            "defaultContentType": "application/json",
            "servers": {
                "gateway": _server("ws", "127.0.0.1:8000", "What front ends talk to.")
                | {"security": [_component("securitySchemes", name) for name in SECURITY]},
                "bus": _server("nats", "127.0.0.1:4222", "What the services talk through."),
            },
            "channels": self._channels,
            "operations": self._operations,
            "components": {
                "schemas": dict(sorted(self._schemas.components.items())),
                "messages": dict(sorted(self._messages.items())),
                "securitySchemes": {name: _scheme(scheme) for name, scheme in SECURITY.items()},
            },
        }

    def add_socket(self, route: web.RouteDef, description: SocketDescription) -> None:
        """A channel with what the client may send, and what it is sent."""
        name = f"{dialect_of(route.path).name}.{route.handler.__name__}"
        summary, _, more = plain(route.handler.__doc__ or "").partition("\n\n")
        received = [self._message(kind) for kind in description.receives]
        sent = [self._message(kind) for kind in description.sends]
        channel = self._channel(name, "gateway", "sockets", route.path, received + sent)
        channel["title"] = f"GET {route.path}"
        channel["summary"] = summary
        if more:
            channel["description"] = more
        channel["bindings"] = {"ws": _handshake(description)}
        self._operation(f"{name}.asks", "receive", name, received)["summary"] = "What clients say."
        self._operation(f"{name}.tells", "send", name, sent)["summary"] = "What clients are told."

    def add_subject(self, subject: Subject) -> None:
        """A channel of the bus; requests have one more for their answers."""
        name = subject.name
        messages = [self._message(kind) for kind in subject.payloads]
        channel = self._channel(name, "bus", subject.tag, subject.address, messages)
        channel["title"] = subject.address
        channel["description"] = subject.meaning
        operation = self._operation(name, subject.action, name, messages)
        if subject.answer is not None:
            answer = [self._message(subject.answer)]
            self._channel(f"{name}.answer", "bus", subject.tag, None, answer)
            operation["reply"] = {
                "address": {"location": "$message.header#/reply"},
                "channel": {"$ref": f"#/channels/{name}.answer"},
                "messages": _of_channel(f"{name}.answer", answer),
            }

    # -- parts ------------------------------------------------------------------------

    def _message(self, kind: Any) -> str:
        """The name of a message, which becomes a component."""
        if isinstance(kind, Plain):
            message: Schema = {
                "name": kind.name,
                "summary": kind.meaning,
                "payload": kind.schema,
                "contentType": kind.content_type,
            }
            self._messages[kind.name] = message
            return kind.name
        name = name_of(kind)
        if name not in self._messages:
            tag = kind.__struct_config__.tag
            summary, _, more = plain(kind.__doc__ or "").partition("\n\n")
            summary = _WAY.sub("", summary)
            self._messages[name] = {
                "name": str(tag or kind.__name__),
                "title": kind.__name__,
                "payload": self._schemas.of(kind),
            }
            if summary:
                self._messages[name]["summary"] = summary
            if more:
                self._messages[name]["description"] = more
        return name

    def _channel(
        self, name: str, server: str, tag: str, address: str | None, messages: list[str]
    ) -> Schema:
        channel: Schema = {
            "address": address,
            "servers": [{"$ref": f"#/servers/{server}"}],
            "tags": [{"name": tag}],
            "messages": {message: _component("messages", message) for message in messages},
        }
        if parameters := re.findall(r"\{(\w+)\}", address or ""):
            channel["parameters"] = {name: {} for name in parameters}
        self._channels[name] = channel
        return channel

    def _operation(self, name: str, action: str, channel: str, messages: list[str]) -> Schema:
        operation: Schema = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": _of_channel(channel, messages),
        }
        self._operations[name] = operation
        return operation


def _component(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _of_channel(channel: str, messages: list[str]) -> list[Schema]:
    return [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages]


def _server(protocol: str, address: str, meaning: str) -> Schema:
    return {
        "host": "{address}",
        "protocol": protocol,
        "description": meaning,
        "variables": {"address": {"default": address}},
    }


def _handshake(description: SocketDescription) -> Schema:
    """What the query string of a socket may hold."""
    fields: Schema = {"token": {"type": "string", "description": "The credential."}}
    if description.query is not None:
        alone = Schemas()
        alone.of(description.query)
        fields |= alone.components[name_of(description.query)]["properties"]
    query = {"type": "object", "properties": fields}
    return {"method": "GET", "query": query, "bindingVersion": "0.1.0"}


def _scheme(scheme: Schema) -> Schema:
    return scheme | {"type": "httpApiKey"} if scheme["type"] == "apiKey" else scheme
