"""Presets of the Channels front ends and of the native API, over a real store."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.commands import CreatePreset
from shared.ids import new_id
from shared.store_client import StoreClient
from tests.support.nats_server import NatsServer, forget_everything
from tests.support.stage import Stage, frame, stage
from tests.support.store_at_work import store_at_work

PRESETS = "/ai-chat/api/presets/"
NATIVE = "/api/v1/chat/sessions"
EDITOR = {
    "name": "Editor",
    "description": "Shortens",
    "system_prompt": "Be strict.",
    "model": "demo",
    "temperature": 0.2,
    "max_tokens": 300,
    "is_public": False,
}
NONE = {"detail": "There is no such preset.", "code": "not_found"}
FORBIDDEN = {"detail": "Only its owner may change a shared preset.", "code": "forbidden"}


@dataclass
class Presets:
    """A gateway before a real store."""

    stage: Stage

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        async with self.stage.http.request(method, path, **options) as answer:
            body = await answer.read()
            return answer.status, await answer.json() if body else None

    async def made(self, **fields: Any) -> dict[str, Any]:
        status, preset = await self.call("POST", PRESETS, json=EDITOR | fields)
        assert status == 201
        return preset

    async def of_somebody_else(self, **fields: Any) -> str:
        """Another user's preset, kept as his gateway would."""
        wish = CreatePreset(user_id=new_id(), preset_id=new_id(), **fields)
        return (await StoreClient(self.stage.bus).ask(wish)).preset.id


@pytest.fixture
async def presets(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Presets]:
    await forget_everything(nats_server)
    async with store_at_work(nats_server, tmp_path) as made:
        await made.bus.serve("store", made.store.endpoints())
        async with stage(nats_server.url, with_store=False) as opened:
            yield Presets(opened)


async def test_a_preset_is_made_read_changed_and_forgotten(presets: Presets):
    status, made = await presets.call("POST", PRESETS, json=EDITOR)
    url = f"{PRESETS}{made['id']}/"
    read = await presets.call("GET", url)
    patched = await presets.call("PATCH", url, json={"name": "Poet", "temperature": None})
    put = await presets.call("PUT", url, json={"name": "Author"})
    deleted = await presets.call("DELETE", url)

    assert status == 201
    assert made == EDITOR | {"id": made["id"], "owner": made["owner"]}
    assert read == (200, made)
    assert patched == (200, made | {"name": "Poet", "temperature": None})
    assert put == (200, patched[1] | {"name": "Author"})
    assert deleted == (204, None)
    for method in ("GET", "PATCH", "DELETE"):
        assert await presets.call(method, url) == (404, NONE)


async def test_a_preset_has_a_name_at_least(presets: Presets):
    status, made = await presets.call("POST", PRESETS, json={"name": "Plain"})
    refused = await presets.call("POST", PRESETS, json={"temperature": 3})
    replaced = await presets.call("PUT", f"{PRESETS}{made['id']}/", json={"model": "demo"})

    empty = {"model": None, "system_prompt": None, "temperature": None, "max_tokens": None}
    plain = {"name": "Plain", "description": "", "is_public": False} | empty
    assert (status, made) == (201, plain | {"id": made["id"], "owner": made["owner"]})
    assert refused == (
        400,
        {
            "name": ["This field is required."],
            "temperature": ["Ensure this value is less than or equal to 2."],
        },
    )
    assert replaced == (400, {"name": ["This field is required."]})


async def test_presets_are_listed_by_name_with_those_that_others_share(presets: Presets):
    for name in ("Poet", "Editor"):
        await presets.made(name=name)
    await presets.of_somebody_else(title="Lawyer", is_public=True)
    await presets.of_somebody_else(title="Diary")

    _, page = await presets.call("GET", f"{PRESETS}?page_size=2")
    _, rest = await presets.call("GET", page["next"])

    assert page["count"] == 3
    names = [preset["name"] for preset in page["results"] + rest["results"]]
    assert names == ["Editor", "Lawyer", "Poet"]
    assert (rest["next"], rest["previous"].startswith(presets.stage.url)) == (None, True)


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_whose_preset_it_is_is_told_before_what_is_wrong(presets: Presets, method: str):
    shared = await presets.of_somebody_else(title="Lawyer", is_public=True)
    private = await presets.of_somebody_else(title="Diary")

    for body in ({"name": "Mine"}, {"name": None}, []):
        for preset_id, refusal in (
            (shared, (403, FORBIDDEN)),
            (private, (404, NONE)),
            (new_id(), (404, NONE)),
            ("no-id", (404, NONE)),
        ):
            answer = await presets.call(method, f"{PRESETS}{preset_id}/", json=body)
            assert answer == refusal


async def test_a_shared_preset_may_be_used_and_not_deleted(presets: Presets):
    shared = await presets.of_somebody_else(title="Lawyer", is_public=True, temperature=0.1)
    private = await presets.of_somebody_else(title="Diary")

    read, preset = await presets.call("GET", f"{PRESETS}{shared}/")
    deleted = await presets.call("DELETE", f"{PRESETS}{shared}/")
    hidden = await presets.call("DELETE", f"{PRESETS}{private}/")
    opened, session = await presets.call(
        "POST", f"{PRESETS}{shared}/create_session_from_preset/", json={}
    )
    closed = await presets.call("POST", f"{PRESETS}{private}/create_session_from_preset/")

    assert (read, preset["name"]) == (200, "Lawyer")
    assert (deleted, hidden) == ((403, FORBIDDEN), (404, NONE))
    assert (opened, session["title"], session["temperature"]) == (201, "Lawyer", 0.1)
    assert closed == (404, NONE)


async def test_a_session_is_opened_as_the_preset_says(presets: Presets):
    preset = await presets.made()
    url = f"{PRESETS}{preset['id']}/create_session_from_preset/"
    ws = await presets.stage.open("/ws/ai-chat/sessions/")
    await frame(ws)

    status, session = await presets.call("POST", url)
    _, titled = await presets.call("POST", url, json={"title": "Letters", "temperature": 1})
    refused = await presets.call("POST", url, json={"title": 5})
    event = await frame(ws)

    chosen = ("model", "system_prompt", "temperature", "max_tokens")
    assert status == 201
    assert session["title"] == "Editor"
    assert {f: session[f] for f in chosen} == {f: EDITOR[f] for f in chosen}
    assert (titled["title"], titled["temperature"], titled["max_tokens"]) == ("Letters", 1.0, 300)
    assert refused == (400, {"title": ["Not a valid string."]})
    assert event == {"type": "session_created", "session": session}


async def test_what_a_preset_leaves_open_has_the_defaults(presets: Presets):
    _, preset = await presets.call("POST", PRESETS, json={"name": "Plain"})

    _, session = await presets.call("POST", f"{PRESETS}{preset['id']}/create_session_from_preset")

    assert (session["model"], session["temperature"], session["max_tokens"]) == ("demo", 0.7, 2000)


async def test_a_change_of_a_preset_leaves_its_sessions_as_they_are(presets: Presets):
    preset = await presets.made()
    url = f"{PRESETS}{preset['id']}/"
    _, session = await presets.call("POST", f"{url}create_session_from_preset/")

    await presets.call("PATCH", url, json={"system_prompt": "Be kind."})
    await presets.call("DELETE", url)

    _, again = await presets.call("GET", f"/ai-chat/api/sessions/{session['id']}/")
    assert again == session


async def test_presets_may_come_as_a_form(presets: Presets):
    form = {"name": "Editor", "temperature": "0.5", "is_public": "true", "max_tokens": ""}

    status, preset = await presets.call("POST", PRESETS, data=form)

    assert (status, preset["temperature"], preset["is_public"]) == (201, 0.5, True)
    assert preset["max_tokens"] is None


async def test_a_native_session_takes_what_it_leaves_open_from_a_preset(presets: Presets):
    preset = await presets.made()

    body = {"preset_id": preset["id"], "temperature": 1.5, "system_prompt": ""}
    status, session = await presets.call("POST", NATIVE, json=body)

    assert status == 201
    assert (session["model"], session["max_tokens"]) == ("demo", 300)
    assert (session["temperature"], session["system_prompt"]) == (1.5, "")
    assert session["title"] is None


async def test_a_native_session_of_a_preset_that_is_not_there_is_refused(presets: Presets):
    private = await presets.of_somebody_else(title="Diary")

    answers = [
        await presets.call("POST", NATIVE, json={"preset_id": preset_id})
        for preset_id in (private, new_id(), "no-id", 5)
    ]

    refusals = [(status, body["code"], body["path"]) for status, body in answers]
    assert refusals == [(404, "not_found", "$.preset_id")] * 3 + [
        (400, "invalid_request", "$.preset_id")
    ]
    assert (await presets.call("GET", NATIVE))[1]["items"] == []
