"""What a worker tells of its providers' offers: to whoever asks, and to the store."""

import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest

from services.llm_worker.breaker import Breaker
from services.llm_worker.handlers import endpoints
from services.llm_worker.offers import LONGEST_LIST, LONGEST_NAME, Offering
from services.llm_worker.providers.base import ModelInfo
from services.llm_worker.providers.demo import Demo
from services.llm_worker.providers.registry import Registry
from shared.commands import ModelsNoted, SyncModels
from shared.errors import InvalidRequest, ModelNotFound, Unavailable
from shared.events import ModelDetails
from shared.offers import FindModel, ListOffers, Refresh, UnavailableProvider
from shared.settings import Settings
from shared.subjects import NONE, llm_command
from tests.support.fake_provider import FakeProvider
from tests.support.providers import Empty, settings_for

Make = Callable[[Settings], Offering]


class Noting:
    """A store that notes everything as new."""

    def __init__(self) -> None:
        self.requests: list[SyncModels] = []
        self.away = 0

    async def ask(self, request: SyncModels) -> ModelsNoted:
        if self.away:
            self.away -= 1
            raise Unavailable("Not now.")
        self.requests.append(request)
        return ModelsNoted(added=[m.id for m in request.models], removed=["gone/gone"], seq=7)


@pytest.fixture
def store() -> Noting:
    return Noting()


@pytest.fixture
async def make(store: Noting) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        def make(settings: Settings) -> Offering:
            registry = Registry(settings)
            stack.push_async_callback(registry.aclose)
            return Offering(registry, Breaker(Empty(), 5, 60), store)  # pyright: ignore[reportArgumentType]

        yield make


@pytest.fixture(autouse=True, scope="module")
def sdk_is_imported() -> None:
    """As a worker does before it asks; it may take longer than a list may."""
    importlib.import_module("anthropic")


async def test_every_provider_says_what_it_offers(make: Make, fake: FakeProvider):
    offers = await make(settings_for(fake)).list_offers(ListOffers())

    assert [(p.name, [m.name for m in p.models]) for p in offers.providers] == [
        ("anthropic", ["claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5-5"]),
        ("ollama", ["fake-llama:latest", "fake-qwen:1b"]),
        ("openai", ["fake-gpt", "fake-gpt-mini"]),
        ("demo", ["demo"]),
    ]
    assert all(p.circuit == "closed" and p.latency_ms is not None for p in offers.providers)
    assert offers.default == "anthropic/claude-sonnet-5-5"


async def test_one_that_cannot_be_asked_is_told_with_its_error(
    make: Make, store: Noting, fake: FakeProvider
):
    offering = make(Settings(ollama_host="http://127.0.0.1:1", openai_base_url=fake.openai_url))

    refreshed = await offering.refresh(Refresh())

    (noted,) = store.requests
    assert (noted.user_id, noted.unavailable) == (NONE, ["ollama"])
    assert [m.id for m in noted.models] == refreshed.added
    assert noted.default == "openai/fake-gpt"
    assert refreshed.offered == 3
    assert refreshed.added == ["openai/fake-gpt", "openai/fake-gpt-mini", "demo/demo"]
    assert (refreshed.removed, refreshed.seq) == (["gone/gone"], 7)
    (away,) = refreshed.unavailable
    assert isinstance(away, UnavailableProvider)
    assert away.provider == "ollama"
    assert "cannot be reached" in away.error


async def test_of_an_endless_list_the_first_models_are_told(
    make: Make, store: Noting, fake: FakeProvider
):
    fake.models["openai"] = [f"{n:06d}-{'x' * 280}" for n in range(6_000)]

    await make(settings_for(fake)).refresh(Refresh())

    (noted,) = store.requests
    names = [m.name for m in noted.models if m.provider == "openai"]
    assert names == fake.models["openai"][: len(names)]
    assert LONGEST_LIST / 2 < sum(map(len, names)) < LONGEST_LIST
    assert {m.provider for m in noted.models} == {"anthropic", "ollama", "openai", "demo"}


async def test_a_default_that_nobody_knows_is_not_guessed(make: Make, store: Noting):
    offering = make(Settings(ollama_host="http://127.0.0.1:1"))

    await offering.refresh(Refresh())

    assert store.requests[0].default is None


async def test_a_bare_default_is_the_model_that_it_means(make: Make, fake: FakeProvider):
    offering = make(settings_for(fake, default_model="fake-llama"))

    assert (await offering.list_offers(ListOffers())).default == "ollama/fake-llama:latest"


async def test_a_store_that_is_away_is_told_when_it_is_back(
    make: Make, store: Noting, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.llm_worker.offers._AGAIN", 0.0)
    store.away = 3

    await make(Settings()).refresh_at_start()

    assert [[m.id for m in noted.models] for noted in store.requests] == [["demo/demo"]]


@pytest.mark.parametrize(
    ("info", "listed"),
    [
        ({"name": ""}, []),
        ({"name": "x" * (LONGEST_NAME + 1)}, []),
        ({"name": "new\nline"}, []),
        ({"name": "\ud800"}, []),
        ({"name": "a", "size": 10**30}, [("a", None, 0)]),
        ({"name": "a", "context_window": 10**30}, [("a", None, 0)]),
        ({"name": "a", "display_name": "\x00"}, [("a", None, 0)]),
        ({"name": "a", "display_name": "A", "size": 5}, [("a", "A", 5)]),
        ({"name": "模型:7b"}, [("模型:7b", None, 0)]),
    ],
)
async def test_what_no_fact_can_hold_is_left_out(
    make: Make, monkeypatch: pytest.MonkeyPatch, info: dict[str, Any], listed: list[Any]
):
    async def models(_: Demo) -> list[ModelInfo]:
        return [ModelInfo(**info)]

    monkeypatch.setattr(Demo, "models", models)

    offers = await make(Settings()).list_offers(ListOffers())

    assert [(m.name, m.display_name, m.size) for m in offers.providers[0].models] == listed
    assert msgspec.json.encode(offers)


async def test_details_that_nobody_could_show_are_left_out(
    make: Make, monkeypatch: pytest.MonkeyPatch
):
    details = ModelDetails(
        format="gguf",
        family="x" * (LONGEST_NAME + 1),
        parameter_size="7\x00B",
        families=["a", "\n", "b" * 1_000, *(f"f{n}" for n in range(99))],
    )

    async def models(_: Demo) -> list[ModelInfo]:
        return [ModelInfo(name="a", details=details, digest="d" * 1_000)]

    monkeypatch.setattr(Demo, "models", models)

    (model,) = (await make(Settings()).list_offers(ListOffers())).providers[0].models

    assert model.digest is None
    assert model.details == ModelDetails(
        format="gguf", families=["a", *(f"f{n}" for n in range(17))]
    )


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("fake-llama", "ollama/fake-llama:latest"),
        ("ollama/fake-llama", "ollama/fake-llama:latest"),
        ("fake-gpt", "openai/fake-gpt"),
        ("openai/fake-gpt:free", "openai/fake-gpt:free"),
        ("claude-sonnet-5-5-20261001", "anthropic/claude-sonnet-5-5-20261001"),
        ("anthropic/claude-opus-5-5-latest", "anthropic/claude-opus-5-5-latest"),
        ("demo", "demo/demo"),
    ],
)
async def test_a_name_is_found_where_somebody_may_have_it(
    make: Make, fake: FakeProvider, model: str, found: str
):
    assert (await make(settings_for(fake)).find_model(FindModel(model=model))).id == found


@pytest.mark.parametrize(
    "model",
    [
        *("ollama/nothing", "openai/nothing", "anthropic/claude-nothing", "claude-nothing"),
        *("demo/nothing", "nothing", "nobody/nothing"),
    ],
)
async def test_a_name_that_nobody_has_is_refused_with_those_that_there_are(
    make: Make, fake: FakeProvider, model: str
):
    with pytest.raises(ModelNotFound, match=r"There are: .*ollama/fake-qwen:1b"):
        await make(settings_for(fake)).find_model(FindModel(model=model))


async def test_whether_a_provider_that_is_away_has_a_name_is_not_known(make: Make):
    offering = make(Settings(ollama_host="http://127.0.0.1:1"))

    with pytest.raises(Unavailable):
        await offering.find_model(FindModel(model="llama"))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"model": 1}', b"\xff"])
async def test_a_question_that_cannot_be_read_is_refused(make: Make, data: bytes):
    with pytest.raises(InvalidRequest):
        await endpoints(make(Settings()))[llm_command("find_model")](data)


async def test_a_name_that_is_near_another_is_told_so(make: Make, fake: FakeProvider):
    offering = make(settings_for(fake))

    with pytest.raises(ModelNotFound) as refused:
        await offering.find_model(FindModel(model="fake-gtp"))

    assert refused.value.message == (
        "There is no model 'fake-gtp'. Did you mean openai/fake-gpt or openai/fake-gpt-mini? "
        "There are: anthropic/claude-sonnet-5-5, anthropic/claude-haiku-5-5, "
        "anthropic/claude-opus-5-5, ollama/fake-llama:latest, ollama/fake-qwen:1b, "
        "openai/fake-gpt, openai/fake-gpt-mini, demo/demo."
    )
