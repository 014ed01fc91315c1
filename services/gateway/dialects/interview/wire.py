"""The wire of the interview front ends, which are Ollama's (docs/api.md)."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.gateway.access.limits import NonBlank
from services.gateway.http.oneshot import Prompt
from services.gateway.models import bare_names
from services.gateway.sessions.client_events import ReplyEnded
from shared.errors import NatterlogError
from shared.events import ModelDetails, RunEnded
from shared.ids import now
from shared.records import Model
from shared.run_state import stop_reason
from shared.settings import Settings

GENERATE = "/api/generate"
MODELS = "/api/models"
TEMPERATURE = 0.7

encode = msgspec.json.Encoder().encode


# -- what clients send ----------------------------------------------------------


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Ollama's options; others than these are accepted, and noted as not honoured."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    num_predict: Annotated[int, Meta(ge=-2, le=2**31 - 1)] | None = None
    """The longest reply in tokens; zero or less: no limit of the call's own."""


class Generate(msgspec.Struct, frozen=True, kw_only=True):
    prompt: NonBlank
    model: Annotated[str, Meta(max_length=300)] | None = None
    """As the lists name it; without one: the session's, else the default."""
    stream: bool | None = True
    options: Options | None = None
    system: str | None = None
    """In a session: instead of its system prompt, for this reply alone."""
    session_id: str | None = None
    """The prompt is the session's next message, and its conversation the context."""


class _Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The names of all options, and what else Ollama's own API takes."""

    options: dict[str, Any] | None = None
    images: Any = None
    format: Any = None
    suffix: Any = None
    template: Any = None
    context: Any = None
    raw: Any = None
    think: Any = None


class Wish(msgspec.Struct, frozen=True):
    """A body, and what of it is not honoured."""

    body: Generate
    notes: list[str]


_decode_generate = msgspec.json.Decoder(Generate).decode
_decode_wishes = msgspec.json.Decoder(_Wishes).decode

_OTHER_OPTIONS = frozenset(
    (
        *("num_keep", "seed", "top_k", "top_p", "min_p", "tfs_z", "typical_p", "stop"),
        *("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty"),
        *("mirostat", "mirostat_tau", "mirostat_eta", "penalize_newline", "num_ctx"),
        *("num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all"),
        *("vocab_only", "use_mmap", "use_mlock", "num_thread", "numa", "embedding_only"),
    )
)


def decode_generate(data: bytes) -> Wish:
    """The body, with a note on what in it is not honoured.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: it does not fit.
    """
    body, wishes = _decode_generate(data), _decode_wishes(data)
    options = set(wishes.options or ()) - set(Options.__struct_fields__)
    fields = [f for f in wishes.__struct_fields__ if f != "options" and getattr(wishes, f)]
    ignored = [*fields, *sorted(options & _OTHER_OPTIONS)]
    if options - _OTHER_OPTIONS:
        ignored.append("options that nobody knows")
    return Wish(body, [f"Not honoured in this dialect: {', '.join(ignored)}."] if ignored else [])


def prompt_of(wish: Wish, settings: Settings, idempotency_key: str | None) -> Prompt:
    """What is to be answered; what is not given is the session's, the settings', the dialect's."""
    body, options = wish.body, wish.body.options or Options()
    temperature, max_tokens = options.temperature, max(options.num_predict or 0, 0) or None
    if body.session_id is None:
        if temperature is None:
            temperature = settings.llm_temperature
        if temperature is None:
            temperature = TEMPERATURE
        if options.num_predict is None:
            max_tokens = settings.llm_max_tokens
    return Prompt(
        content=body.prompt,
        session_id=body.session_id,
        model=body.model or None,
        temperature=temperature,
        max_tokens=max_tokens,
        system=body.system,
        notes=wish.notes,
        idempotency_key=idempotency_key if body.session_id is not None else None,
    )


# -- what clients are sent --------------------------------------------------------


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What is new of the reply."""

    model: str
    created_at: datetime
    response: str
    done: bool = False


class Last(msgspec.Struct, frozen=True, kw_only=True):
    """The end of the reply, or all of it; durations are nanoseconds."""

    model: str
    created_at: datetime
    response: str
    done: bool = True
    done_reason: str
    total_duration: int
    """From the acceptance to the end."""
    load_duration: int
    """Until a worker had claimed it: other runs of the session, lost attempts."""
    prompt_eval_count: int
    prompt_eval_duration: int
    """From there to the first words."""
    eval_count: int
    eval_duration: int
    """From the first words to the end."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    error: str
    code: str


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A stream ends without the rest of its reply."""

    error: str
    code: str
    done: bool = True


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    modified_at: datetime
    size: int
    """Bytes; 0 for a hosted model."""
    digest: str
    details: ModelDetails


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    models: list[ModelView]


class SseLines:
    """A reply as server-sent events without names."""

    content_type = "text/event-stream; charset=utf-8"
    comment = b":\n\n"

    def __init__(
        self, model: str, accepted_at: datetime, clock: Callable[[], datetime] = now
    ) -> None:
        self._model = model
        self._accepted_at = accepted_at
        self._clock = clock

    def text(self, piece: str) -> bytes:
        return _line(Piece(model=self._model, created_at=self._clock(), response=piece))

    def end(self, reply: ReplyEnded) -> bytes:
        return _line(last(self._model, self._accepted_at, reply.final, response=""))

    def failure(self, error: NatterlogError) -> bytes:
        return _line(Broken(error=error.message, code=error.code))


def last(model: str, accepted_at: datetime, final: RunEnded, *, response: str) -> Last:
    """The end of a reply with what is known of its making."""
    usage, latency = final.usage, final.latency_ms or 0
    first = latency if final.first_delta_ms is None else min(final.first_delta_ms, latency)
    total = max(round((final.at - accepted_at).total_seconds() * 1000), latency)
    read = 0
    if usage is not None:
        cached = usage.cache_creation_input_tokens + usage.cache_read_input_tokens
        read = usage.input_tokens + cached
    return Last(
        model=model,
        created_at=final.at,
        response=response,
        done_reason="length" if stop_reason(final.status, final.stop_reason) in _CUT else "stop",
        total_duration=_nanoseconds(total),
        load_duration=_nanoseconds(total - latency),
        prompt_eval_count=read,
        prompt_eval_duration=_nanoseconds(first),
        eval_count=usage.output_tokens if usage is not None else 0,
        eval_duration=_nanoseconds(latency - first),
    )


_CUT = ("max_tokens", "max_length")


def model_list(models: list[Model]) -> ModelList:
    """The models on offer."""
    names = bare_names(models)
    views = [
        ModelView(
            name=names[model.id],
            modified_at=model.modified_at,
            size=model.size,
            digest=model.digest or "",
            details=model.details or ModelDetails(),
        )
        for model in models
    ]
    return ModelList(models=views)


def failure(error: NatterlogError) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of the answer for ``error``."""
    body = Failure(error=error.located, code=error.code)
    return encode(body), {"Content-Type": "application/json"}


def _line(body: Piece | Last | Broken) -> bytes:
    return b"data: %b\n\n" % encode(body)


def _nanoseconds(milliseconds: int) -> int:
    return milliseconds * 1_000_000
