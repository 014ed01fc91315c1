"""Users of a running system, made as an operator makes them, and things that are theirs."""

import json
import os
from dataclasses import dataclass
from typing import Any

import aiohttp

from shared.bus import Bus
from shared.commands import CreatePreset
from shared.ids import new_id
from shared.store_client import StoreClient
from tests.support.command_line import completed
from tests.support.system import System


async def natterlog(system: System, *arguments: str) -> str:
    """What a command of the command line says, on the system that runs."""
    environ = {**os.environ, "NATTERLOG_NATS_URL": system.nats.url}
    done = await completed(arguments, environ)
    assert done.code == 0, done.err
    return done.out


async def add_user(system: System, name: str) -> str:
    """A new user's token."""
    await natterlog(system, "user", "add", name)
    return await add_token(system, name)


async def add_token(system: System, name: str, *options: str) -> str:
    """Another token: the last word that the command says."""
    return (await natterlog(system, "token", "create", name, *options)).split()[-1]


@dataclass
class Person:
    """A user with a client of his own, and the ids of what he made."""

    name: str
    id: str
    token: str
    http: aiohttp.ClientSession
    things: dict[str, str]

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        """(status, body) of one request."""
        async with self.http.request(method, path, **options) as answer:
            return answer.status, await answer.text()

    async def get(self, path: str) -> Any:
        """The JSON under a path that is there."""
        status, body = await self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)


async def settle(bus: Bus, name: str, token: str, http: aiohttp.ClientSession) -> Person:
    """A user with one of everything: a session and a turn, a file, a job, a pipeline, a preset."""
    person = Person(name, "", token, http, {})
    word = f"{name}-secret"
    session = await _made(person, "/api/v1/chat/sessions", json={"title": word})
    person.id = session["user_id"]
    message = {"session_id": session["id"], "content": f"{word} tokens=3"}
    turn = await _made(person, "/api/v1/chat/messages", json=message)
    form = aiohttp.FormData({"prompt": f"{word} tokens=3"})
    form.add_field("file", word.encode(), filename=f"{word}.txt")
    job = await _made(person, "/api/upload", data=form)
    form = aiohttp.FormData()
    form.add_field("file", word.encode(), filename=f"{word}.txt")
    file = await _made(person, "/api/v1/chat/files", data=form)
    topic = {"topic": word, "query": "tokens=3", "platform": "Twitter", "session_id": word}
    content = await _made(person, "/chat/start", json=topic)
    preset = new_id()
    await StoreClient(bus).ask(CreatePreset(user_id=person.id, preset_id=preset, title=word))
    person.things = {
        "session": session["id"],
        "run": turn["assistant_message"]["run_id"],
        "message": turn["assistant_message"]["id"],
        "file": file["id"],
        "job": job["data"]["job_id"],
        "content": content["session_id"],
        "preset": preset,
    }
    return person


async def _made(person: Person, path: str, **options: Any) -> Any:
    status, body = await person.ask("POST", path, **options)
    assert status in (200, 201), body
    return json.loads(body)
