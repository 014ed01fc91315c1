"""Ollama, by its own API: lines of JSON, the last one with ``done: true``."""

import asyncio
import base64
import re
from datetime import datetime
from typing import Any

import msgspec

from services.llm_worker.providers import faults, shapes
from services.llm_worker.providers.answer_reader import spoken
from services.llm_worker.providers.base import (
    Ended,
    ModelInfo,
    Prompt,
    PromptMessage,
    ProviderError,
    Write,
)
from services.llm_worker.providers.connections import Connections, whole
from services.llm_worker.providers.num_ctx import ContextSizes
from services.llm_worker.providers.ollama_reader import OllamaReader
from services.llm_worker.providers.silence import Timeouts
from shared.events import ModelDetails
from shared.log import get_logger

log = get_logger()

SHOWN = 8
"""Models that it is asked about at a time."""
SHOWING = 3.0
"""Seconds for all of that; what is not said by then is asked for again with the next list."""
_NUM_CTX = re.compile(r"^num_ctx\s+(\d{1,9})\s*$", re.MULTILINE)


class Ollama:
    """The provider ``ollama``."""

    name = "ollama"

    def __init__(
        self, connections: Connections, *, host: str, timeouts: Timeouts, num_ctx: int
    ) -> None:
        self._connections = connections
        self._sizes = ContextSizes(num_ctx)
        self._host = host
        self._timeouts = timeouts
        self._abilities: dict[tuple[str, str], Abilities] = {}
        """By name and digest: a model that is pulled anew may be able to do more."""

    async def stream(self, prompt: Prompt, write: Write) -> Ended:
        url = f"{self._host}/api/chat"
        answer = self._connections.post(self.name, url, {}, self._body(prompt))
        reader = OllamaReader(self.name, url)
        return await spoken(self, prompt.model, answer, reader, self._timeouts, write)

    def notes(self, prompt: Prompt) -> list[str]:
        able = self._able(prompt.model)
        return self._sizes.notes(prompt, able.context_window, able.num_ctx)

    def takes(self, model: str, media_type: str) -> bool:
        return media_type.startswith("image/")

    async def models(self) -> list[ModelInfo]:
        url = f"{self._host}/api/tags"
        body = await self._connections.get(self.name, url, {})
        found = shapes.rows(body, "models")
        if found is None:
            raise faults.no_list(self.name, url, body)
        listed = [shapes.shaped(row, _Model)[0] for row in found]
        models = [model for model in listed if model.name]
        await self._learn(models)
        offered = [(model, self._abilities.get(model.key, Abilities())) for model in models]
        return [
            ModelInfo(
                name=model.name,
                context_window=able.context_window,
                supports_vision=able.sees,
                supports_tools=able.uses_tools,
                size=model.size,
                modified_at=_time(model.modified_at),
                digest=model.digest or None,
                details=model.as_details(),
            )
            for model, able in offered
            if able.chats and "bert" not in model.family  # those make embeddings
        ]

    async def _learn(self, models: list["_Model"]) -> None:
        """Ask about the models that are not known yet, all of them within a time."""
        present = {model.key for model in models}
        self._abilities = {k: able for k, able in self._abilities.items() if k in present}
        unknown = [model for model in models if model.key not in self._abilities]
        turns = asyncio.Semaphore(SHOWN)

        async def learn(model: _Model) -> None:
            async with turns:
                self._abilities[model.key] = await self._show(model.name)

        learning = [asyncio.create_task(learn(model)) for model in unknown]
        if not learning:
            return
        try:
            _, late = await asyncio.wait(learning, timeout=SHOWING)
        finally:
            for task in learning:
                task.cancel()
        failures = [task for task in learning if task not in late and task.exception()]
        if late or failures:
            why = type(failures[0].exception()).__name__ if failures else "no answer in time"
            log.info("provider.abilities_unknown", models=len(late) + len(failures), error=why)

    def _able(self, model: str) -> "Abilities":
        """What is known of a model so far."""
        names = (model, f"{model}:latest")
        known = (able for (name, _), able in self._abilities.items() if name in names)
        return next(known, Abilities())

    async def _show(self, model: str) -> "Abilities":
        ask = self._connections.post(self.name, f"{self._host}/api/show", {}, {"model": model})
        try:
            async with ask as read_into:
                body = await whole(self.name, read_into)
        except ProviderError as error:
            if error.transient:
                raise
            return Abilities()  # a server without that, or without the model
        try:
            return msgspec.json.decode(body, type=_Shown).abilities()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise faults.garbled(self.name) from error

    async def aclose(self) -> None:
        """Close nothing: the connections belong to the registry."""

    def _body(self, prompt: Prompt) -> dict[str, object]:
        able = self._able(prompt.model)
        num_ctx = self._sizes.size(prompt, able.context_window, able.num_ctx)
        prompt = prompt.as_taken()
        thinks = "thoughts" not in prompt.learnt
        messages = [_message(message, thinks) for message in prompt.messages]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        options: dict[str, object] = {}
        if prompt.temperature is not None:
            options["temperature"] = prompt.temperature
        if prompt.max_tokens is not None:
            options["num_predict"] = prompt.max_tokens
        if num_ctx is not None:
            options["num_ctx"] = num_ctx
        body: dict[str, object] = {
            "model": prompt.model,
            "messages": messages,
            "stream": True,
            "options": options,
        }
        if prompt.schema is not None:
            body["format"] = prompt.schema
        return body


def _message(message: PromptMessage, thinks: bool) -> dict[str, object]:
    fields: dict[str, object] = {"role": message.role, "content": message.content}
    if message.role == "assistant" and message.thoughts is not None and thinks:
        fields["thinking"] = message.thoughts.text
    if message.files:
        fields["images"] = [base64.b64encode(file.data).decode() for file in message.files]
    return fields


def _time(text: str | None) -> datetime | None:
    """A time as Ollama says it; None where it is none, or Go's zero."""
    try:
        time = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None
    return time if time.tzinfo is not None and time.year > 1970 else None


class Abilities(msgspec.Struct, frozen=True):
    """What Ollama says that a model can do."""

    chats: bool = True
    sees: bool = False
    uses_tools: bool = False
    context_window: int | None = None
    num_ctx: int | None = None
    """Tokens of it that the model is made to take by itself."""


class _Shown(msgspec.Struct):
    capabilities: list[str] = []
    """Absent from servers of before May 2025."""
    model_info: dict[str, Any] = {}
    parameters: str | None = None
    """Lines of a name and a value."""

    def abilities(self) -> Abilities:
        family = self.model_info.get("general.architecture")
        window = self.model_info.get(f"{family}.context_length")
        own = _NUM_CTX.search(self.parameters or "")
        return Abilities(
            chats="completion" in self.capabilities or not self.capabilities,
            sees="vision" in self.capabilities,
            uses_tools="tools" in self.capabilities,
            context_window=window if isinstance(window, int) and window > 0 else None,
            num_ctx=int(own[1]) if own else None,
        )


class _Details(msgspec.Struct):
    parent_model: str | None = None
    format: str | None = None
    family: str | None = None
    families: list[str] | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None


class _Model(msgspec.Struct):
    name: str = ""
    size: int = 0
    modified_at: str | None = None
    digest: str = ""
    details: _Details | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.digest

    @property
    def family(self) -> str:
        return (self.details and self.details.family) or ""

    def as_details(self) -> ModelDetails | None:
        if self.details is None:
            return None
        fields = msgspec.structs.asdict(self.details)
        return ModelDetails(**{field: value for field, value in fields.items() if value})
