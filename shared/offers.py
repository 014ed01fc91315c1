"""Requests to the llm_workers, which any of them answers: ``cmd.llm.<name>``.

The workers alone know the providers.  What they offer is in the store's tables as
well, as of the last time that it was noted there (:class:`shared.commands.SyncModels`).
"""

from typing import Literal

import msgspec

from shared.events import OfferedModel
from shared.requests import Answer, BusRequest

Circuit = Literal["closed", "open", "half_open"]
"""How a provider's circuit breaker stands: open means that it is left alone."""


class OpenCircuit(msgspec.Struct, frozen=True, kw_only=True):
    """What is left alone because it kept failing."""

    provider: str
    model: str | None
    """Its model of that name; None: the provider as a whole, because nobody is there."""
    state: Circuit
    retry_after: int
    """Seconds until it is tried again."""
    last_run: str | None = None
    """The run that met the latest failure."""


class ProviderState(msgspec.Struct, frozen=True, kw_only=True):
    """One provider: what it offers, or why it did not list its models."""

    name: str
    models: list[OfferedModel]
    circuit: Circuit
    latency_ms: int | None
    """How long it took to list its models; None when it did not."""
    error: str | None = None
    open_models: list[str] = []
    """Its models that are left alone, each by a circuit of its own."""


class Offers(msgspec.Struct, frozen=True, kw_only=True):
    providers: list[ProviderState]
    default: str | None
    """The id of the system's default model, if that could be found out."""


class UnavailableProvider(msgspec.Struct, frozen=True, kw_only=True):
    provider: str
    error: str


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    offered: int
    """Models of the providers that could be asked."""
    added: list[str]
    removed: list[str]
    unavailable: list[UnavailableProvider]
    seq: int
    """The last fact about models: whoever reads them next should not see less."""


class FoundModel(msgspec.Struct, frozen=True, kw_only=True):
    id: str


class OpenCircuits(msgspec.Struct, frozen=True, kw_only=True):
    circuits: list[OpenCircuit]


class LlmRequest(BusRequest[Answer], frozen=True, kw_only=True):
    """A request to any llm_worker."""


class ListOffers(LlmRequest[Offers], frozen=True, kw_only=True):
    """What every provider offers now."""


class Refresh(LlmRequest[Refreshed], frozen=True, kw_only=True):
    """Have the store note what every provider offers now.

    Never from lists of before: they would take back what another worker has noted since.
    """


class FindModel(LlmRequest[FoundModel], frozen=True, kw_only=True):
    """Which model a name means, or an error that names those there are."""

    model: str


class ListOpenCircuits(LlmRequest[OpenCircuits], frozen=True, kw_only=True):
    """What is left alone at the moment, as all workers see it."""
