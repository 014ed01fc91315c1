"""Every subject of the bus and what goes over it, for ``/api/asyncapi.json``.

Events and requests are listed from the code; what differs in a subject stands in
braces, ``evt.{user}.{session}.{run}.claim``.
"""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from services.gateway.http.json_schema import Schema, plain
from services.gateway.sessions.typing_signals import Typing
from shared import commands, events, subjects
from shared.consumer import DeadLetter
from shared.requests import BusRequest
from shared.subjects import Address

USER, SESSION, RUN = "{user}", "{session}", "{run}"
_HERE = Address(USER, SESSION, RUN)
_NUMBERED: dict[Any, str] = {
    events.TodoChat: "todo.chat.{n}",
    events.TodoProcess: "todo.process.{priority}.{n}",
    events.TodoGenerate: "todo.generate.{priority}.{n}",
}


class Plain(NamedTuple):
    """A message that is no struct of ours."""

    name: str
    meaning: str
    schema: Schema
    content_type: str = "application/json"


class Subject(NamedTuple):
    """A subject, and what goes over it."""

    name: str
    address: str
    tag: str
    meaning: str
    payloads: tuple[Any, ...]
    action: Literal["send", "receive"] = "send"
    answer: Any = None
    """What is answered to its requests, if they are any."""


def every_subject() -> Iterator[Subject]:
    """Every subject of the bus, in the order in which ``shared`` has them."""
    yield from _facts()
    yield from _token_events()
    yield from _requests()
    yield from _signals()


def _facts() -> Iterator[Subject]:
    for fact in get_args(events.AnyFact):
        sentence, _, way = fact.__doc__.partition("\n")[0].rpartition(".  ")
        meaning = f"{sentence}.\n\nFrom {way}; published again under `live.` once it is stored."
        yield Subject(f"fact.{_tag(fact)}", _address_of(fact), "facts", meaning, (fact,))
    yield Subject(
        "fact.due",
        _HERE.schedule,
        "facts",
        "A job's first todo, which the server itself appends when it is due.",
        (events.TodoProcess,),
    )


def _address_of(fact: Any) -> str:
    if fact in get_args(events.SessionFact):
        return subjects.session_address(USER, SESSION).fact(_tag(fact))
    if fact is events.ModelsSynced:
        return subjects.EVERYBODY.fact(_tag(fact))
    if fact in get_args(events.LibraryFact):
        return subjects.user_address(USER).fact(_tag(fact))
    return _HERE.fact(_NUMBERED.get(fact, _tag(fact)))


def _token_events() -> Iterator[Subject]:
    meaning = "What a running attempt says.\n\nPublished again under `live.` once it is stored."
    yield Subject("attempt", _HERE.tokens, "deltas", meaning, get_args(events.AnyTokenEvent))


def _requests() -> Iterator[Subject]:
    for request in _kinds_of_request():
        yield Subject(
            f"request.{request.name}",
            subjects.store_command(request.name),
            "requests",
            plain(request.__doc__ or ""),
            (request,),
            action="receive",
            answer=request.answer,
        )


def _kinds_of_request() -> Iterator[Any]:
    """Every kind that has a subject; the others are families of them."""
    for kind in vars(commands).values():
        if isinstance(kind, type) and "name" in vars(kind) and issubclass(kind, BusRequest):
            yield kind


def _signals() -> Iterator[Subject]:
    text: Schema = {"type": "string"}
    yield Subject(
        "signal.typing",
        subjects.typing(USER, SESSION),
        "signals",
        "Somebody is typing: told to the session's other sockets, on every gateway.",
        (Typing,),
    )
    yield Subject(
        "signal.holds",
        subjects.owns("{worker}"),
        "signals",
        "Whether a worker is writing a run right now.",
        (Plain("signal.run", "The run's id.", text, "text/plain"),),
        action="receive",
        answer=Plain("signal.held", "`1` or `0`.", {"enum": ["1", "0"]}, "text/plain"),
    )
    yield Subject(
        "dead",
        subjects.dead_letters("{consumer}"),
        "signals",
        "Facts that a consumer could not handle, kept for 30 days.",
        (DeadLetter,),
    )
    yield Subject(
        "breaker",
        subjects.breaker("{circuit}"),
        "signals",
        "The state of a circuit breaker, the last one kept: of a provider, by its name; of a "
        "model, by the provider's and, after a dot, a digest of its own.",
        (Plain("breaker.record", "What the workers know of a circuit.", {"type": "object"}),),
    )


def _tag(event: Any) -> str:
    config: msgspec.structs.StructConfig = event.__struct_config__
    return str(config.tag)
