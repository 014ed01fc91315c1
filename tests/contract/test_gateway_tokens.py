"""Who is let in: tokens as clients send them, and what becomes of those that count no more."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from services.gateway.access.accounts import GUESSES
from services.gateway.dialects.registry import over_http
from services.gateway.http.describe import description_of
from shared.ids import new_id, now
from shared.settings import BadSetting
from tests.contract.test_gateway_outage import Line
from tests.support.absent import ABSENT_ID
from tests.support.nats_server import NatsServer
from tests.support.stage import DEADLINE, Stage, close_code, frame, stage

SESSIONS = "/api/v1/chat/sessions"
SOCKET = "/api/v1/chat/ws"
T = "correct-horse-battery"
WAYS: list[dict[str, Any]] = [
    {"headers": {"Authorization": f"Bearer {T}"}},
    {"headers": {"Authorization": f"Token {T}"}},
    {"headers": {"X-API-Token": T}},
    {"headers": {"X-Api-Key": T}},
    {"params": {"token": T}},
]
BEARER = WAYS[0]["headers"]


async def status_of(stage: Stage, path: str = SESSIONS, **options: Any) -> int:
    async with stage.http.get(path, **options) as answer:
        await answer.read()
        return answer.status


async def refused(stage: Stage, **options: Any) -> None:
    """Wait until the gateway has heard of it: facts take a moment."""
    async with asyncio.timeout(DEADLINE):
        while await status_of(stage, **options) != 401:
            pass


# -- before the first token ------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_before_the_first_token_whatever_is_sent_is_ignored(
    on_stage: Stage, way: dict[str, Any]
):
    assert await status_of(on_stage, **way) == 200


async def test_the_first_token_shuts_out_whoever_has_none_at_once(on_stage: Stage):
    ws = await on_stage.open(SOCKET)
    await ws.send_json({"type": "ping"})
    await frame(ws)

    await on_stage.token(T)

    assert await close_code(ws) == 4401
    assert await status_of(on_stage) == 401
    assert await status_of(on_stage, headers=BEARER) == 200


async def test_beyond_loopback_a_gateway_without_tokens_does_not_listen(nats_server: NatsServer):
    async with stage(nats_server.url, host="192.0.2.1") as far:
        with pytest.raises(BadSetting, match=r"NATTERLOG_HOST.*natterlog token create local"):
            await far.gateway.accounts.may_listen()
        assert await status_of(far) == 401

        await far.token(T)
        await refused(far, headers={"X-Api-Key": "x"})

        await far.gateway.accounts.may_listen()
        assert await status_of(far, headers=BEARER) == 200


async def test_an_open_network_is_the_local_users_until_the_first_token(nats_server: NatsServer):
    async with stage(nats_server.url, host="192.0.2.1", open_network=True) as far:
        await far.gateway.accounts.may_listen()
        assert await status_of(far) == 200

        await far.token(T)

        await refused(far)


# -- with tokens -----------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
async def test_each_of_the_five_ways_lets_in(on_stage: Stage, way: dict[str, Any]):
    await on_stage.token(T)

    assert await status_of(on_stage, **way) == 200
    ws = await on_stage.open(SOCKET, **way)
    await ws.send_json({"type": "ping"})
    assert await frame(ws) == {"type": "pong"}


@pytest.mark.parametrize(
    ("path", "envelope"),
    [
        (SESSIONS, {"code", "detail", "status", "title", "type"}),
        ("/ai-chat/api/sessions/", {"code", "detail"}),
        ("/api/jobs", {"code", "error", "success"}),
        ("/chat/pipelines", {"code", "error"}),
        ("/nowhere", {"code", "detail", "status", "title", "type"}),
    ],
)
async def test_without_a_token_each_dialect_refuses_in_its_own_words(
    on_stage: Stage, path: str, envelope: set[str]
):
    await on_stage.token(T)

    for headers in ({}, {"X-Api-Key": "wrong"}, {**BEARER, "X-Api-Key": "another"}):
        async with on_stage.http.get(path, headers=headers) as answer:
            body = await answer.json(content_type=None)
            assert (answer.status, body["code"], set(body)) == (401, "unauthorized", envelope)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "path",
    [
        *(SOCKET, "/ws", "/ws/ai-chat/sessions/"),
        *(f"/ws/ai-chat/session/{ABSENT_ID}/", f"/ws/chat/{ABSENT_ID}"),
    ],
)
async def test_a_socket_without_a_token_is_accepted_only_to_say_so(on_stage: Stage, path: str):
    await on_stage.token(T)

    codes = [
        await close_code(await on_stage.open(path, params=params))
        for params in ({}, {"token": "wrong"})
    ]

    assert codes == [4401, 4401]


async def test_origin_goes_before_credential_and_credential_before_existence(on_stage: Stage):
    await on_stage.token(T)
    evil = {"Origin": "https://evil.example"}
    nowhere = f"{SESSIONS}/{new_id()}"

    assert await status_of(on_stage, nowhere, headers=evil) == 403
    assert await status_of(on_stage, nowhere) == 401
    assert await status_of(on_stage, nowhere, headers=BEARER) == 404
    with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
        await on_stage.open(SOCKET, headers=evil)
    assert handshake.value.status == 403


async def test_a_page_can_read_that_it_was_refused(on_stage: Stage):
    await on_stage.token(T)

    async with on_stage.http.get(SESSIONS, headers={"Origin": "http://localhost:5173"}) as answer:
        assert answer.status == 401
        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"


async def test_once_everybody_has_a_token_the_gateways_own_page_may_ask(on_stage: Stage):
    own = {"Host": "chat.example", "Origin": "https://chat.example"}
    assert await status_of(on_stage, headers={**own, **BEARER}) == 403

    await on_stage.token(T)
    await refused(on_stage)

    assert await status_of(on_stage, headers={**own, **BEARER}) == 200


@pytest.mark.parametrize("path", ["/", "/api/openapi.json"])
async def test_what_is_for_everybody_needs_none(on_stage: Stage, path: str):
    await on_stage.token(T)

    assert await status_of(on_stage, path) == 200


async def test_every_route_that_is_not_for_everybody_needs_one(on_stage: Stage):
    await on_stage.token(T)
    await refused(on_stage)
    routes = [r for r in over_http() if not ((described := description_of(r)) and described.public)]

    answered = {
        (route.method, route.path): await status_without_token(on_stage, route.method, route.path)
        for route in routes
    }

    assert len(answered) > 20
    assert answered == dict.fromkeys(answered, 401)


async def status_without_token(stage: Stage, method: str, path: str) -> int:
    """The status of a request with ids of nothing."""
    path = re.sub(r"\{\w+\}", new_id(), path)
    async with stage.http.request(method, path) as answer:
        return answer.status


# -- tokens that count no more ----------------------------------------------------------


async def test_a_revoked_token_is_refused_and_what_it_opened_ends(on_stage: Stage):
    token_id = await on_stage.token(T)
    async with on_stage.http.post(SESSIONS, json={}, headers=BEARER) as answer:
        session_id = (await answer.json())["id"]
    message = {"session_id": session_id, "content": "Hello"}
    ws = await on_stage.open(SOCKET, headers=BEARER)
    messages = "/api/v1/chat/messages"
    waiting = asyncio.create_task(
        post(on_stage, messages, json=message, headers={**BEARER, "Idempotency-Key": "k"})
    )
    run_id = await on_stage.store.latest()
    stream = await on_stage.http.get(f"/api/v1/chat/runs/{run_id}/stream", headers=BEARER)
    await stream.content.readline()

    await on_stage.store.accounts.revoke(token_id)

    assert await close_code(ws) == 4401
    assert await waiting == 401
    with pytest.raises(aiohttp.ClientError):
        await stream.read()
    assert await status_of(on_stage, headers=BEARER) == 401


async def post(stage: Stage, path: str, **options: Any) -> int:
    async with stage.http.post(path, **options) as answer:
        return answer.status


async def test_a_disabled_users_tokens_count_again_once_he_is_enabled(on_stage: Stage):
    alice, accounts = new_id(), on_stage.store.accounts
    await on_stage.token(T, alice)
    await on_stage.token("of-somebody-else")
    ws = await on_stage.open(SOCKET, headers=BEARER)

    await accounts.disable(alice)
    assert await close_code(ws) == 4401
    assert await status_of(on_stage, headers=BEARER) == 401
    assert await status_of(on_stage, headers={"X-Api-Key": "of-somebody-else"}) == 200
    await accounts.enable(alice)

    async with asyncio.timeout(DEADLINE):
        while await status_of(on_stage, headers=BEARER) != 200:
            pass


async def test_a_token_ends_when_it_expires_and_its_sockets_with_it(on_stage: Stage):
    await on_stage.token(T, expires_at=now() + timedelta(seconds=1))
    ws = await on_stage.open(SOCKET, headers=BEARER)

    assert await close_code(ws) == 4401

    assert await status_of(on_stage, headers=BEARER) == 401


# -- the store is asked once -------------------------------------------------------------


async def test_the_store_is_asked_once_about_each_credential(on_stage: Stage):
    await on_stage.token(T)

    statuses = await asyncio.gather(
        *(status_of(on_stage, headers={"X-Api-Key": key}) for key in (T, "wrong") * 10)
    )

    assert sorted(statuses) == [200] * 10 + [401] * 10
    assert on_stage.store.accounts.checks == 2


async def test_whoever_guesses_does_not_get_through_to_the_store(on_stage: Stage):
    await on_stage.token(T)
    await status_of(on_stage, headers=BEARER)
    guesses = range(20 * GUESSES)

    statuses = await asyncio.gather(
        *(status_of(on_stage, headers={"X-Api-Key": f"guess-{n}"}) for n in guesses)
    )

    assert set(statuses) == {401, 429}
    assert on_stage.store.accounts.checks < len(guesses)
    assert await status_of(on_stage, headers=BEARER) == 200


async def test_without_the_store_known_tokens_go_on_and_unknown_ones_wait(on_stage: Stage):
    await on_stage.token(T)
    await on_stage.token("not-seen-yet")
    await status_of(on_stage, headers=BEARER)

    on_stage.store.accounts.away = True

    assert await status_of(on_stage, headers=BEARER) == 200
    assert await status_of(on_stage, headers={"X-Api-Key": "not-seen-yet"}) == 503
    ws = await on_stage.open(SOCKET, headers={"X-Api-Key": "not-seen-yet"})
    assert await close_code(ws) == 1013


async def test_a_token_that_was_revoked_while_the_line_was_cut_is_refused_afterwards(
    own_nats_server: NatsServer,
):
    async with Line(own_nats_server) as line, stage(own_nats_server.url, line=line.url) as made:
        token_id = await made.token(T)
        ws = await made.open(SOCKET, headers=BEARER)
        await ws.send_json({"type": "ping"})
        await frame(ws)

        await line.cut()
        await made.store.accounts.revoke(token_id)
        await line.mend()

        assert await close_code(ws) == 4401
        assert await status_of(made, headers=BEARER) == 401
