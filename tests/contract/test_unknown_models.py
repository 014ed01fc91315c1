"""A model that nobody has is refused before anything is stored, in every dialect alike."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from services.llm_worker.breaker import Breaker
from services.llm_worker.handlers import endpoints
from services.llm_worker.offers import Offering
from services.llm_worker.providers.recorded import Recorded
from services.llm_worker.providers.registry import RECENT, Registry
from services.store import model_names
from services.store.models import offered_names
from shared.bus import Bus
from shared.commands import CreateSession, SyncModels
from shared.ids import new_id
from shared.offers import FindModel, Refresh
from shared.settings import Settings
from shared.store_client import StoreClient
from shared.subjects import NONE, llm_command
from tests.contract.conftest import Whole
from tests.support.fake_provider import FakeProvider
from tests.support.nats_server import NatsServer
from tests.support.providers import Clock, Empty
from tests.support.stage import frame

NATIVE, CHANNELS = "/api/v1/chat", "/ai-chat/api"
SENTENCE = (
    "There is no model 'fake-gtp'. Did you mean openai/fake-gpt or openai/fake-gpt-mini? "
    "There are: openai/fake-gpt, openai/fake-gpt-mini, demo/demo."
)


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
def clock() -> Clock:
    """By which the worker's lists grow old."""
    return Clock()


@pytest.fixture
async def offering(
    whole: Whole, nats_server: NatsServer, fake: FakeProvider, clock: Clock
) -> AsyncIterator[Offering]:
    """A worker's part that knows the providers; one OpenAI-compatible server has models."""
    del whole  # which must be there to be told of them
    importlib.import_module("anthropic")
    async with Bus(nats_server.url, name="worker") as bus:
        registry = Registry(Settings(openai_base_url=fake.openai_url), clock=clock)
        registry.add(Recorded(bus))
        offering = Offering(registry, Breaker(Empty(), 5, 60), StoreClient(bus))
        await bus.serve("llm_worker", endpoints(offering))
        await offering.refresh(Refresh())
        yield offering
        await registry.aclose()


@pytest.fixture
async def models(whole: Whole, offering: Offering, monkeypatch: pytest.MonkeyPatch) -> Whole:
    """A gateway whose store knows which models there are, however busy the machine is."""
    del offering
    monkeypatch.setattr(model_names, "TIMEOUT", 20.0)
    return whole


async def response_for(
    whole: Whole, method: str, path: str, **options: Any
) -> tuple[int, Any, str]:
    """(status, body, code in the headers) of any request."""
    async with whole.stage.http.request(method, path, **options) as answer:
        body = await answer.json(content_type=None)
        return answer.status, body, answer.headers.get("X-Error-Code", "")


async def names(whole: Whole) -> frozenset[str]:
    """The names of the models on offer, as the store knows them."""
    return await whole.store.store.session_log.read(offered_names)


async def opened(whole: Whole, model: str) -> int:
    """The status of opening a session with a model."""
    status, _, _ = await response_for(whole, "POST", f"{NATIVE}/sessions", json={"model": model})
    return status


async def head(whole: Whole) -> int:
    """The last fact of the log."""
    found = await whole.store.bus.head("EVENTS", "evt.>")
    return found.seq if found else 0


# -- a name in a request ---------------------------------------------------------------


@pytest.mark.parametrize("stream", ["", "?stream=1"])
async def test_a_native_request_that_names_one_is_refused_and_nothing_is_stored(
    models: Whole, stream: str
):
    session_id = await models.store.create()
    reply = await models.store.reply(session_id)
    before = await head(models)
    body = {"content": "Hi", "model": "fake-gtp"}
    requests = [
        ("POST", f"/messages{stream}", body | {"session_id": session_id}),
        ("POST", f"/messages/{reply.user_message_id}/edit{stream}", body),
        ("POST", "/sessions", {"model": "fake-gtp"}),
        ("PATCH", f"/sessions/{session_id}", {"model": "fake-gtp"}),
    ]

    answers = [
        await response_for(models, m, NATIVE + path, json=json) for m, path, json in requests
    ]

    for status, problem, _ in answers:
        assert (status, problem["code"], problem["path"]) == (404, "model_not_found", "$.model")
        assert problem["detail"] == SENTENCE
    assert await head(models) == before


async def test_the_native_socket_refuses_it_and_stays_open(models: Whole):
    session_id = await models.store.create()
    ws = await models.stage.open(f"{NATIVE}/ws")
    message = {"type": "send", "session_id": session_id, "content": "Hi", "client_id": "c"}

    await ws.send_json(message | {"model": "fake-gtp"})
    refused = await frame(ws)
    await ws.send_json(message)
    events = [await frame(ws), await frame(ws)]

    assert refused == {
        "type": "error",
        "session_id": session_id,
        "message": SENTENCE,
        "code": "model_not_found",
        "path": "$.model",
        "client_id": "c",
    }
    assert [event["type"] for event in events] == ["subscribed", "message_start"]


async def test_channels_refuse_the_field(models: Whole):
    _, session, _ = await response_for(models, "POST", f"{CHANNELS}/sessions/", json={})
    _, preset, _ = await response_for(models, "POST", f"{CHANNELS}/presets/", json={"name": "A"})
    before = await head(models)
    wrong = {"model": "fake-gtp", "name": "A"}
    requests = [
        ("POST", "sessions/"),
        ("PATCH", f"sessions/{session['id']}/"),
        ("PUT", f"sessions/{session['id']}/"),
        ("POST", "presets/"),
        ("PATCH", f"presets/{preset['id']}/"),
        ("PUT", f"presets/{preset['id']}/"),
        ("POST", f"presets/{preset['id']}/create_session_from_preset/"),
    ]

    answers = [await response_for(models, m, f"{CHANNELS}/{p}", json=wrong) for m, p in requests]

    assert answers == [(400, {"model": [SENTENCE]}, "model_not_found")] * len(requests)
    assert await head(models) == before


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("within", [True, False])
async def test_an_interview_prompt_is_refused_with_its_status(
    models: Whole, stream: bool, within: bool
):
    session_id = await models.store.create() if within else None
    before = await head(models)
    body = {"prompt": "Hi", "model": "fake-gtp", "stream": stream, "session_id": session_id}

    answered = await response_for(models, "POST", "/api/generate/", json=body)

    assert answered == (404, {"error": SENTENCE, "code": "model_not_found"}, "")
    assert await head(models) == before


# -- a model that was there once ---------------------------------------------------------


async def gone(whole: Whole, offering: Offering, fake: FakeProvider, clock: Clock) -> None:
    """The provider has taken ``fake-gpt`` off its list, and that is known."""
    fake.models["openai"] = ["fake-gpt-mini"]
    clock.now += RECENT + 1
    await offering.refresh(Refresh())
    async with asyncio.timeout(10):
        while "openai/fake-gpt" in await names(whole):
            await whole.store.next_fact()


async def test_a_session_whose_model_has_gone_is_told_so_when_something_is_sent(
    whole: Whole, offering: Offering, fake: FakeProvider, clock: Clock
):
    session_id = await whole.store.create(model="openai/fake-gpt")
    reply = await whole.store.reply(session_id)
    url = f"/ws/ai-chat/session/{session_id}/"
    native, channels = await whole.stage.open(f"{NATIVE}/ws"), await whole.stage.open(url)
    await frame(channels)
    await gone(whole, offering, fake, clock)
    before = await head(whole)
    sentence = (
        "There is no model 'openai/fake-gpt'. Did you mean openai/fake-gpt-mini? "
        "There are: openai/fake-gpt-mini, demo/demo."
    )

    message = {"session_id": session_id, "content": "Hi"}
    send = await response_for(whole, "POST", f"{NATIVE}/messages", json=message)
    again = await response_for(
        whole, "POST", f"{NATIVE}/messages/{reply.assistant_message_id}/regenerate"
    )
    prompt = {"prompt": "Hi", "session_id": session_id}
    interview = await response_for(whole, "POST", "/api/generate/", json=prompt)
    over_http = await response_for(
        whole, "POST", f"{CHANNELS}/sessions/{session_id}/send_message/", json={"message": "Hi"}
    )
    await native.send_json({"type": "send", **message})
    await channels.send_json({"type": "send_message", "message": "Hi"})
    await channels.send_json({"type": "regenerate"})
    sockets = [await frame(native), await frame(channels), await frame(channels)]

    for status, problem, _ in (send, again):
        assert (status, problem["code"], problem["detail"]) == (404, "model_not_found", sentence)
    assert interview == (404, {"error": sentence, "code": "model_not_found"}, "")
    assert over_http == (400, {"model": [sentence]}, "model_not_found")
    assert {(f["type"], f["message"], f["code"]) for f in sockets} == {
        ("error", sentence, "model_not_found")
    }
    assert await head(whole) == before


async def test_what_does_not_need_the_model_goes_on_without_it(
    whole: Whole, offering: Offering, fake: FakeProvider, clock: Clock
):
    session_id = await whole.store.create(model="openai/fake-gpt")
    key, body = {"Idempotency-Key": "k"}, {"session_id": session_id, "content": "Hi"}
    async with whole.stage.http.post(f"{NATIVE}/messages?stream=1", json=body, headers=key) as sent:
        await whole.answered(sent.headers["X-Run-Id"], "Hello")
    await gone(whole, offering, fake, clock)

    again, _, _ = await response_for(whole, "POST", f"{NATIVE}/messages", json=body, headers=key)
    same = {"title": "Kept", "model": "openai/fake-gpt"}
    kept, _, _ = await response_for(whole, "PATCH", f"{NATIVE}/sessions/{session_id}", json=same)
    other = {**body, "model": "fake-gpt-mini"}
    async with whole.stage.http.post(f"{NATIVE}/messages?stream=1", json=other) as answer:
        sent_with_another = answer.status

    assert (again, kept, sent_with_another) == (201, 200, 200)


@pytest.mark.parametrize(
    "order",
    [
        lambda http: http.post("/api/upload", data=a_form()),
        lambda http: http.post("/chat/start", json=TOPIC),
        lambda http: http.post("/api/generate/", json={"prompt": "Hi"}),
    ],
    ids=["documents", "content", "interview"],
)
async def test_a_job_or_call_whose_default_model_is_not_there_stores_nothing(
    models: Whole, monkeypatch: pytest.MonkeyPatch, order: Callable[[Any], Any]
):
    async def default(_: str) -> str:
        return "fake-gtp"

    monkeypatch.setattr(models.store.store.commands, "_default_model", default)
    before = await head(models)

    async with order(models.stage.http) as answer:
        body = await answer.json(content_type=None)

    assert (answer.status, body["code"], body["error"]) == (404, "model_not_found", SENTENCE)
    assert await head(models) == before


TOPIC = {"topic": "Tea", "query": "Green", "platform": "Twitter"}


def a_form() -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("prompt", "What is it?")
    form.add_field("file", b"Some words.", filename="notes.txt")
    return form


# -- what is let through -----------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        *("fake-gpt", "openai/fake-gpt", "demo", "demo/demo", "openai/fake-gpt:nitro"),
        "recorded/01a21645-bd32-7000-8000-000000000000@max",
    ],
)
async def test_whatever_somebody_may_have_is_let_through(models: Whole, model: str):
    assert await opened(models, model) == 201


async def test_a_name_with_a_slash_may_be_a_routers_own(
    whole: Whole, offering: Offering, fake: FakeProvider, clock: Clock
):
    fake.models["openai"] = ["meta-llama/llama-4", "openai/gpt-9"]
    clock.now += RECENT + 1
    await offering.refresh(Refresh())

    for model, status in (
        *(("meta-llama/llama-4", 201), ("openai/gpt-9", 201), ("openai/openai/gpt-9", 201)),
        *(("meta-llama/llama-5", 404), ("nobody/gpt-9", 404)),
    ):
        assert await opened(whole, model) == status


async def test_a_new_model_is_found_although_no_list_was_asked_for_since(
    models: Whole, fake: FakeProvider, clock: Clock
):
    fake.models["openai"].append("brand-new")
    clock.now += RECENT + 1

    assert await opened(models, "brand-new") == 201
    async with asyncio.timeout(10):
        while "brand-new" not in await names(models):
            await models.store.next_fact()


async def test_a_provider_that_cannot_be_asked_has_whatever_is_named(
    models: Whole, fake: FakeProvider, clock: Clock
):
    clock.now += RECENT + 1
    await fake.stop()

    assert await opened(models, "fake-gtp") == 201


async def test_without_a_worker_whatever_is_named_is_let_through_at_once(whole: Whole):
    noted = SyncModels(user_id=NONE, models=[], unavailable=[], default=None)
    await whole.store.store.models.sync(noted)

    async with asyncio.timeout(model_names.TIMEOUT):
        assert await opened(whole, "any") == 201


async def test_nobody_waits_twice_for_a_worker_that_does_not_say_anything(
    whole: Whole, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(model_names, "TIMEOUT", 0.05)
    answer = asyncio.Event()
    questions: list[bytes] = []

    async def find(question: bytes) -> bytes:
        questions.append(question)
        await answer.wait()
        return b'{"id": "slow/model"}'

    async with Bus(nats_server.url, name="worker") as bus:
        await bus.serve("llm_worker", {llm_command(FindModel.name): find})
        await bus.api("INFO")  # a round trip, by which the server knows who answers
        create = whole.store.store.commands.create_session
        made = [
            await create(
                CreateSession(user_id=whole.store.user, session_id=new_id(), model="slow/model")
            )
            for _ in range(3)
        ]
        answer.set()

    assert [answered.session.model for answered in made] == ["slow/model"] * 3
    assert len(questions) == 1


async def test_an_imported_session_may_have_a_model_of_elsewhere(models: Whole):
    session_id = await models.store.create(title="Tea")
    await models.store.reply(session_id, "Hi", "Hello")
    _, exported, _ = await response_for(
        models, "GET", f"{NATIVE}/sessions/{session_id}/export?format=json"
    )
    exported["session"]["model"] = "elsewhere/model"

    status, session, _ = await response_for(
        models, "POST", f"{NATIVE}/sessions/import", json=exported
    )

    assert (status, session["model"]) == (201, "elsewhere/model")
