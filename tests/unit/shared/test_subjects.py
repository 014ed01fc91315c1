"""Subjects are spelled in one place, and what is derived from them fits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import CancelRequested
from shared.subjects import (
    CHAT_TODOS,
    EVERY_FACT,
    LIVE_FACTS,
    OUTSIDE_SESSIONS,
    Address,
    Scope,
    chain_filter,
    fact_kind,
    generate_todos,
    live_facts,
    live_facts_of_user,
    live_tokens_of_session,
    parse,
    process_todos,
    session_address,
    user_address,
)
from tests.support.memory_nats import matches

tokens = st.uuids().map(str)
addresses = st.builds(Address, tokens, tokens, tokens)
timed_events = st.sampled_from(["waiting", "claim", "cancel", "final", "todo.chat.0"])


@given(addresses, timed_events)
def test_a_facts_subject_says_whose_it_is_and_what_happened(address: Address, happened: str):
    subject = address.fact(happened)

    assert (parse(subject), fact_kind(subject)) == (address, happened)
    assert (parse(f"live.{subject}"), fact_kind(f"live.{subject}")) == (address, happened)
    assert parse(address.tokens) == parse(f"live.{address.tokens}") == address


@pytest.mark.parametrize("old", ["created", "updated", "branch", "deleted"])
def test_subjects_of_before_say_the_same(old: str):
    assert fact_kind(f"evt.u.s._.{old}") == fact_kind(f"evt.u.s._.session.{old}")
    assert fact_kind(f"live.evt.u.s._.{old}") == f"session.{old}"


def test_what_somebody_else_wrote_has_no_kind():
    assert fact_kind("evt.a.b.c") == fact_kind("live.evt.a.b.c") == ""


@given(addresses, timed_events, st.sampled_from(Scope))
def test_a_chains_filter_covers_the_subject_that_it_was_derived_from(
    address: Address, happened: str, scope: Scope
):
    subject = address.fact(happened)

    assert matches(chain_filter(subject, scope), subject)
    assert chain_filter(address.tokens, scope) == address.tokens


@given(addresses, addresses, timed_events)
def test_a_run_chain_covers_its_own_run_alone(one: Address, other: Address, happened: str):
    sibling = one._replace(run=other.run)
    own = chain_filter(one.fact(happened), Scope.RUN)

    assert own == one.facts
    assert not matches(own, sibling.fact(happened))
    assert not matches(own, other.fact(happened))


@given(addresses, addresses, timed_events)
def test_a_session_chain_covers_the_session_and_all_its_runs(
    one: Address, other: Address, happened: str
):
    sibling = one._replace(run=other.run)
    session = session_address(one.user, one.session)
    whole = chain_filter(one.fact(happened), Scope.SESSION)

    assert whole == chain_filter(session.fact("session.updated"), Scope.RUN) == one.session_facts
    assert matches(whole, sibling.fact(happened))
    assert matches(whole, session.fact("session.updated"))
    assert not matches(whole, other.fact(happened))


@given(addresses, st.integers(0, 9), st.integers(0, 99))
def test_todos_reach_the_consumer_of_their_kind(address: Address, priority: int, n: int):
    todos = {
        CHAT_TODOS: address.todo_chat(n),
        process_todos(priority): address.todo_process(priority, n),
        generate_todos(priority): address.todo_generate(priority, n),
    }

    for mine, todo in todos.items():
        assert [subject for subject in todos.values() if matches(mine, subject)] == [todo]
    assert all(matches(EVERY_FACT, subject) for subject in todos.values())


@given(addresses, st.integers(0, 9), st.integers(0, 9))
def test_todos_reach_the_consumer_of_their_priority(address: Address, one: int, other: int):
    assert matches(process_todos(one), address.todo_process(other, 0)) == (one == other)
    assert matches(generate_todos(one), address.todo_generate(other, 1)) == (one == other)


@given(addresses, addresses)
def test_a_schedule_is_no_fact_and_belongs_to_its_session(one: Address, other: Address):
    assert matches(one.session_schedules, one.schedule)
    assert not matches(other.session_schedules, one.schedule)
    assert not matches(EVERY_FACT, one.schedule)


@given(addresses, addresses)
def test_what_is_listened_to_live_is_ones_own(one: Address, other: Address):
    fact, tokens = f"live.{one.fact('cancel')}", f"live.{one.tokens}"

    assert matches(LIVE_FACTS, fact)
    assert matches(live_facts(CancelRequested), fact)
    assert matches(live_facts_of_user(one.user), fact)
    assert matches(live_tokens_of_session(one.user, one.session), tokens)
    assert matches(f"live.{one.session_tokens}", tokens)
    assert not matches(live_facts_of_user(other.user), fact)
    assert not matches(live_tokens_of_session(other.user, other.session), tokens)


@given(addresses, addresses, st.sampled_from(["user.created", "token.revoked"]))
def test_a_kinds_chain_covers_all_users_and_no_other_kind(
    one: Address, other: Address, happened: str
):
    chain = chain_filter(user_address(one.user).fact(happened), Scope.EVERYBODY)

    assert matches(chain, user_address(other.user).fact(happened))
    assert matches(f"live.{OUTSIDE_SESSIONS}", f"live.{user_address(other.user).fact(happened)}")
    assert not matches(chain, user_address(one.user).fact("preset.created"))
    assert not matches(chain, one.fact(happened))


def test_a_record_outside_the_log_is_a_chain_of_its_own():
    assert chain_filter("$KV.BREAKERS.demo", Scope.RUN) == "$KV.BREAKERS.demo"


@pytest.mark.parametrize("subject", ["", "evt", "evt.u.s", "cmd.store.get_run", "sched.u.s.r"])
def test_what_is_no_facts_subject_has_no_address(subject: str):
    with pytest.raises(ValueError, match="not a fact's or delta's subject"):
        parse(subject)
