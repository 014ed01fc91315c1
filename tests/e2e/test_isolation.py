"""Nobody sees what is another's: every route and every message of a socket, with his ids.

The routes are the gateway's own table, so one that is added is walked as well.  A
path with an id of a new kind fails until ``PARAMETERS`` says whose id goes there,
and a request without ids in its path until it is in one of the other tables.
"""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from services.gateway.dialects.registry import over_http, over_sockets
from services.gateway.http.describe import socket_description_of
from shared.ids import new_id
from tests.support.people import Person, add_user, settle
from tests.support.running import running_system
from tests.support.stage import close_code, frame

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARAMETERS = {
    ("/api/v1/chat", "session_id"): "session",
    ("/api/v1/chat", "run_id"): "run",
    ("/api/v1/chat", "message_id"): "message",
    ("/api/v1/chat", "file_id"): "file",
    ("/ai-chat/api", "session_id"): "session",
    ("/ai-chat/api", "preset_id"): "preset",
    ("/ws/ai-chat", "session_id"): "session",
    ("/api/jobs", "job_id"): "job",
    ("/chat", "session_id"): "content",
    ("/ws/chat", "session_id"): "content",
}
"""(path, name in it) → which of somebody's things it is."""
IDS_IN_BODY = {
    ("POST", "/api/v1/chat/messages"),
    ("POST", "/api/v1/chat/sessions"),  # preset_id
    ("POST", "/api/generate"),
}
"""What names in the body what it works on, or makes something of."""
MAKES_ONES_OWN = {
    ("POST", "/ai-chat/api/sessions"),
    ("POST", "/ai-chat/api/presets"),
    ("POST", "/api/v1/chat/files"),
    ("POST", "/api/v1/chat/sessions/import"),
    ("POST", "/api/upload"),
    ("POST", "/chat/start"),
}
"""What names nothing that is there, and leaves something new that is one's own."""
EVERYBODYS = {
    ("GET", "/chat/pipelines"),
    ("GET", "/ai-chat/api/health/llm_server"),
    ("POST", "/ai-chat/api/models/sync_models"),
    *((method, "/ai-chat/api/models/{model_id:.+}") for method in ("GET", "PUT", "PATCH")),
}
"""What is the same for all, or names nothing that is anybody's."""

Route = tuple[str, str]
ROUTES: list[Route] = sorted(
    {(route.method, route.path.rstrip("/")) for route in over_http() if route.method != "HEAD"}
)
WITH_IDS = [route for route in ROUTES if "{" in route[1] and route not in EVERYBODYS]
LISTS = [r for r in ROUTES if r[0] == "GET" and r not in WITH_IDS and r not in EVERYBODYS]
SOCKETS = sorted(route.path.rstrip("/") for route in over_sockets())


@dataclass
class Two:
    alice: Person
    bob: Person


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two() -> AsyncIterator[Two]:
    """Two users, each with one of everything."""
    async with running_system() as running:
        tokens = {name: await add_user(running.system, name) for name in ("alice", "bob")}
        clients = {
            name: aiohttp.ClientSession(running.system.url, headers={"X-Api-Key": token})
            for name, token in tokens.items()
        }
        async with clients["alice"] as alice, clients["bob"] as bob:
            people = [
                await settle(running.bus, name, tokens[name], http)
                for name, http in (("alice", alice), ("bob", bob))
            ]
            yield Two(*people)


def with_ids(path: str, things: dict[str, str]) -> str:
    """The path of somebody's things, or of ``""`` such as nobody has."""

    def thing(match: re.Match[str]) -> str:
        kinds = [
            kind
            for (prefix, name), kind in PARAMETERS.items()
            if name == match[1] and path.startswith(f"{prefix}/")
        ]
        assert kinds, f"which id goes into {match[0]} of {path}? say it in PARAMETERS"
        return things.get(kinds[0]) or new_id()

    return re.sub(r"\{(\w+)\}", thing, path)


def body_for(method: str, things: dict[str, str]) -> dict[str, Any]:
    """A body that any route may take; whatever it does not know it ignores."""
    if method == "GET":
        return {}
    ids = {f"{kind}_id": things.get(kind) or new_id() for kind in ("session", "message", "preset")}
    fields = dict.fromkeys(("message", "content", "prompt", "title", "name"), "x")
    return {"json": {**fields, "rating": "up", **ids}}


# -- over HTTP ---------------------------------------------------------------------------


async def test_every_route_says_what_it_does_with_ids():
    known = {*WITH_IDS, *IDS_IN_BODY, *MAKES_ONES_OWN, *EVERYBODYS, *LISTS}

    assert [route for route in ROUTES if route not in known] == []
    assert [route for route in [*IDS_IN_BODY, *MAKES_ONES_OWN] if route not in ROUTES] == []


@pytest.mark.parametrize("route", [*WITH_IDS, *sorted(IDS_IN_BODY)], ids=" ".join)
async def test_what_is_anothers_is_not_there(two: Two, route: Route):
    method, path = route
    theirs = two.alice.things

    path = f"{path}/"  # one of them means something else without it
    foreign = await two.bob.ask(method, with_ids(path, theirs), **body_for(method, theirs))
    nobodys = await two.bob.ask(method, with_ids(path, {}), **body_for(method, {}))

    assert foreign[0] == 404, foreign
    assert foreign == nobodys
    assert no_trace_of(two.alice, foreign[1])


@pytest.mark.parametrize("route", [r for r in WITH_IDS if r[0] == "GET"], ids=" ".join)
async def test_what_is_ones_own_is_there(two: Two, route: Route):
    method, path = route

    status, _ = await two.bob.ask(method, with_ids(path, two.bob.things))

    assert status == 200


@pytest.mark.parametrize("route", LISTS, ids=" ".join)
@pytest.mark.parametrize(
    "query",
    ["", "?q=alice", "?status=all", "?include_inactive=1", "?mode=document", "?mode=content"],
)
async def test_no_list_has_anything_of_anothers(two: Two, route: Route, query: str):
    _, body = await two.bob.ask("GET", route[1] + query)

    assert no_trace_of(two.alice, body)


async def test_another_may_have_the_same_reference_of_a_job(two: Two):
    topic = {"topic": "x", "query": "x", "platform": "Twitter", "session_id": "alice-secret"}

    status, body = await two.bob.ask("POST", "/chat/start", json=topic)

    assert status == 200
    assert json.loads(body)["session_id"] != two.alice.things["content"]


async def test_an_idempotency_key_is_ones_own(two: Two):
    for person in (two.alice, two.bob):
        message = {"session_id": person.things["session"], "content": f"{person.name} tokens=2"}
        status, body = await person.ask(
            "POST", "/api/v1/chat/messages", json=message, headers={"Idempotency-Key": "same"}
        )
        assert (status, json.loads(body)["user_message"]["content"]) == (201, message["content"])


def no_trace_of(person: Person, text: str) -> bool:
    """Neither an id nor a word of hers."""
    return not any(it in text for it in (person.id, *person.things.values(), "alice-secret"))


# -- over sockets ------------------------------------------------------------------------


def tag(kind: type[msgspec.Struct]) -> str:
    return str(kind.__struct_config__.tag)


MESSAGES = [
    (route.path.rstrip("/"), tag(kind))
    for route in over_sockets()
    if (description := socket_description_of(route)) is not None
    for kind in description.receives
]
"""(socket, type) of every message that clients may say."""
HARMLESS = {
    ("/api/v1/chat/ws", "unsubscribe"): [],  # nothing was subscribed to
    ("/api/v1/chat/ws", "typing"): ["invalid_request"],  # for want of a subscription
    **{(path, "ping"): [] for path in SOCKETS},
}
"""What is answered otherwise than by ``not_found``: it names nothing that would be looked up."""
OF_ONES_OWN = {
    *(("/ws/ai-chat/session/{session_id}", kind) for kind in ("send_message", "stop", "typing")),
    ("/ws/ai-chat/session/{session_id}", "stop_typing"),
    ("/ws/chat/{session_id}", "cancel"),
}
"""What is about the socket's own session, whatever else it names."""


async def test_every_socket_is_walked():
    assert {path for path, _ in MESSAGES} == set(SOCKETS)


@pytest.mark.parametrize("path", [path for path in SOCKETS if "{" in path])
async def test_the_socket_of_what_is_anothers_is_closed(two: Two, path: str):
    codes = [
        await close_code(await two.bob.http.ws_connect(with_ids(path, things)))
        for things in (two.alice.things, {})
    ]

    assert codes == [4404, 4404]


@pytest.mark.parametrize(("path", "kind"), [each for each in MESSAGES if each not in OF_ONES_OWN])
async def test_a_message_about_what_is_anothers_is_refused(two: Two, path: str, kind: str):
    theirs = two.alice.things
    message = {
        "type": kind,
        "session_id": theirs["session"],
        "run_id": theirs["run"],
        "job_id": theirs["job"],
        "message_id": theirs["message"],
        "job_ids": [theirs["job"]],
        "cursor": None,
        "content": "x",
        "message": "x",
    }
    things = await own_job(two.bob) if "{" in path and "/chat/" in path else two.bob.things

    async with two.bob.http.ws_connect(with_ids(path, things)) as ws:
        await ws.send_json(message)
        if kind != "ping":
            await ws.send_json({"type": "ping"})
        frames = await frames_until_pong(ws)

    errors = [one["code"] for one in frames if one["type"] == "error"]
    assert errors == HARMLESS.get((path, kind), ["not_found"])
    assert no_trace_of(two.alice, json.dumps([one for one in frames if one["type"] != "error"]))


async def own_job(person: Person) -> dict[str, str]:
    """A content job of his that is still under way."""
    topic = {"topic": "x", "query": "tokens=500 rate=20", "platform": "Twitter"}
    _, body = await person.ask("POST", "/chat/start", json=topic)
    return {"content": json.loads(body)["session_id"], "session": person.things["session"]}


async def frames_until_pong(ws: aiohttp.ClientWebSocketResponse) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    while (one := await frame(ws))["type"] != "pong":
        frames.append(one)
    return frames


async def test_no_socket_tells_what_another_does(two: Two):
    paths = [with_ids(path, two.bob.things) for path in SOCKETS if path != "/ws/chat/{session_id}"]
    sockets = [await two.bob.http.ws_connect(path) for path in paths]
    for ws in sockets:
        await ws.send_json({"type": "ping"})
        await frames_until_pong(ws)

    async with two.alice.http.post("/api/v1/chat/sessions", json={"title": "new"}) as answer:
        session = (await answer.json())["id"]
    message = {"session_id": session, "content": "alice-secret tokens=3"}
    await two.alice.ask("POST", "/api/v1/chat/messages", json=message)
    form = aiohttp.FormData({"prompt": "alice-secret tokens=3"})
    form.add_field("file", b"text", filename="alice-secret.txt")
    await two.alice.ask("POST", "/api/upload", data=form)

    for ws in sockets:
        await ws.send_json({"type": "ping"})
        assert await frames_until_pong(ws) == []
        await ws.close()
