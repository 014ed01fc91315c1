"""Claude, through Anthropic's SDK: its client makes the call, its answer is read as bytes."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from services.llm_worker.providers import counts, faults, shapes
from services.llm_worker.providers.answer_reader import spoken
from services.llm_worker.providers.anthropic_reader import AnthropicReader
from services.llm_worker.providers.base import (
    Ended,
    ModelInfo,
    Prompt,
    PromptFile,
    PromptMessage,
    ProviderError,
    Write,
)
from services.llm_worker.providers.connections import Connections, unreachable, whole
from services.llm_worker.providers.exchange import ReadInto
from services.llm_worker.providers.silence import Timeouts

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from anthropic import AsyncAnthropic

    _Call = Callable[[AsyncAnthropic], AbstractAsyncContextManager[Any]]

DEFAULT_URL = "https://api.anthropic.com"
MAX_TOKENS = 4096
"""When neither the prompt nor the settings say; the API insists on a number."""
_TAKEN = {"application/pdf", "image/jpeg", "image/png", "image/gif", "image/webp"}


def _sdk() -> Any:
    import anthropic  # noqa: PLC0415  (2 s and 80 MB: only when it is needed)

    return anthropic


def _transport() -> Any:
    from services.llm_worker.providers import anthropic_transport  # noqa: PLC0415  (as above)

    return anthropic_transport


class Anthropic:
    """The provider ``anthropic``."""

    name = "anthropic"

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str | None,
        max_tokens: int | None,
        timeouts: Timeouts,
        connections: Connections,
    ) -> None:
        self._api_key = api_key
        self._base_url = base_url or DEFAULT_URL
        self._connections = connections
        self._max_tokens = max_tokens or MAX_TOKENS
        self._timeouts = timeouts
        self._opened: AsyncAnthropic | None = None
        self._opening = asyncio.Lock()

    async def stream(self, prompt: Prompt, write: Write) -> Ended:
        body = self._body(prompt)
        answer = _Answer(
            self.client,
            lambda client: client.messages.with_streaming_response.create(**body, stream=True),
        )
        reader = AnthropicReader(self.name, f"{self._base_url}/v1/messages")
        return await spoken(self, prompt.model, answer, reader, self._timeouts, write)

    def notes(self, prompt: Prompt) -> list[str]:
        if prompt.temperature is not None:
            return ["Anthropic's API takes no temperature, so it was not sent."]
        return []

    def takes(self, model: str, media_type: str) -> bool:
        return media_type in _TAKEN

    async def models(self) -> list[ModelInfo]:
        answer = _Answer(
            self.client, lambda client: client.models.with_streaming_response.list(limit=1000)
        )
        async with answer as read_into:
            body = await whole(self.name, read_into)
        found = shapes.rows(body, "data")
        if found is None:
            raise faults.no_list(self.name, f"{self._base_url}/v1/models", body)
        models = [shapes.shaped(row, _Model)[0] for row in found]
        return [
            ModelInfo(
                name=model.id,
                display_name=model.display_name,
                context_window=counts.tokens(model.max_input_tokens) or None,
                max_tokens=counts.tokens(model.max_tokens) or None,
                supports_vision=model.sees,
                supports_tools=True,  # the list has no word for it, because all do
                modified_at=model.made_at,
            )
            for model in models
            if model.id and model.lifecycle != "retired"
        ]

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def client(self) -> "AsyncAnthropic":
        """The SDK's client, made at the first use; in a thread, because that takes seconds.

        Raises:
            ProviderError: the settings name certificates that cannot be read.
        """
        async with self._opening:
            if self._opened is None:
                try:
                    self._opened = await asyncio.to_thread(self._open)
                except OSError as error:
                    raise unreachable(self.name, error) from error
        return self._opened

    def _open(self) -> "AsyncAnthropic":
        self._connections.read_certificates()
        return _sdk().AsyncAnthropic(
            api_key=self._api_key,
            base_url=self._base_url,
            max_retries=0,  # the caller owns retries, so that every try is an event
            timeout=None,  # silence.py watches
            http_client=_transport().http_client(self.name, self._connections),
        )

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        prompt = prompt.as_taken()
        thinks = "thoughts" not in prompt.learnt
        body: dict[str, Any] = {
            "model": prompt.model,
            "messages": [{"role": m.role, "content": _content(m, thinks)} for m in prompt.messages],
            "max_tokens": prompt.max_tokens or self._max_tokens,
        }
        if prompt.system:
            body["system"] = prompt.system
        if prompt.schema is not None and (schema := _supported(prompt.schema)):
            body["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        return body


def _content(message: PromptMessage, thinks: bool) -> str | list[dict[str, Any]]:
    """A message's content; what was thought before a reply stands before it, as it was signed."""
    blocks = [_block(file) for file in message.files]
    if message.role == "assistant" and message.thoughts is not None and thinks:
        blocks += message.thoughts.blocks
    if not blocks:
        return message.content
    return [*blocks, {"type": "text", "text": message.content}]


def _block(file: PromptFile) -> dict[str, Any]:
    data = base64.b64encode(file.data).decode()
    source = {"type": "base64", "media_type": file.media_type, "data": data}
    if file.media_type.startswith("image/"):
        return {"type": "image", "source": source}
    return {"type": "document", "source": source, "title": file.name}


def _supported(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema without what the API refuses; None where nothing is left to send.

    The prompt has told all of it, and the answer is checked.
    """
    try:
        return _sdk().transform_schema(schema)
    except (ValueError, TypeError):
        return None


class _Answer:
    """The answer to one call of the SDK's; leaving it early closes its connection at once.

    Raises:
        ProviderError: no answer, none of success, or the connection broke.
    """

    def __init__(self, client: "Callable[[], Awaitable[AsyncAnthropic]]", call: "_Call") -> None:
        self._client = client
        self._call = call
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> ReadInto:
        client = await self._client()
        try:
            response = await self._exit.enter_async_context(self._call(client))
        except _sdk().APIError as error:
            cause = error.__cause__ or error
            if isinstance(cause, ProviderError):  # of our transport
                raise cause from None
            raise unreachable(Anthropic.name, error) from error
        return _transport().exchange_of(response.http_response).read_into

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exit.aclose()
        if isinstance(error, aiohttp.ClientError | OSError):
            raise faults.broken_off(Anthropic.name) from error


class _Vision(msgspec.Struct):
    supported: bool = False


class _Capabilities(msgspec.Struct):
    image_input: _Vision | None = None


class _Model(msgspec.Struct):
    id: str = ""
    display_name: str | None = None
    created_at: datetime | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    lifecycle: str | None = None
    capabilities: _Capabilities | None = None

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures; lists without capabilities are of models that do."""
        vision = self.capabilities.image_input if self.capabilities is not None else None
        return vision is None or vision.supported

    @property
    def made_at(self) -> datetime | None:
        """When it came; None where that is no time, or the one before all."""
        made = self.created_at
        return made if made is not None and made.tzinfo is not None and made.year > 1970 else None
