"""Tokens and limits on the whole system, with real processes: who is let in, and what is kept."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pypdfium2
import pytest

from shared.ids import new_id
from tests.support.command_line import run_command
from tests.support.people import add_token, add_user, natterlog
from tests.support.running import Running, running_system
from tests.support.stage import close_code

CHAT = "/api/v1/chat"
FORMATS = ("json", "md", "txt", "pdf")
PLANTED = ("planted-9d41c7e0-let-in", "planted-5b2f66a8-turned-away")


def ways(token: str) -> list[dict[str, dict[str, str]]]:
    return [
        {"headers": {"Authorization": f"Bearer {token}"}},
        {"headers": {"Authorization": f"Token {token}"}},
        {"headers": {"X-API-Token": token}},
        {"headers": {"X-Api-Key": token}},
        {"params": {"token": token}},
    ]


# -- what was made before the first token -------------------------------------------------


async def test_what_was_there_before_the_first_token_is_the_local_users():
    async with running_system() as at, aiohttp.ClientSession(at.system.url) as http:
        session = await at.client.session(title="before")
        token = await add_token(at.system, "local")
        stranger = await add_user(at.system, "alice")

        seen = {}
        for name, value in (("nobody", ""), ("local", token), ("alice", stranger)):
            headers = {"Authorization": f"Bearer {value}"}
            async with http.get(f"{CHAT}/sessions/{session}", headers=headers) as answer:
                seen[name] = answer.status

        assert seen == {"nobody": 401, "local": 200, "alice": 404}


# -- tokens are kept by nobody --------------------------------------------------------------


async def test_a_token_is_written_nowhere_however_it_was_sent(tmp_path: Path):
    async with running_system() as at:
        await natterlog(at.system, "user", "add", "alice")
        await add_token(at.system, "alice", "--value", PLANTED[0])
        for token in PLANTED:
            for way in ways(token):
                await use(at, token, way)
        url = at.system.url
        await odd_requests(url, PLANTED[0])
        listed = await natterlog(at.system, "token", "list", "--json")
        await export(at, PLANTED[0], tmp_path)
        await asyncio.gather(*(p.stop() for p in at.system.processes))  # so that all is on disk
        nats = [*at.system.nats.log]

        assert [token for token in PLANTED if token in listed or token in "".join(nats)] == []
        assert "gateway.request" in at.system.logs()
        exported = [*kept_files(tmp_path)]
        files = [
            *kept_files(at.system.directory),
            *kept_files(at.system.nats.directory),
            *exported,
        ]
        found = [
            (str(path), token)
            for path in files
            for token in PLANTED
            if token.encode() in path.read_bytes()
        ]
        assert found == []
        assert {path.name for path in exported} == {"log.jsonl", "events", *FORMATS}
        assert b"tokens=2" in (tmp_path / "log.jsonl").read_bytes()
        assert any("EVENTS" in str(path) for path in files)
        assert any(path.name == "log.db" for path in files)


async def use(at: Running, token: str, way: dict[str, dict[str, str]]) -> None:
    """Use every kind of thing with a token; what is answered must not repeat it."""
    headers = way.get("headers", {})
    params = way.get("params", {})
    async with aiohttp.ClientSession(at.system.url, headers=headers) as http:
        for path in (f"{CHAT}/sessions", "/ai-chat/api/sessions/", "/api/jobs", "/nowhere"):
            async with http.get(path, params=params) as answer:
                assert token not in await answer.text()
                assert token not in str(answer.headers)
        async with http.post(f"{CHAT}/sessions", json={}, params=params) as answer:
            made = await answer.json(content_type=None)
        assert (answer.status == 201) == (token == PLANTED[0] and not params), made
        if answer.status == 201:
            message = {"session_id": made["id"], "content": "tokens=2"}
            async with http.post(f"{CHAT}/messages", json=message) as answer:
                run = (await answer.json())["assistant_message"]["run_id"]
            async with http.get(f"{CHAT}/runs/{run}/stream") as answer:
                assert token not in await answer.text()
        async with http.ws_connect(f"{CHAT}/ws", params=params) as ws:
            await ws.send_json({"type": "nonsense"})
            assert token not in str(await ws.receive())


async def export(at: Running, token: str, directory: Path) -> None:
    """Take out what can be taken out: a session in every format, its events, the whole log."""
    exported = await run_command(at, "export-log", "--all", str(directory / "log.jsonl"))
    assert exported.code == 0, exported
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(at.system.url, headers=headers) as http:
        async with http.get(f"{CHAT}/sessions") as answer:
            session = (await answer.json())["items"][0]["id"]
        paths = {name: f"export?format={name}" for name in FORMATS} | {"events": "events"}
        for name, path in paths.items():
            async with http.get(f"{CHAT}/sessions/{session}/{path}") as answer:
                assert answer.status == 200, await answer.text()
                data = await answer.read()
            if name == "pdf":  # its pages are compressed
                with pypdfium2.PdfDocument(data) as pdf:
                    pages = [page.get_textpage().get_text_range() for page in pdf]
                data = "\n".join(pages).encode()
            assert b"tokens=2" in data
            (directory / name).write_bytes(data)


async def odd_requests(url: str, token: str) -> None:
    """The token in places where it does no good."""
    encoded = "".join(f"%{ord(letter):02x}" for letter in token)
    async with aiohttp.ClientSession() as http:
        for query in (
            *(f"TOKEN={token}", f"%74oken={token}", f"token={encoded}", f"limit={token}"),
            *(f"x=1?token={token}", f"access_token={token}", token, f"page=0&;token={token}"),
        ):
            async with http.get(f"{url}{CHAT}/sessions?{query}") as answer:
                await answer.read()
        for method in ("POST", "OPTIONS", "DELETE"):
            async with http.request(method, f"{url}{CHAT}/sessions?token={token}") as answer:
                await answer.read()


def kept_files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file())


# -- what dies ------------------------------------------------------------------------------


async def test_known_tokens_let_in_although_the_store_was_killed():
    async with running_system() as at:
        token = await add_user(at.system, "alice")
        async with aiohttp.ClientSession(
            at.system.url, headers={"Authorization": f"Bearer {token}"}
        ) as http:
            async with http.get(f"{CHAT}/sessions") as answer:
                assert answer.status == 200

            await at.system.one("store").kill()

            async with http.get("/chat/pipelines") as answer:  # needs the token and no store
                assert answer.status == 200
            async with http.get("/chat/pipelines", headers={"X-Api-Key": "x"}) as answer:
                assert answer.status == 401  # two credentials
        async with (
            aiohttp.ClientSession(at.system.url) as http,
            http.get("/chat/pipelines", headers={"X-Api-Key": "x"}) as answer,
        ):
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)


async def test_a_revoked_token_is_refused_at_every_gateway_and_its_sockets_end():
    async with running_system() as at:
        second = await at.system.start("gateway")
        token = await add_user(at.system, "alice")
        bearer = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(headers=bearer) as http:
            urls = (at.system.url, second.url)
            sockets = [await http.ws_connect(f"{url}{CHAT}/ws") for url in urls]
            (listed,) = json.loads(await natterlog(at.system, "token", "list", "alice", "--json"))

            await natterlog(at.system, "token", "revoke", listed["id"])

            assert [await close_code(ws) for ws in sockets] == [4401, 4401]
            for url in urls:
                async with http.get(f"{url}{CHAT}/sessions") as answer:
                    assert answer.status == 401


# -- limits ---------------------------------------------------------------------------------


async def test_120_messages_go_over_two_gateways_and_the_121st_does_not():
    async with running_system(NATTERLOG_MESSAGES_PER_MINUTE="120") as at:
        second = await at.system.start("gateway")
        urls = (at.system.url, second.url)
        answers: list[tuple[int, dict[str, str]]] = []

        async def send(session: str, url: str) -> None:
            message = {"session_id": session, "content": "tokens=1"}
            async with at.client.http.post(
                f"{url}{CHAT}/messages?stream=true", json=message
            ) as answer:
                answers.append((answer.status, dict(answer.headers)))

        async def talk(session: str) -> None:
            for turn in range(20):
                await send(session, urls[turn % 2])

        sessions = [await at.client.session() for _ in range(6)]
        await asyncio.gather(*(talk(session) for session in sessions))
        await send(sessions[0], second.url)

        assert [status for status, _ in answers] == [200] * 120 + [429]
        headers = answers[-1][1]
        assert headers["RateLimit-Policy"] == '"default";q=120;w=60'
        assert re.fullmatch(r'"default";r=0;t=\d+', headers["RateLimit"])
        assert 1 <= int(headers["Retry-After"]) <= 60


@pytest.mark.parametrize("arguments", [["user", "disable"], ["token", "create"], ["token", "list"]])
async def test_a_command_about_nobody_says_so(arguments: list[str]):
    async with running_system(services=("store",)) as at:
        with pytest.raises(AssertionError, match=r"natterlog: There is no user 'nobody-"):
            await natterlog(at.system, *arguments, f"nobody-{new_id()}")
