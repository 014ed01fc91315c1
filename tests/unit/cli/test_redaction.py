"""Redaction: no word is left, and everything that a fault may depend on is."""

import hashlib
from datetime import UTC, datetime
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.log_files.redaction import KEPT, OWN_TEXTS, redacted, redacted_text
from shared import events
from shared.events import AnyFact, FactImported, decode_fact, encode
from tests.support.scripted_log import ScriptedLog
from tests.unit.cli.samples import FILE, PLAN, RUN, restarted

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
KINDS = [kind for kind in get_args(AnyFact) if kind is not FactImported]
SECRET = "Zanzibar Kumquat"


@given(texts)
def test_lengths_bytes_lines_and_spaces_stay(text: str):
    hidden = redacted_text(text)

    assert len(hidden) == len(text)
    assert len(hidden.encode()) == len(text.encode())
    assert len(hidden.encode("utf-16")) == len(text.encode("utf-16"))
    assert [c for c in hidden if c.isspace()] == [c for c in text if c.isspace()]
    assert [len(line) for line in hidden.split("\n")] == [len(line) for line in text.split("\n")]


@given(texts)
def test_redacting_twice_is_redacting_once(text: str):
    assert redacted_text(redacted_text(text)) == redacted_text(text)


@given(texts, st.integers(0, 200))
def test_the_beginning_of_a_text_is_the_beginning_of_the_redacted_one(text: str, end: int):
    assert redacted_text(text[:end]) == redacted_text(text)[:end]


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=8, max_size=8))
def test_a_letter_says_nothing_but_its_place(word: str):
    assert redacted_text(word) == redacted_text("aaaaaaaa")


def test_the_shape_of_markdown_stays():
    shown = redacted_text("# Tea\n\n- **hot**: `boil()`, 2 cups\n\n```\nx = 1\n```")

    assert shown == redacted_text("# Xxx\n\n- **xxx**: `xxxx()`, 0 xxxx\n\n```\nx = 0\n```")
    assert [c for c in shown if not c.isalnum()] == list("# \n\n- ****: `()`,  \n\n```\n = \n```")


# -- facts --------------------------------------------------------------------------------


def filled(kind: Any, name: str = "") -> Any:
    """A value of any type of the events, with a secret wherever a text can be."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind, include_extras=True)
        fields = {f: filled(hints[f], f) for f in kind.__struct_fields__}
        return kind(**fields)
    if kind is str:
        return SECRET
    if kind is datetime:
        return datetime(2026, 11, 26, tzinfo=UTC)
    if kind is Any:
        return SECRET
    return filled_generic(kind, name)


def filled_generic(kind: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return [filled(arguments[0], name)]
    if origin is dict:
        return {"key": filled(arguments[1], name)}
    if origin is tuple:
        return tuple(filled(each, name) for each in arguments)
    if origin is not None and str(origin).endswith("Literal"):
        return arguments[0]
    if arguments and str(kind).startswith("typing.Annotated"):
        return filled(arguments[0], name)
    if arguments:  # a union: what holds most
        chosen = [a for a in arguments if a not in (type(None), msgspec.UnsetType)]
        return filled(chosen[0], name)
    return kind()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_text_of_a_fact_is_redacted_that_is_not_known_to_be_no_word(kind: Any):
    fact = filled(kind)

    data = encode(redacted(fact))

    left = named_with(SECRET, msgspec.json.decode(data))
    kept = {field for fields in KEPT.values() for field in fields}
    assert left - kept == set()


def named_with(secret: str, value: Any, name: str = "") -> set[str]:
    """The fields in which the secret, or a part of it, still stands."""
    if isinstance(value, dict):
        return {n for key, each in value.items() for n in named_with(secret, each, key)}
    if isinstance(value, list):
        return {n for each in value for n in named_with(secret, each, name)}
    parts = secret.lower().split()
    return {name} if isinstance(value, str) and any(w in value.lower() for w in parts) else set()


def test_what_is_kept_is_a_field_of_its_struct():
    for kind, fields in KEPT.items():
        assert fields <= set(kind.__struct_fields__), kind


def test_nobodys_words_are_among_what_is_always_kept():
    for fields in KEPT.values():
        assert not fields & {"content", "text", "title", "system_prompt", "message", "prompt"}
    assert all(len(text) < 40 for text in OWN_TEXTS)


def test_a_redacted_reply_can_be_verified_and_its_lost_text_is_still_its_beginning():
    facts = [redacted(fact.fact) for fact in restarted().entries]

    claim, final = facts[3], facts[4]
    assert isinstance(claim, events.RunClaimed)
    assert isinstance(final, events.RunEnded)
    assert claim.previous is not None
    assert final.text.startswith(claim.previous.text)
    assert final.sha256 == hashlib.sha256(final.text.encode()).hexdigest()
    assert (final.length, final.timeline) == (15, [(20, 3), (120, 6), (2620, 8), (2990, 15)])


def test_digests_that_would_tell_what_was_said_are_gone():
    log = ScriptedLog()
    log.hands_to_processor(RUN, PLAN)

    fact = redacted(log.entries[0].fact)

    assert isinstance(fact, events.TodoProcess)
    assert isinstance(fact.plan, events.DocumentPlan)
    assert fact.plan.file == msgspec.structs.replace(
        FILE, name=redacted_text(FILE.name), sha256="0" * 64
    )


@pytest.mark.parametrize("number", range(5))
def test_a_redacted_fact_is_a_fact(number: int):
    fact = redacted(restarted().entries[number].fact)

    assert decode_fact(encode(fact)) == fact


def test_thoughts_and_what_providers_said_are_somebodys_words():
    thoughts = events.Thoughts(text=SECRET, blocks=[{"thinking": SECRET, "signature": "c2ln"}])
    failed = events.Try(ms=5, code="overloaded", message=SECRET, status=529, cost=7)
    log = ScriptedLog()
    log.ends(RUN, "Hi", attempt=0, thoughts=thoughts, tries=[failed], stop_reason="max_length")

    fact = redacted(log.entries[0].fact)

    assert isinstance(fact, events.RunEnded)
    assert fact.thoughts == events.Thoughts(text=redacted_text(SECRET))
    assert fact.tries == [msgspec.structs.replace(failed, message=redacted_text(SECRET))]
    assert fact.stop_reason == "max_length"
