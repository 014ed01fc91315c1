"""``/api/openapi.json``: the route table and the descriptions in it as OpenAPI 3.1."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any, cast

from aiohttp import web

from services.gateway.dialects.base import Dialect
from services.gateway.dialects.registry import DIALECTS, dialect_of
from services.gateway.http.describe import (
    EVERYWHERE,
    Answer,
    Content,
    Description,
    Events,
    Form,
    JsonOrForm,
    Lines,
    description_of,
)
from services.gateway.http.json_schema import PREFIX as SCHEMAS
from services.gateway.http.json_schema import Schema, Schemas, plain
from shared.errors import (
    NatterlogError,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)

OPENAPI = "3.1.1"
RESPONSES = "#/components/responses/"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

INTRODUCTION = """\
Every path answers with and without its trailing slash, without a redirect. Ids are UUIDv7, times \
RFC 3339 in UTC with `Z`; offsets and lengths count Unicode code points. WebSockets are described \
in [`/api/asyncapi.json`](/api/asyncapi.json)."""

TAGS = {dialect.name: dialect.summary for dialect in DIALECTS} | {
    "gateway": "What this is, how it is, and how it is described.",
}

SECURITY: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer T`"},
    "authorizationToken": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Authorization: Token T`",
    },
    "apiToken": {"type": "apiKey", "in": "header", "name": "X-API-Token"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "On streams that are read with GET: an EventSource sends no headers.",
    },
}
"""Five ways to send one credential; all are equal."""
_NOBODY: Schema = {}
"""As long as there is no token at all, none is asked for."""


def document(routes: Iterable[web.RouteDef]) -> dict[str, Any]:
    """The document that describes ``routes``; those that are not described are left out."""
    return _Document(routes).whole()


class _Document:
    """Collects operations, and the components that they share."""

    def __init__(self, routes: Iterable[web.RouteDef]) -> None:
        self._schemas = Schemas()
        self._responses: dict[str, Schema] = {}
        self._paths: defaultdict[str, Schema] = defaultdict(dict)
        self._tags: set[str] = set()
        for route in routes:
            description = description_of(route)
            if description is not None:
                path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path)
                self._paths[path][route.method.lower()] = self._operation(route, description)

    def whole(self) -> dict[str, Any]:
        return {
            "openapi": OPENAPI,
            "info": {
                "title": "natterlog",
                "version": version("natterlog"),
                "summary": "The self-hosted chat back end whose replies survive anything.",
                "description": INTRODUCTION,
            },
            "servers": [{"url": "/"}],
            "tags": [
                {"name": name, "description": TAGS[name]} for name in TAGS if name in self._tags
            ],
            "security": [*({name: []} for name in SECURITY if name != "query"), _NOBODY],
            "paths": dict(self._paths),
            "components": {
                "schemas": dict(sorted(self._schemas.components.items())),
                "responses": dict(sorted(self._responses.items())),
                "securitySchemes": SECURITY,
            },
        }

    # -- one operation ----------------------------------------------------------------

    def _operation(self, route: web.RouteDef, description: Description) -> Schema:
        dialect = dialect_of(route.path)
        tag = description.tag or dialect.name
        self._tags.add(tag)
        name = getattr(route.handler, "__name__", "").strip("_")
        summary, _, more = plain(route.handler.__doc__ or "").partition("\n\n")
        operation: Schema = {
            "operationId": f"{tag}_{name}",
            "tags": [tag],
            "summary": summary.rstrip("."),
        }
        if more:
            operation["description"] = more
        parameters = _path_parameters(route.path, description) + self._parameters(description)
        if parameters:
            operation["parameters"] = parameters
        if description.body is not None:
            operation["requestBody"] = self._request_body(description.body)
        refusals = self._refusals(route, description, dialect)
        operation["responses"] = refusals | self._answers(description)
        if description.public:
            operation["security"] = []
        elif route.method == "GET" and _streams(description.answers):
            operation["security"] = [*({name: []} for name in SECURITY), _NOBODY]
        return operation

    def _parameters(self, description: Description) -> list[Schema]:
        found: list[Schema] = []
        if description.query is not None:
            component = self._inlined(description.query)
            for name, schema in component["properties"].items():
                found.append(_parameter("query", name, schema))
                found[-1]["required"] = name in component.get("required", ())
        found += [
            {
                "in": "header",
                "name": header.name,
                "description": header.meaning,
                "schema": {"type": "string"},
            }
            for header in description.headers
        ]
        return found

    def _inlined(self, shape: Any) -> Schema:
        """A struct's own schema: the parameters of a query are listed one by one."""
        alone = Schemas()
        return alone.components[alone.of(shape)["$ref"].removeprefix(SCHEMAS)]

    def _request_body(self, body: Any) -> Schema:
        match body:
            case Form(shape=shape):
                media_types = ("multipart/form-data",)
            case JsonOrForm(shape=shape):
                media_types = ("application/json", *FORMS)
            case shape:
                media_types = ("application/json",)
        # An empty body is an empty object.
        needed = bool(self._inlined(shape).get("required"))
        content = {kind: {"schema": self._schemas.of(shape)} for kind in media_types}
        return {"required": needed, "content": content}

    # -- answers ----------------------------------------------------------------------

    def _answers(self, description: Description) -> Schema:
        found: Schema = {}
        for status, answer in description.answers.items():
            several = _each(answer)
            response: Schema = {"description": _meaning(status, several)}
            content = dict(self._media(one) for one in several if one is not None)
            if content:
                response["content"] = content
            found[str(status)] = response
        return found

    def _media(self, answer: Answer) -> tuple[str, Schema]:
        match answer:
            case Events(shape=shape, named=named):
                return "text/event-stream", self._events(shape, named=named)
            case Lines(shape=shape):
                return "application/x-ndjson", {"schema": self._schemas.of(shape)}
            case Content(media_type=media_type, binary=binary):
                schema = {"type": "string"} | ({"format": "binary"} if binary else {})
                return media_type, {"schema": schema}
            case _:
                return "application/json", {"schema": self._schemas.of(answer)}

    def _events(self, shape: Any, *, named: bool) -> Schema:
        """Before OpenAPI 3.2 has ``itemSchema``, the schema of a stream is that of one event."""
        data = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": self._data(shape),
        }
        fields: Schema = {"id": {"type": "string"}, "data": data}
        if named:
            fields["event"] = {"type": "string"}
        return {"schema": {"type": "object", "properties": fields, "required": ["data"]}}

    def _data(self, shape: Any) -> Schema:
        if type(shape) is not tuple:
            return self._schemas.of(shape)
        return {"anyOf": [self._schemas.of(one) for one in cast("tuple[Any, ...]", shape)]}

    # -- refusals ---------------------------------------------------------------------

    def _refusals(self, route: web.RouteDef, description: Description, dialect: Dialect) -> Schema:
        by_status: defaultdict[int, dict[str, type[NatterlogError]]] = defaultdict(dict)
        for error in _errors(route, description):
            by_status[error.status][error.code] = error
        return {
            str(status): self._refusal(status, list(errors.values()), dialect)
            for status, errors in sorted(by_status.items())
        }

    def _refusal(self, status: int, errors: list[type[NatterlogError]], dialect: Dialect) -> Schema:
        codes = [error.code for error in errors]
        name = f"{dialect.name}.{status}.{'-'.join(sorted(codes))}"
        if name not in self._responses:
            self._responses[name] = self._new_refusal(status, errors, dialect)
        return {"$ref": RESPONSES + name}

    def _new_refusal(
        self, status: int, errors: list[type[NatterlogError]], dialect: Dialect
    ) -> Schema:
        envelope = dialect.envelope
        schema = self._schemas.of(envelope.shape)
        if status == 400 and envelope.of_fields is not None:
            schema = {"anyOf": [schema, self._schemas.of(envelope.of_fields)]}
        examples: Schema = {}
        media_type = "application/json"
        for error in errors:
            body, headers = envelope.encode(error(_sentence(error)))
            media_type = headers["Content-Type"]
            examples[error.code] = {"value": json.loads(body)}
        response: Schema = {
            "description": " or ".join(f"`{error.code}`" for error in errors),
            "content": {media_type: {"schema": schema, "examples": examples}},
        }
        if any(error in (RateLimited, Unavailable) for error in errors):
            seconds = {"schema": {"type": "integer"}, "description": "Seconds to wait."}
            response["headers"] = {"Retry-After": seconds}
        return response


def _parameter(where: str, name: str, schema: Schema) -> Schema:
    parameter: Schema = {"in": where, "name": name}
    kept = {key: value for key, value in schema.items() if key != "description"}
    if "description" in schema:
        parameter["description"] = schema["description"]
    if kept.get("default", ...) is None:
        del kept["default"]
    kinds = [kind for kind in kept.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:  # in a query string there is no null
        kept = {key: value for key, value in kept.items() if key != "anyOf"} | kinds[0]
    return parameter | {"schema": kept}


def _path_parameters(path: str, description: Description) -> list[Schema]:
    found: list[Schema] = []
    for name, pattern in re.findall(r"\{(\w+)(:[^}]*)?\}", path):
        schema: Schema = {"type": "string"}
        if not pattern and name.endswith("id") and name not in description.names:
            schema["format"] = "uuid"
        parameter: Schema = {"in": "path", "name": name, "required": True, "schema": schema}
        if name in description.names:
            parameter["description"] = description.names[name]
        found.append(parameter)
    return found


def _each(answer: Answer) -> tuple[Answer, ...]:
    return cast("tuple[Answer, ...]", answer) if type(answer) is tuple else (answer,)


def _streams(answers: Mapping[int, Answer]) -> bool:
    return any(isinstance(one, Events) for answer in answers.values() for one in _each(answer))


def _errors(route: web.RouteDef, description: Description) -> list[type[NatterlogError]]:
    errors = [e for e in EVERYWHERE if not (description.public and e is Unauthorized)]
    errors += description.errors
    if "{" in route.path:
        errors.append(NotFound)
    if description.body is not None:
        errors.append(TooLarge)
    if isinstance(description.body, JsonOrForm):
        errors.append(UnsupportedMediaType)
    return errors


def _sentence(error: type[NatterlogError]) -> str:
    return (error.__doc__ or f"{error.code.replace('_', ' ').capitalize()}.").partition("\n")[0]


def _meaning(status: int, answers: tuple[Answer, ...]) -> str:
    if status == 204:
        return "Nothing more to say."
    if any(isinstance(one, Events) for one in answers):
        return "The stream."
    return "Created." if status == 201 else "Done."
