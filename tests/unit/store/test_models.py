"""The models on offer: what is news, what a fact does to the rows, whose default is which."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from services.store.applying import apply, clear
from services.store.models import compare, list_models, preferred_model
from services.store.rows import ModelRow
from shared.commands import ListModels, SyncModels
from shared.events import ModelDetails, ModelPreferred, ModelsSynced, OfferedModel
from shared.records import Model
from shared.subjects import EVERYBODY, NONE, user_address
from tests.support.scripted_log import START, USER
from tests.unit.store.story import ProjectedLog, dump, tables

OTHER = "01900000-0000-7000-8000-00000000000b"
LLAMA = OfferedModel(
    provider="ollama",
    name="llama:3b",
    context_window=8_192,
    supports_tools=True,
    size=5,
    modified_at=START,
    digest="d",
    details=ModelDetails(family="llama", families=["llama"]),
)
DEMO = OfferedModel(provider="demo", name="demo")


class Catalogue(ProjectedLog):
    """The models that are on offer, and those that users prefer."""

    def synced(
        self, *models: OfferedModel, removed: tuple[str, ...] = (), default: str | None = None
    ) -> None:
        fact = ModelsSynced(at=START, models=list(models), removed=list(removed))
        if default is not None:
            fact = ModelsSynced(
                at=START, models=list(models), removed=list(removed), default=default
            )
        self.append_at(EVERYBODY, fact)

    def preferred(self, user: str, model: str | None) -> None:
        fact = ModelPreferred(at=START, model=model)
        self.append_at(user_address(user), fact)

    def listed(self, user: str = USER) -> list[Model]:
        return list_models(self.connection, ListModels(user_id=user)).items

    def default(self, user: str = USER) -> list[str]:
        return [model.id for model in self.listed(user) if model.is_default]


@pytest.fixture
def catalogue() -> Iterator[Catalogue]:
    with tables() as connection:
        yield Catalogue(connection)


def test_a_model_is_as_its_provider_described_it(catalogue: Catalogue):
    catalogue.synced(LLAMA, default="ollama/llama:3b")

    assert catalogue.listed() == [
        Model(
            id="ollama/llama:3b",
            provider="ollama",
            name="llama:3b",
            display_name=None,
            context_window=8_192,
            max_tokens=None,
            supports_tools=True,
            supports_vision=False,
            is_available=True,
            is_default=True,
            size=5,
            modified_at=START,
            digest="d",
            details=LLAMA.details,
        )
    ]


def test_a_model_without_an_age_is_as_old_as_its_news(catalogue: Catalogue):
    catalogue.synced(DEMO)

    assert catalogue.listed()[0].modified_at == START


def test_a_removed_model_is_still_known_and_may_come_back(catalogue: Catalogue):
    catalogue.synced(LLAMA, DEMO)

    catalogue.synced(removed=("ollama/llama:3b", "ollama/never-there"))
    gone = catalogue.listed()
    catalogue.synced(LLAMA)

    assert [(m.id, m.is_available) for m in gone] == [
        ("demo/demo", True),
        ("ollama/llama:3b", False),
    ]
    assert all(model.is_available for model in catalogue.listed())


def test_the_default_is_the_users_else_the_systems(catalogue: Catalogue):
    catalogue.synced(LLAMA, DEMO, default="demo/demo")

    catalogue.preferred(USER, "ollama/llama:3b")

    assert (catalogue.default(USER), catalogue.default(OTHER)) == (
        ["ollama/llama:3b"],
        ["demo/demo"],
    )
    assert preferred_model(catalogue.connection, USER) == "ollama/llama:3b"
    assert preferred_model(catalogue.connection, OTHER) is None


def test_a_choice_counts_while_its_model_is_on_offer(catalogue: Catalogue):
    catalogue.synced(LLAMA, DEMO, default="demo/demo")
    catalogue.preferred(USER, "ollama/llama:3b")

    catalogue.synced(removed=("ollama/llama:3b",))
    without = catalogue.default()
    catalogue.synced(LLAMA)
    back = catalogue.default()
    catalogue.preferred(USER, None)

    assert (without, back) == (["demo/demo"], ["ollama/llama:3b"])
    assert catalogue.default() == ["demo/demo"]


def test_all_at_once_gives_the_same_rows_as_one_after_the_other(catalogue: Catalogue):
    catalogue.synced(LLAMA, DEMO, default="demo/demo")
    catalogue.preferred(USER, "ollama/llama:3b")
    catalogue.synced(removed=("ollama/llama:3b",), default="demo/demo")
    catalogue.synced(LLAMA)
    catalogue.preferred(USER, None)
    before = dump(catalogue.connection)

    clear(catalogue.connection)
    apply(catalogue.connection, catalogue.entries, len(catalogue.entries))

    assert dump(catalogue.connection) == before


# -- what is news ---------------------------------------------------------------------


def row(model: OfferedModel, *, is_available: bool = True) -> ModelRow:
    fields = {field: getattr(model, field) for field in OfferedModel.__struct_fields__}
    return ModelRow(
        id=model.id, is_available=is_available, created_at=START, updated_at=START, **fields
    )


def offer(
    *models: OfferedModel,
    unavailable: tuple[str, ...] = (),
    default: str | None = "demo/demo",
) -> SyncModels:
    return SyncModels(
        user_id=NONE,
        unavailable=list(unavailable),
        models=list(models),
        default=default,
    )


KNOWN = {model.id: row(model) for model in (LLAMA, DEMO)}


def test_what_is_known_is_no_news():
    fact, noted = compare(KNOWN, "demo/demo", offer(LLAMA, DEMO))

    assert fact is None
    assert (noted.added, noted.removed) == ([], [])


def test_only_what_is_new_or_different_is_news():
    other = OfferedModel(provider="ollama", name="llama:3b", digest="another")
    new = OfferedModel(provider="ollama", name="qwen")

    fact, noted = compare(KNOWN, "demo/demo", offer(other, new, DEMO))

    assert fact is not None
    assert (fact.models, fact.removed) == ([other, new], [])
    assert (noted.added, noted.removed) == (["ollama/qwen"], [])


def test_a_provider_that_cannot_be_asked_keeps_its_models():
    fact, _ = compare(KNOWN, "demo/demo", offer(DEMO, unavailable=("ollama",)))

    assert fact is None


def test_a_provider_that_is_no_longer_set_up_loses_them():
    _, noted = compare(KNOWN, "demo/demo", offer(DEMO))

    assert (noted.added, noted.removed) == ([], ["ollama/llama:3b"])


def test_a_model_that_is_back_was_added():
    known = {LLAMA.id: row(LLAMA, is_available=False), DEMO.id: row(DEMO)}

    fact, noted = compare(known, "demo/demo", offer(LLAMA, DEMO))

    assert fact is not None
    assert (fact.models, noted.added) == ([LLAMA], ["ollama/llama:3b"])


@pytest.mark.parametrize(
    ("default", "is_new"), [("demo/demo", False), (None, False), ("ollama/llama:3b", True)]
)
def test_another_default_is_news_and_an_unknown_one_is_not(default: str | None, is_new: bool):
    fact, _ = compare(KNOWN, "demo/demo", offer(LLAMA, DEMO, default=default))

    assert (fact is not None) is is_new
    if fact is not None:
        assert (fact.models, fact.removed, fact.default) == ([], [], default)


def test_a_time_to_the_microsecond_is_the_same_after_the_table(catalogue: Catalogue):
    exact = OfferedModel(
        provider="ollama", name="a", modified_at=START + timedelta(microseconds=123_457)
    )

    catalogue.synced(exact)

    assert catalogue.listed()[0].modified_at == exact.modified_at
