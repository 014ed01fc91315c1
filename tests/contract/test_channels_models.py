"""The Channels front ends' models and their providers' health, as the contract has them."""

import asyncio
from typing import Any

import msgspec
import pytest
from yarl import URL

from shared.events import OfferedModel
from shared.offers import ListOffers, ProviderState
from tests.support.fake_models import a_model
from tests.support.stage import Stage

MODELS = "/ai-chat/api/models/"
HEALTH = "/ai-chat/api/health/llm_server/"


async def call(stage: Stage, method: str, path: str, **options: Any) -> tuple[int, Any]:
    async with stage.http.request(method, path, **options) as answer:
        return answer.status, await answer.json()


@pytest.fixture
async def models(on_stage: Stage) -> Stage:
    """A stage with workers, and a few models from two providers."""
    on_stage.store.models.known += [
        a_model("ollama/llama:3b", supports_tools=True, context_window=8_192),
        a_model("ollama/gone", is_available=False),
        a_model("openai/org/deep/name", display_name="Deep"),
    ]
    await on_stage.store.workers.serve()
    return on_stage


async def test_the_list_is_a_page_of_what_is_on_offer(models: Stage):
    status, page = await call(models, "GET", MODELS)
    _, everything = await call(models, "GET", f"{MODELS}?include_unavailable=1")

    assert status == 200
    assert [m["id"] for m in page["results"]] == [
        "demo/demo",
        "ollama/llama:3b",
        "openai/org/deep/name",
    ]
    assert page["results"][1] == {
        "id": "ollama/llama:3b",
        "name": "llama:3b",
        "provider": "ollama",
        "display_name": "llama:3b",
        "context_window": 8_192,
        "max_tokens": None,
        "supports_tools": True,
        "supports_vision": False,
        "is_default": False,
        "is_available": True,
    }
    assert everything["count"] == 4


async def test_a_page_has_absolute_links_and_one_that_is_not_there_is_not_found(models: Stage):
    _, second = await call(models, "GET", f"{MODELS}?page=2&page_size=1")
    status, refusal = await call(models, "GET", f"{MODELS}?page=4&page_size=1")

    assert (second["count"], len(second["results"])) == (3, 1)
    assert second["next"] == f"{models.url}{MODELS}?page=3&page_size=1"
    assert second["previous"] == f"{models.url}{MODELS}?page_size=1"
    assert (status, refusal) == (404, {"detail": "Invalid page.", "code": "not_found"})


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("ollama/llama:3b/", "ollama/llama:3b"),
        ("ollama/llama:3b", "ollama/llama:3b"),
        ("ollama%2Fllama%3A3b/", "ollama/llama:3b"),
        ("openai/org/deep/name", "openai/org/deep/name"),
        ("openai%2Forg%2Fdeep%2Fname", "openai/org/deep/name"),
        ("ollama/gone/", "ollama/gone"),
    ],
)
async def test_a_model_is_found_by_its_id_with_its_slashes_encoded_or_not(
    models: Stage, path: str, wanted: str
):
    url = URL(f"{models.url}{MODELS}{path}", encoded=True)

    async with models.http.get(url) as answer:
        assert (answer.status, (await answer.json())["id"]) == (200, wanted)


@pytest.mark.parametrize("path", ["nobody/nothing/", "llama:3b", "sync_models/", "%00/", "😀/"])
async def test_another_model_is_not_found(models: Stage, path: str):
    status, refusal = await call(models, "GET", f"{MODELS}{path}")

    assert (status, refusal) == (
        404,
        {"detail": "There is no such model.", "code": "model_not_found"},
    )


async def test_a_users_default_is_chosen_and_taken_back(models: Stage):
    path = f"{MODELS}ollama/llama:3b/"

    status, chosen = await call(models, "PATCH", path, json={"is_default": True})
    _, page = await call(models, "GET", MODELS)
    _, other = await call(models, "PATCH", f"{MODELS}demo/demo/", json={"is_default": False})
    _, untouched = await call(models, "PATCH", path, json={"name": "ignored"})
    _, back = await call(models, "PATCH", path, json={"is_default": False})

    assert (status, chosen["is_default"]) == (200, True)
    assert [m["is_default"] for m in page["results"]] == [False, True, False]
    assert other["is_default"] is False
    assert untouched["is_default"] is True
    assert back["is_default"] is False


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"is_default": "yes"}', "is_default"),
        (b'{"is_default": null}', "is_default"),
        (b"{", "detail"),
        (b"[]", "non_field_errors"),
        (b'"\xff"', "detail"),
        (b"[" * 10_000, "detail"),
    ],
)
async def test_a_change_that_cannot_be_read_is_refused_and_changes_nothing(
    models: Stage, body: bytes, field: str
):
    path, kind = f"{MODELS}ollama/llama:3b/", {"Content-Type": "application/json"}

    status, refusal = await call(models, "PATCH", path, data=body, headers=kind)
    _, page = await call(models, "GET", MODELS)

    assert status == 400
    assert field in refusal
    assert [m["is_default"] for m in page["results"]] == [True, False, False]


async def test_a_form_and_put_will_do_as_well(models: Stage):
    status, chosen = await call(
        models, "PUT", f"{MODELS}ollama/llama:3b/", data={"is_default": "true"}
    )

    assert (status, chosen["is_default"]) == (200, True)


async def test_options_say_what_may_be_done_to_a_model(models: Stage):
    async with models.http.options(f"{MODELS}ollama/llama:3b/") as answer:
        metadata = await answer.json()

    assert answer.headers["Allow"] == "GET, PUT, PATCH, HEAD, OPTIONS"
    assert metadata["name"] == "Model Instance"
    assert list(metadata["actions"]["PUT"]) == ["is_default"]


async def test_a_model_that_is_not_there_goes_before_what_is_wrong_with_a_change(models: Stage):
    status, refusal = await call(models, "PATCH", f"{MODELS}no/no/", json={"is_default": "x"})

    assert (status, refusal["code"]) == (404, "model_not_found")


async def test_a_sync_tells_what_came_and_who_could_not_be_asked(models: Stage):
    workers = models.store.workers
    new = OfferedModel(provider="demo", name="new")
    (demo,) = workers.providers
    workers.providers = [
        msgspec.structs.replace(demo, models=[*demo.models, new]),
        ProviderState(
            name="ollama", models=[], circuit="closed", latency_ms=None, error="ollama is away"
        ),
    ]

    status, report = await call(models, "POST", f"{MODELS}sync_models/")

    assert status == 200
    assert {key: report[key] for key in report if key != "models"} == {
        "synced": 2,
        "added": ["demo/new"],
        "removed": [],
        "unavailable": [{"provider": "ollama", "error": "ollama is away"}],
    }
    assert [m["id"] for m in report["models"]] == [
        "demo/demo",
        "ollama/llama:3b",
        "openai/org/deep/name",
        "demo/new",
    ]


async def test_without_a_worker_models_are_listed_and_cannot_be_synced(on_stage: Stage):
    listed = await call(on_stage, "GET", MODELS)
    status, refusal = await call(on_stage, "POST", f"{MODELS}sync_models/")

    assert (listed[0], listed[1]["count"]) == (200, 1)
    assert (status, refusal["code"]) == (503, "provider_unavailable")


# -- health -----------------------------------------------------------------------


def state(name: str, **fields: Any) -> ProviderState:
    known: dict[str, Any] = {"models": [], "circuit": "closed", "latency_ms": 3}
    return ProviderState(name=name, **(known | fields))


DEMO = state("demo")
DOWN: dict[str, Any] = {"latency_ms": None, "error": "It is away."}


@pytest.mark.parametrize(
    ("providers", "status"),
    [
        ([DEMO], "healthy"),
        ([state("ollama"), DEMO], "healthy"),
        ([state("ollama", **DOWN), DEMO], "unhealthy"),
        ([state("ollama", **DOWN), state("openai"), DEMO], "degraded"),
        ([state("ollama", circuit="open"), DEMO], "degraded"),
        ([state("ollama", open_models=["llama:3b"]), DEMO], "degraded"),
        ([state("ollama", circuit="half_open"), state("openai", **DOWN), DEMO], "degraded"),
    ],
)
async def test_the_health_is_that_of_the_real_providers(
    on_stage: Stage, providers: list[ProviderState], status: str
):
    on_stage.store.workers.providers = providers
    await on_stage.store.workers.serve()

    answered, health = await call(on_stage, "GET", HEALTH)

    assert (answered, health["status"]) == (200, status)
    assert [p["name"] for p in health["providers"]] == [p.name for p in providers]


async def test_a_provider_is_told_with_its_circuit_and_its_error(on_stage: Stage):
    on_stage.store.workers.providers = [state("ollama", **DOWN), state("openai", circuit="open")]
    await on_stage.store.workers.serve()

    _, health = await call(on_stage, "GET", HEALTH)

    assert health == {
        "status": "degraded",
        "providers": [
            {
                "name": "ollama",
                "status": "unhealthy",
                "latency_ms": None,
                "circuit": "closed",
                "error": "It is away.",
            },
            {
                "name": "openai",
                "status": "degraded",
                "latency_ms": 3,
                "circuit": "open",
                "error": None,
            },
        ],
    }


async def test_models_that_are_left_alone_are_named_where_their_provider_answers(on_stage: Stage):
    names = [f"model-{number:02}" for number in range(22)]
    on_stage.store.workers.providers = [
        state("openai", open_models=["m1"]),
        state("ollama", open_models=names),
    ]
    await on_stage.store.workers.serve()

    _, health = await call(on_stage, "GET", HEALTH)

    why = "Left alone for a while, because they kept failing"
    assert [(p["status"], p["circuit"], p["error"]) for p in health["providers"]] == [
        ("degraded", "closed", f"{why}: m1."),
        ("degraded", "closed", f"{why}: {', '.join(names[:20])} and 2 more."),
    ]


async def test_many_who_ask_at_once_are_one_question_to_the_workers(on_stage: Stage):
    await on_stage.store.workers.serve()

    answers = await asyncio.gather(*(call(on_stage, "GET", HEALTH) for _ in range(10)))

    assert [status for status, _ in answers] == [200] * 10
    requests = [q for q in on_stage.store.workers.requests if isinstance(q, ListOffers)]
    assert len(requests) == 1


async def test_without_a_worker_nothing_is_healthy_and_a_sentence_says_why(on_stage: Stage):
    assert await call(on_stage, "GET", HEALTH) == (
        200,
        {
            "status": "unhealthy",
            "providers": [],
            "detail": "No llm_worker answers, so no reply can be written.",
        },
    )


async def test_the_first_list_of_all_waits_until_a_worker_has_told(
    on_stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.gateway.models.TIMEOUT", 0)
    fake, workers = on_stage.store.models, on_stage.store.workers
    fake.known = []
    workers.may_refresh.clear()
    await workers.serve()

    listing = asyncio.create_task(call(on_stage, "GET", MODELS))
    await fake.listed.wait()
    workers.may_refresh.set()

    _, page = await listing
    assert [model["id"] for model in page["results"]] == ["demo/demo"]
