"""Every event as JSON and back."""

from typing import Any, get_args

import msgspec
import pytest

from shared import events
from shared.events import (
    AnyFact,
    AnyTokenEvent,
    BranchChosen,
    CancelRequested,
    Delta,
    Fact,
    FactImported,
    Fault,
    History,
    MessageRated,
    ModelDetails,
    ModelPreferred,
    ModelsSynced,
    OfferedModel,
    PastMessage,
    PresetCreated,
    PresetDeleted,
    PresetUpdated,
    PreviousAttempt,
    Progress,
    PromptSource,
    RunClaimed,
    RunEnded,
    RunScheduled,
    RunWaiting,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    TokenCreated,
    TokenRevoked,
    Turn,
    Usage,
    UserCreated,
    UserDisabled,
    UserEnabled,
    decode_fact,
    decode_token_event,
    encode,
    inside,
)
from shared.ids import now
from shared.subjects import Address, fact_kind
from tests.support.plans import a_document, a_file, a_pipeline, a_result, an_ask

COMMON: dict[str, Any] = {"at": now(), "prev": 41, "nonce": "n"}
TURN = Turn(
    user_message_id="u",
    assistant_message_id="a",
    content="Grüße, 🌍!",
    parent_id="p",
    attachments=["f"],
    model="demo",
    temperature=0.5,
    max_tokens=7,
    client_id="c",
    idempotency_key="k",
    idempotency_digest="d",
)
FACTS: list[Fact] = [
    SessionCreated(
        **COMMON,
        title="T",
        mode="general",
        model=None,
        temperature=0.7,
        max_tokens=1024,
        system_prompt="Be brief.",
        context_tags=["x"],
        on_busy="queue",
    ),
    SessionCreated(
        **COMMON,
        title=None,
        mode="general",
        model=None,
        temperature=None,
        max_tokens=None,
        system_prompt=None,
        context_tags=[],
        on_busy="queue",
        history=History(
            messages=[
                PastMessage(
                    id="m",
                    parent_id=None,
                    role="user",
                    content="Before.",
                    created_at=now(),
                    attachments=["f"],
                    feedback={"rating": "up"},
                )
            ],
            leaf="m",
        ),
    ),
    SessionUpdated(**COMMON, title=None, status="inactive"),
    BranchChosen(**COMMON, leaf="m"),
    MessageRated(**COMMON, message_id="m", rating="down", comment="Too long."),
    SessionDeleted(**COMMON, mode="adhoc"),
    RunWaiting(**COMMON, turn=TURN),
    TodoChat(**COMMON, n=0, turn=TURN),
    RunScheduled(**COMMON, plan=a_document(), priority=3, due=now()),
    TodoProcess(**COMMON, n=0, priority=3, step="extract", plan=a_document()),
    TodoGenerate(
        **COMMON,
        n=2,
        priority=9,
        ask=an_ask(files=[a_file()], schema={"type": "object"}, misses=1, spent=Usage()),
        plan=a_pipeline("one", "two"),
        results=[a_result("one", notes=["Cut."], images=[a_file()], usage=Usage())],
        last=True,
    ),
    RunClaimed(
        **COMMON,
        worker="w",
        todo=41,
        prompt=PromptSource(
            provider="demo",
            model="demo",
            system=None,
            message_ids=["u"],
            temperature=None,
            max_tokens=None,
            notes=["No temperature."],
        ),
        previous=PreviousAttempt(attempt=40, text="Half", reason="lost", timeline=[(1, 4)]),
        failures=1,
    ),
    CancelRequested(**COMMON),
    RunEnded(
        **COMMON,
        status="failed",
        attempt=42,
        text="Half",
        length=4,
        sha256="s",
        model="demo",
        provider="demo",
        stop_reason="end_turn",
        usage=Usage(input_tokens=1, output_tokens=2),
        error=Fault(code="timeout", message="Too slow.", retryable=True),
        latency_ms=5,
        first_delta_ms=1,
        timeline=[(1, 2), (3, 4)],
    ),
    PresetCreated(
        **COMMON,
        preset_id="p",
        name="Editor",
        description="Shortens",
        system_prompt="Be strict.",
        model="demo",
        temperature=0.2,
        max_tokens=800,
        is_public=True,
    ),
    PresetUpdated(**COMMON, preset_id="p", temperature=None),
    PresetDeleted(**COMMON, preset_id="p"),
    ModelPreferred(**COMMON, model="demo/demo"),
    ModelsSynced(
        **COMMON,
        models=[
            OfferedModel(
                provider="ollama",
                name="llama",
                size=5,
                modified_at=now(),
                details=ModelDetails(family="llama", families=["llama"]),
            )
        ],
        removed=["demo/demo"],
        default="ollama/llama",
    ),
    UserCreated(**COMMON, name="alice"),
    UserDisabled(**COMMON),
    UserEnabled(**COMMON),
    TokenCreated(**COMMON, token_id="t", sha256="s", label="laptop", expires_at=now()),
    TokenRevoked(**COMMON, token_id="t"),
    FactImported(
        **COMMON,
        what="cancel",
        fact=msgspec.Raw(b'{"type":"cancel","at":"2026-11-20T09:32:00Z"}'),
        file="f",
        position=1,
        of=3,
        origin=7,
    ),
]
TOKEN_EVENTS: list[Delta | Progress] = [Delta(42, 3, "🌍"), Progress(42, "extract", 0.25)]


def tags(family: Any) -> list[str]:
    return sorted(str(kind.__struct_config__.tag) for kind in get_args(family))


def test_these_are_all_the_events_there_are():
    assert sorted({str(type(fact).__struct_config__.tag) for fact in FACTS}) == tags(AnyFact)
    assert sorted(str(type(event).__struct_config__.tag) for event in TOKEN_EVENTS) == tags(
        AnyTokenEvent
    )


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_a_facts_subject_ends_in_its_wire_tag_and_a_todos_numbers(fact: AnyFact):
    kind = fact_kind(Address("u", "s", "r").subject_of(fact))

    numbers = [str(n) for name in ("priority", "n") if (n := getattr(fact, name, None)) is not None]
    wanted = numbers if "todo" in kind else []
    assert kind == ".".join([msgspec.json.decode(encode(fact))["type"], *wanted])


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_a_fact_is_read_as_it_was_written(fact: Fact):
    data = encode(fact)

    assert decode_fact(data) == fact
    assert msgspec.json.decode(data)["type"] == type(fact).__struct_config__.tag


def test_what_was_imported_is_told_by_what_is_inside():
    inner = CancelRequested(**COMMON)
    outer = FactImported(
        **COMMON,
        what="cancel",
        fact=msgspec.Raw(encode(inner)),
        file="f",
        position=0,
        of=1,
        origin=7,
    )

    assert inside(outer) == inner
    assert inside(inner) is inner


@pytest.mark.parametrize("token_event", TOKEN_EVENTS, ids=lambda event: type(event).__name__)
def test_a_tick_is_read_as_it_was_written(token_event: Delta | Progress):
    assert decode_token_event(encode(token_event)) == token_event


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_a_field_of_a_newer_version_is_ignored(fact: Fact):
    fields = msgspec.json.decode(encode(fact)) | {"from_the_future": {"x": 1}}

    assert decode_fact(msgspec.json.encode(fields)) == fact


def test_a_field_that_was_not_changed_is_not_on_the_wire():
    fields = msgspec.json.decode(encode(SessionUpdated(**COMMON, title=None)))

    assert sorted(fields) == ["at", "nonce", "prev", "title", "type"]


@pytest.mark.parametrize(
    "data",
    [
        b'{"type": "from.the.future", "at": "2026-01-01T00:00:00Z"}',
        b'{"at": "2026-01-01T00:00:00Z"}',
        b'{"type": "cancel"}',
        b'{"type": "cancel", "at": "yesterday"}',
        b'{"type": "todo.chat", "at": "2026-01-01T00:00:00Z", "n": "0"}',
        b'{"type": "session.updated", "at": "2026-01-01T00:00:00Z", "max_tokens": 1'
        + b"0" * 19
        + b"}",
        b"[]",
    ],
)
def test_what_is_no_fact_is_refused(data: bytes):
    with pytest.raises(msgspec.ValidationError):
        decode_fact(data)


def test_a_fact_is_no_tick():
    with pytest.raises(msgspec.ValidationError):
        decode_token_event(encode(CancelRequested(**COMMON)))


@pytest.mark.parametrize("kind", [*get_args(AnyFact), *get_args(AnyTokenEvent)])
def test_every_event_says_in_a_sentence_who_tells_whom(kind: type):
    first_line = (kind.__doc__ or "").partition("\n")[0]

    assert first_line.endswith(("store", "gateway", "llm_worker", "processor"))
    assert "→" in first_line
    assert kind.__module__ == events.__name__
