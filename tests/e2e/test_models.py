"""Models with every service as a process: what a provider offers is listed, chosen and used."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
import pytest_asyncio

from shared.chain import read_chain
from shared.events import ModelsSynced
from shared.subjects import EVERYBODY
from tests.support.log_checks import wait_until_all_ended
from tests.support.running import Running, running_system

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def natterlog(own_system_of_module: Running) -> Running:
    own_system_of_module.fake.reset()
    return own_system_of_module


MODELS = "/ai-chat/api/models/"
HEALTH = "/ai-chat/api/health/llm_server/"


async def call(natterlog: Running, method: str, path: str, **options: Any) -> Any:
    url = natterlog.system.url + path
    async with natterlog.client.http.request(method, url, **options) as answer:
        assert answer.status in (200, 201), await answer.text()
        return await answer.json()


async def command_line(natterlog: Running, *args: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "NATTERLOG_NATS_URL": natterlog.system.nats.url}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "services.cli", *args],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def synced(natterlog: Running) -> list[ModelsSynced]:
    links = await read_chain(natterlog.bus, EVERYBODY.session_facts)
    return [link.fact for link in links if isinstance(link.fact, ModelsSynced)]


async def test_a_sync_tells_what_came_and_went(natterlog: Running):
    await call(natterlog, "POST", f"{MODELS}sync_models/")

    # A list that grew old is asked for again behind it: then that was the one to note what is new.
    before, new, report = "fake-gpt-mini", "", {"added": []}
    for number in range(5):
        new = f"fake-new-{number}"
        natterlog.fake.models["openai"] = ["fake-gpt", new]
        report = await call(natterlog, "POST", f"{MODELS}sync_models/")
        if report["added"]:
            break
        before = new
    gone = await call(natterlog, "GET", f"{MODELS}openai/{before}/")

    assert (report["synced"], report["added"], report["removed"], report["unavailable"]) == (
        *(3, [f"openai/{new}"], [f"openai/{before}"], []),
    )
    assert [m["id"] for m in report["models"]] == ["demo/demo", "openai/fake-gpt", f"openai/{new}"]
    assert gone["is_available"] is False


async def test_syncs_at_once_and_a_worker_that_starts_are_no_news(natterlog: Running):
    await call(natterlog, "POST", f"{MODELS}sync_models/")
    before = await synced(natterlog)

    await natterlog.system.start("llm-worker")
    await asyncio.gather(
        *(call(natterlog, "POST", f"{MODELS}sync_models/") for _ in range(4)),
    )

    assert await synced(natterlog) == before
    await natterlog.system.of("llm-worker")[-1].kill()


async def test_a_users_default_is_used_by_every_dialect(natterlog: Running):
    await call(natterlog, "POST", f"{MODELS}sync_models/")
    assert (await call(natterlog, "GET", f"{MODELS}openai/fake-gpt/"))["is_default"] is True

    path = f"{MODELS}openai/fake-gpt-mini/"
    await call(natterlog, "PATCH", path, json={"is_default": True})
    native = await natterlog.client.session()
    await natterlog.client.send(native, "native")
    channels = await call(natterlog, "POST", "/ai-chat/api/sessions/", json={})
    await call(
        natterlog,
        "POST",
        f"/ai-chat/api/sessions/{channels['id']}/send_message/",
        json={"message": "channels"},
    )
    answer = await call(
        natterlog, "POST", "/api/generate/", json={"prompt": "interview", "stream": False}
    )
    job = {"topic": "content", "query": "x", "platform": "tiktok"}
    await call(natterlog, "POST", "/chat/start", json=job)
    own = await natterlog.client.session(model="openai/fake-gpt")
    await natterlog.client.send(own, "of its own")
    await wait_until_all_ended(natterlog.bus)
    await call(natterlog, "PATCH", path, json={"is_default": False})
    await natterlog.client.send(await natterlog.client.session(), "afterwards")

    chosen = {
        word: seen.body["model"]
        for word in ("native", "channels", "interview", "content", "of its own", "afterwards")
        for seen in natterlog.fake.seen
        if word in seen.message
    }
    assert chosen == {
        "native": "fake-gpt-mini",
        "channels": "fake-gpt-mini",
        "interview": "fake-gpt-mini",
        "content": "fake-gpt-mini",
        "of its own": "fake-gpt",
        "afterwards": "fake-gpt",
    }
    assert answer["model"] == "openai/fake-gpt-mini"


async def test_the_models_are_listed_on_the_command_line(natterlog: Running):
    done = await command_line(natterlog, "models", "--sync")

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["MODEL", "DEFAULT", "CONTEXT", "TOOLS", "VISION", "STATE"]
    assert "openai/fake-gpt       yes" in lines


async def test_a_model_that_keeps_failing_is_seen_by_everybody_who_looks():
    async with running_system(
        services=("store", "llm-worker", "gateway"),
        NATTERLOG_PROVIDER_FAILURES="1",
        CLAUDE_CB_THRESHOLD="1",
    ) as natterlog:
        worker = natterlog.system.one("llm-worker")
        session = await natterlog.client.session()
        failed = await natterlog.client.send(session, "fail=500")
        refused = await natterlog.client.send(session, "not asked")

        health = await call(natterlog, "GET", HEALTH)
        listed = await command_line(natterlog, "models")
        url = f"http://127.0.0.1:{worker.health_port}/metrics"
        async with natterlog.client.http.get(url) as answer:
            metrics = await answer.text()

    run = failed.run_id
    assert refused.end is not None
    (openai,) = [p for p in health["providers"] if p["name"] == "openai"]
    assert openai["status"] == "degraded"
    assert openai["error"].endswith("kept failing: fake-gpt.")
    assert f"last with status 500 in run {run}," in refused.end["message"]
    assert f"kept failing, see run {run[:18]}; left alone for" in listed.stdout
    assert 'natterlog_open_circuits{model="fake-gpt",provider="openai"} 1.0' in metrics


async def test_the_health_tells_of_a_provider_that_is_down_and_of_no_worker():
    async with running_system() as natterlog:
        await call(natterlog, "GET", MODELS)  # the first list waits until a worker has told it
        healthy = await call(natterlog, "GET", HEALTH)

        await natterlog.fake.stop()
        report = await call(natterlog, "POST", f"{MODELS}sync_models/")
        second = await natterlog.system.start("gateway")
        async with natterlog.client.http.get(second.url + HEALTH) as answer:
            down = await answer.json()
        await natterlog.system.one("llm-worker").kill()
        third = await natterlog.system.start("gateway")
        async with natterlog.client.http.get(third.url + HEALTH) as answer:
            alone = await answer.json()
        listed = await call(natterlog, "GET", MODELS)

        assert healthy["status"] == "healthy"
        assert [p["name"] for p in healthy["providers"]] == ["openai", "demo"]
        assert [p["provider"] for p in report["unavailable"]] == ["openai"]
        assert (report["synced"], report["removed"], len(report["models"])) == (1, [], 3)
        assert [(p["name"], p["status"]) for p in down["providers"]] == [
            ("openai", "unhealthy"),
            ("demo", "healthy"),
        ]
        assert down["status"] == "unhealthy"
        assert alone["status"] == "unhealthy"
        assert alone["detail"]
        assert [m["id"] for m in listed["results"]] == [
            "demo/demo",
            "openai/fake-gpt",
            "openai/fake-gpt-mini",
        ]
