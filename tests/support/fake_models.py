"""The models that the fake store knows, and workers that offer what a test says."""

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from shared import commands as c
from shared.errors import ModelNotFound, NatterlogError
from shared.events import OfferedModel
from shared.ids import now
from shared.offers import (
    FindModel,
    FoundModel,
    ListOffers,
    Offers,
    ProviderState,
    Refresh,
    Refreshed,
    UnavailableProvider,
)
from shared.records import Model
from shared.subjects import llm_command

if TYPE_CHECKING:
    from tests.support.fake_store import FakeStore


def a_model(model_id: str, **fields: Any) -> Model:
    provider, _, name = model_id.partition("/")
    known: dict[str, Any] = {
        "display_name": None,
        "context_window": None,
        "max_tokens": None,
        "supports_tools": False,
        "supports_vision": False,
        "is_available": True,
        "is_default": False,
        "size": 0,
        "modified_at": now(),
        "digest": None,
        "details": None,
    }
    return Model(id=model_id, provider=provider, name=name, **(known | fields))


class FakeModels:
    """The store's part: a list, and one user's choice."""

    def __init__(self, store: "FakeStore") -> None:
        self._store = store
        self.known = [a_model("demo/demo", is_default=True)]
        self.listed = asyncio.Event()
        """The list was asked for."""

    async def list_models(self, q: c.ListModels) -> c.ModelList:
        del q
        self.listed.set()
        return c.ModelList(items=self.known, seq=self._store.seq)

    async def prefer_model(self, q: c.PreferModel) -> c.Done:
        chosen = q.model or "demo/demo"
        self.known = [
            msgspec.structs.replace(model, is_default=model.id == chosen) for model in self.known
        ]
        return c.Done(seq=self._store.seq)


class FakeWorkers:
    """The workers' part: what they offer, or why they cannot."""

    def __init__(self, store: "FakeStore") -> None:
        self._store = store
        self.providers = [
            ProviderState(
                name="demo",
                models=[OfferedModel(provider="demo", name="demo")],
                circuit="closed",
                latency_ms=1,
            )
        ]
        self.requests: list[ListOffers | Refresh | FindModel] = []
        self.may_refresh = asyncio.Event()
        """Cleared: whoever has the providers asked waits."""
        self.may_refresh.set()

    async def serve(self) -> None:
        """Answer until the bus is closed."""
        await self._store.bus.serve(
            "llm_worker",
            {
                llm_command(ListOffers.name): self._ask,
                llm_command(Refresh.name): self._refresh,
                llm_command(FindModel.name): self._find,
            },
        )

    async def _ask(self, data: bytes) -> bytes:
        self.requests.append(msgspec.json.decode(data, type=ListOffers))
        return msgspec.json.encode(Offers(providers=self.providers, default="demo/demo"))

    async def _refresh(self, data: bytes) -> bytes:
        self.requests.append(msgspec.json.decode(data, type=Refresh))
        await self.may_refresh.wait()
        offered = [model for state in self.providers for model in state.models]
        before = {model.id for model in self._store.models.known}
        added = [a_model(model.id) for model in offered if model.id not in before]
        self._store.models.known += added
        answer = Refreshed(
            offered=len(offered),
            added=[model.id for model in added],
            removed=[],
            unavailable=[
                UnavailableProvider(provider=state.name, error=state.error)
                for state in self.providers
                if state.error is not None
            ],
            seq=self._store.seq,
        )
        return msgspec.json.encode(answer)

    async def _find(self, data: bytes) -> bytes:
        question = msgspec.json.decode(data, type=FindModel)
        self.requests.append(question)
        if error := self._fault(question.model):
            raise error
        return msgspec.json.encode(FoundModel(id=f"demo/{question.model}"))

    def _fault(self, model: str) -> NatterlogError | None:
        if model.startswith("hidden"):
            return None
        return ModelNotFound(f"There is no model {model!r}. There are: demo/demo.")
