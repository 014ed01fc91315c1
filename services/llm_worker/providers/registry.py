"""Which providers there are, and which of them a model's name means."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from services.llm_worker.providers import anthropic, faults
from services.llm_worker.providers.anthropic import Anthropic
from services.llm_worker.providers.base import ModelInfo, Provider, ProviderError
from services.llm_worker.providers.connections import Connections
from services.llm_worker.providers.demo import Demo
from services.llm_worker.providers.listed import has, lists_all, near
from services.llm_worker.providers.ollama import Ollama
from services.llm_worker.providers.openai import DEFAULT_URL, OpenAI
from services.llm_worker.providers.outbound import Outbound
from services.llm_worker.providers.redaction import Redaction, redaction_for, without_credentials
from services.llm_worker.providers.silence import Timeouts
from shared.log import get_logger
from shared.settings import Settings

log = get_logger()

FRESH = 60.0
"""Seconds for which a provider's list of models is believed."""
RECENT = 5.0
"""Seconds for which a failure to list them is believed, and a name's absence from all lists."""
LISTING_TIMEOUT = 5.0
"""Seconds that a provider may take to list its models."""


class Catalogue(NamedTuple):
    """All models on offer, each with its provider's name, and who could not be asked."""

    models: list[tuple[str, ModelInfo]]
    unavailable: list[tuple[str, ProviderError]]


class Registry:
    """The providers that the settings name, in the order in which they are preferred."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self.redaction = redaction_for(settings)
        self._connections = Connections(Outbound(settings))
        self.providers: dict[str, Provider] = {
            provider.name: provider for provider in _configured(settings, self._connections)
        }
        self._unlisted: dict[str, Provider] = {}
        self._offers = {
            name: Offer(provider, clock, self.redaction)
            for name, provider in self.providers.items()
        }

    def add(self, provider: Provider) -> None:
        """Add a provider that lists no models, and is meant only by ``provider/model``."""
        self._unlisted[provider.name] = provider

    async def resolve(self, model: str | None) -> tuple[Provider, str]:
        """The provider that ``model`` means, and its own name for it; None: the default.

        Raises:
            ProviderError: there is no such model, or nobody can say so just now.
        """
        if not model:
            return await self._default()
        prefix, _, name = model.partition("/")
        if name and (named := self.providers.get(prefix) or self._unlisted.get(prefix)):
            offer = self._offers.get(prefix)
            # A router's own names begin with a provider's, and it may be that provider.
            is_all_of_it = offer is not None and offer.has(model) and not offer.has(name)
            return named, model if is_all_of_it else name
        if model == Demo.name:
            return self.providers[Demo.name], model
        if model.startswith("claude-") and Anthropic.name in self.providers:
            return self.providers[Anthropic.name], model
        match self._real():
            case []:
                raise _unknown(model, await self.models())
            case [only]:
                return only, model  # it answers itself when it does not have it
            case _:
                return await self._search(model)

    async def models(self, *, max_age: float = FRESH) -> Catalogue:
        """What every provider offers; lists up to ``max_age`` seconds old will do."""
        found = Catalogue([], [])
        answers = await self._ask_all(lambda offer: offer.models(max_age))
        for name, answer in answers.items():
            if isinstance(answer, ProviderError):
                found.unavailable.append((name, answer))
            else:
                found.models.extend((name, info) for info in answer)
        return found

    async def find(self, model: str | None, *, max_age: float = RECENT) -> str:
        """The id, ``provider/name``, of the model that ``model`` means; None: the default.

        Raises:
            ProviderError: there is no such model, or nobody can say so just now.
        """
        provider, name = await self.resolve(model)
        offer = self._offers.get(provider.name)
        if offer is None:  # one that lists nothing
            return f"{provider.name}/{name}"
        listed = await offer.known(FRESH)
        if model and not offer.has(name):
            listed = await offer.models(max_age)
            if not offer.has(name) and lists_all(
                provider.name, [info.name for info in listed], name, self._settings
            ):
                raise _unknown(model, await self.models())
        for info in listed:
            if info.name in (name, f"{name}:latest"):
                return f"{provider.name}/{info.name}"
        return f"{provider.name}/{name}"

    @property
    def urls(self) -> dict[str, str]:
        """Where each provider is, for operators."""
        known = {
            Anthropic.name: self._settings.anthropic_base_url or anthropic.DEFAULT_URL,
            Ollama.name: self._settings.ollama_host or "",
            OpenAI.name: self._settings.openai_base_url or DEFAULT_URL,
        }
        return {n: without_credentials(url) for n, url in known.items() if n in self.providers}

    def latency_ms(self, provider: str) -> int | None:
        """How long it took a provider to list its models, when it was last asked."""
        return self._offers[provider].latency_ms

    async def preload(self) -> None:
        """Import what is slow to import, in a thread, before the first reply needs it."""
        for provider in self.providers.values():
            if isinstance(provider, Anthropic):
                try:
                    await provider.client()
                except ProviderError as error:  # its calls will say so as well
                    log.warning("provider.unprepared", provider=provider.name, error=error.message)

    async def aclose(self) -> None:
        for provider in self.providers.values():
            await provider.aclose()
        await self._connections.aclose()

    async def _default(self) -> tuple[Provider, str]:
        """The model of the settings, else the first one on offer, else the demo."""
        if choice := self._settings.first_choice:
            return await self.resolve(choice)
        failure: ProviderError | None = None
        for provider in self._real():
            try:
                offered = await self._offers[provider.name].models(FRESH)
            except ProviderError as error:
                failure = failure or error
            else:
                if offered:
                    return provider, offered[0].name
        if failure is not None:  # a demo's answer would hide that the real one is down
            raise failure
        return self.providers[Demo.name], Demo.name

    async def _search(self, model: str) -> tuple[Provider, str]:
        """The one provider that offers ``model``; lists that are not quite new are asked again."""
        for max_age in (FRESH, RECENT):
            answers = await self._ask_all(lambda offer, age=max_age: offer.known(age))
            owners = [
                name
                for name, answer in answers.items()
                if not isinstance(answer, ProviderError) and _offers(name, answer, model)
            ]
            if len(owners) == 1:
                return self.providers[owners[0]], model
            if owners:
                raise _ambiguous(model, owners)
        failures = [answer for answer in answers.values() if isinstance(answer, ProviderError)]
        if failures:  # it may well be theirs
            raise failures[0]
        raise _unknown(model, await self.models())

    def _real(self) -> list[Provider]:
        return [provider for name, provider in self.providers.items() if name != Demo.name]

    async def _ask_all(
        self, ask: "Callable[[Offer], Awaitable[list[ModelInfo]]]"
    ) -> dict[str, list[ModelInfo] | ProviderError]:
        async def answer(offer: Offer) -> list[ModelInfo] | ProviderError:
            try:
                return await ask(offer)
            except ProviderError as error:
                return error

        answers = await asyncio.gather(*(answer(offer) for offer in self._offers.values()))
        return dict(zip(self._offers, answers, strict=True))


class Offer:
    """One provider's list of models, asked for when needed and kept for a while."""

    def __init__(
        self, provider: Provider, clock: Callable[[], float], redaction: Redaction
    ) -> None:
        self._provider = provider
        self._redaction = redaction
        self._clock = clock
        self._lock = asyncio.Lock()
        self._models: list[ModelInfo] | None = None
        self._failure: ProviderError | None = None
        self._listed_at = 0.0
        self.latency_ms: int | None = None

    async def models(self, max_age: float) -> list[ModelInfo]:
        """The models, as of at most ``max_age`` seconds ago.

        Raises:
            ProviderError: it could not be asked.
        """
        await self._refresh(min(max_age, RECENT) if self._failure else max_age)
        if self._failure is not None:
            raise self._failure
        return self._models or []

    def has(self, name: str) -> bool:
        """Whether the last list that came has this name."""
        return _offers(self._provider.name, self._models or [], name)

    async def known(self, max_age: float) -> list[ModelInfo]:
        """The last list that came, even if the provider cannot be asked any more.

        A failure is not asked about again so soon: the names of other providers
        would wait for one that does not answer.

        Raises:
            ProviderError: it could never be asked.
        """
        await self._refresh(max_age)
        if self._models is None and self._failure is not None:
            raise self._failure
        return self._models or []

    async def _refresh(self, max_age: float) -> None:
        came_at = self._clock()
        async with self._lock:  # who comes while it is being asked gets the same answer
            never = self._models is None and self._failure is None
            answered = self._listed_at > came_at
            if never or (not answered and self._clock() - self._listed_at > max_age):
                await self._ask()

    async def _ask(self) -> None:
        self._failure = None
        started = time.monotonic()
        try:
            async with asyncio.timeout(LISTING_TIMEOUT):
                self._models = await self._provider.models()
        except ProviderError as error:
            self._failure = self._redaction.clean(error)
        except TimeoutError:
            late = f"it did not list its models within {LISTING_TIMEOUT:g} seconds"
            self._failure = faults.unreachable(self._provider.name, late)
        self._listed_at = self._clock()
        self.latency_ms = round((time.monotonic() - started) * 1000)


def _configured(settings: Settings, connections: Connections) -> list[Provider]:
    providers: list[Provider] = []
    timeouts = Timeouts(settings.first_word_timeout, settings.llm_timeout)
    if settings.anthropic_api_key:
        providers.append(
            Anthropic(
                api_key=settings.anthropic_api_key,
                base_url=settings.anthropic_base_url,
                max_tokens=settings.claude_max_tokens,
                timeouts=timeouts,
                connections=connections,
            )
        )
    if settings.ollama_host:
        providers.append(
            Ollama(
                connections,
                host=settings.ollama_host,
                timeouts=timeouts,
                num_ctx=settings.ollama_num_ctx,
            )
        )
    if settings.openai_base_url or settings.openai_api_key:
        providers.append(
            OpenAI(
                connections,
                base_url=settings.openai_base_url or DEFAULT_URL,
                api_key=settings.openai_api_key,
                timeouts=timeouts,
            )
        )
    return [*providers, Demo(rate=settings.demo_rate)]


def _offers(provider: str, models: list[ModelInfo], name: str) -> bool:
    """Whether the provider's ``models`` have ``name``."""
    return has(provider, {info.name for info in models}, name)


def _unknown(model: str, there_are: Catalogue) -> ProviderError:
    names = [f"{provider}/{info.name}" for provider, info in there_are.models]
    return ProviderError(
        f"There is no model {model!r}. {near(model, names)}{faults.naming(names)}",
        code="model_not_found",
        transient=False,
    )


def _ambiguous(model: str, owners: list[str]) -> ProviderError:
    names = " or ".join(f"{owner}/{model}" for owner in owners)
    return ProviderError(
        f"{len(owners)} providers offer {model!r}: say {names}.",
        code="model_not_found",
        transient=False,
    )
