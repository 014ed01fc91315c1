"""What each fact does to the rows."""

import random

import pytest
import sqlalchemy as sa

from services.store import queries
from services.store.applying import apply, clear, read_applied
from services.store.branches import branch_of
from services.store.past import history_of
from services.store.rows import RunRow, SessionRow
from services.store.schema import messages, runs, sessions, usage_log
from shared import ids
from shared.commands import GetSession, ListMessages
from shared.events import EndStatus, SessionCreated, Thoughts
from shared.records import Message
from shared.subjects import session_address
from tests.support.plans import a_document
from tests.support.scripted_log import START, USER
from tests.unit.store.story import Story, dump, tables


def branch(story: Story) -> list[Message]:
    request = ListMessages(user_id=USER, session_id=story.session)
    return queries.list_messages(story.connection, request).items


def shown(story: Story) -> list[tuple[str, str]]:
    return [(m.content, m.status) for m in branch(story)]


def session_of(story: Story) -> SessionRow:
    return queries.find_session(story.connection, USER, story.session)


def run_of(story: Story, run: str) -> RunRow:
    return queries.find_run(story.connection, USER, run)


def count(story: Story) -> int:
    request = GetSession(user_id=USER, session_id=story.session)
    return queries.get_session(story.connection, request).session.message_count


def test_a_session_is_as_it_was_created(story: Story):
    session = session_of(story).record()

    assert session.id == story.session
    assert session.user_id == USER
    assert (session.mode, session.status, session.on_busy) == ("general", "active", "queue")
    assert (session.model, session.temperature, session.max_tokens) == ("demo", 0.7, 1024)
    assert (session.system_prompt, session.context_tags) == ("Be brief.", ["tea"])
    assert session.created_at == session.updated_at == START
    assert (session.last_message_at, session.message_count) == (None, 0)


def test_an_update_changes_only_the_fields_it_names(story: Story):
    story.updates(title="Cooking", temperature=None, status="inactive")

    session = session_of(story)
    assert (session.title, session.temperature, session.status) == ("Cooking", None, "inactive")
    assert (session.model, session.system_prompt) == ("demo", "Be brief.")
    assert session.last_seq == 2


def test_a_turn_is_shown_from_its_acceptance_to_its_reply(story: Story):
    run = story.sends("Hi")
    accepted = shown(story)
    attempt = story.claims(run)
    running = run_of(story, run).record()
    story.ends(run, "Hello!", attempt=attempt)

    assert accepted == [("Hi", "completed")]
    assert (running.status, running.attempt) == ("running", attempt)
    assert shown(story) == [("Hi", "completed"), ("Hello!", "completed")]
    question, answer = branch(story)
    assert (question.id, question.parent_id) == (story.question(run), None)
    assert (answer.id, answer.parent_id) == (story.answer(run), question.id)
    assert (answer.tokens, answer.latency_ms, answer.model, answer.run_id) == (5, 120, "demo", run)
    ended = run_of(story, run).record()
    assert (ended.status, ended.length, ended.attempt) == ("completed", 6, attempt)
    assert (ended.first_seq, ended.last_seq) == (2, 4)
    assert session_of(story).last_message_at == answer.created_at


def test_branches_grow_from_the_reply_before(story: Story):
    first = story.replies("u1", "a1")
    story.replies("u2", "a2", parent=story.answer(first))

    assert [m.content for m in branch(story)] == ["u1", "a1", "u2", "a2"]
    assert count(story) == 4


def test_a_waiting_message_is_shown_at_the_end_and_parentless(story: Story):
    active = story.sends("u1")
    first, second = story.sends("u2", waiting=True), story.sends("u3", waiting=True)

    assert shown(story) == [("u1", "completed"), ("u2", "waiting"), ("u3", "waiting")]
    assert [m.parent_id for m in branch(story)] == [None, None, None]
    assert count(story) == 3
    assert [r.waiting for r in (run_of(story, first), run_of(story, second))] == [True, True]
    assert not run_of(story, active).waiting


def test_a_waiting_message_gets_its_parent_when_it_is_dispatched(story: Story):
    active = story.sends("u1")
    waiting = story.sends("u2", waiting=True)
    story.ends(active, "a1", attempt=story.claims(active))

    story.dispatches(waiting, story.answer(active))
    story.ends(waiting, "a2", attempt=story.claims(waiting))

    assert [m.content for m in branch(story)] == ["u1", "a1", "u2", "a2"]
    assert branch(story)[2].parent_id == story.answer(active)
    assert count(story) == 4
    assert run_of(story, waiting).first_seq == 3


def test_a_turn_that_is_cancelled_while_it_waits_stays_outside_the_branch(story: Story):
    active = story.sends("u1")
    waiting = story.sends("u2", waiting=True)
    story.cancels(waiting)
    story.ends(waiting, status="cancelled", attempt=0)
    story.ends(active, "a1", attempt=story.claims(active))

    assert [m.content for m in branch(story)] == ["u1", "a1"]
    assert count(story) == 2
    row = queries.find_message(story.connection, USER, story.question(waiting))
    assert (row.status, row.parent_id, row.content) == ("cancelled", None, "u2")
    reply = queries.find_message(story.connection, USER, story.answer(waiting))
    assert (reply.status, reply.content, reply.parent_id) == ("cancelled", "", row.id)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_an_unhappy_end_has_a_reply_of_that_status(story: Story, status: str):
    run = story.sends("u1")
    story.ends(run, "half", status, attempt=story.claims(run))  # type: ignore[arg-type]

    assert shown(story) == [("u1", "completed"), ("half", status)]
    assert run_of(story, run).status == status


def test_regenerating_makes_a_sibling_and_moves_the_branch_to_it(story: Story):
    first = story.replies("u1", "a1")
    story.replies("u2", "a2", parent=story.answer(first))

    again = story.sends(None, user_message_id=story.question(first))
    while_it_runs = [m.content for m in branch(story)]
    story.ends(again, "a1'", attempt=story.claims(again))

    assert while_it_runs == ["u1"]
    assert [m.content for m in branch(story)] == ["u1", "a1'"]
    assert branch(story)[1].parent_id == story.question(first)
    assert count(story) == 2


def test_a_regenerate_cancelled_while_it_waits_leaves_the_branch_alone(story: Story):
    active = story.sends("u1")
    waiting = story.sends(None, user_message_id=story.question(active), waiting=True)
    story.ends(waiting, status="cancelled", attempt=0)
    story.ends(active, "a1", attempt=story.claims(active))

    assert [m.content for m in branch(story)] == ["u1", "a1"]
    assert count(story) == 2


def test_a_reply_leaves_a_branch_alone_that_was_changed_meanwhile(story: Story):
    first = story.replies("u1", "a1")
    slow = story.sends("u2", parent_id=story.answer(first))
    other = story.sends("u3", parent_id=story.answer(first))
    story.ends(slow, "a2", attempt=story.claims(slow))

    assert [m.content for m in branch(story)] == ["u1", "a1", "u3"]
    assert run_of(story, other).status == "queued"


def test_a_cancel_is_kept_until_the_run_has_ended(story: Story):
    run = story.sends("u1")

    seq = story.cancels(run)

    assert run_of(story, run).cancelled
    assert run_of(story, run).last_seq == seq
    assert run_of(story, run).status == "queued"


def test_deleting_a_session_leaves_only_what_it_cost(story: Story):
    run = story.replies("u1", "a1")

    story.deletes()

    rows = dump(story.connection)
    assert rows["ai_chat_sessions"] == rows["ai_chat_messages"] == rows["runs"] == []
    usage = story.connection.execute(sa.select(usage_log)).one()
    assert (usage.id, usage.session_id, usage.output_tokens) == (run, None, 5)


def test_what_a_worker_says_after_the_deletion_leaves_only_what_it_cost(story: Story):
    run = story.sends("u1")
    attempt = story.claims(run)
    story.deletes()

    story.ends(run, "half", "cancelled", attempt=attempt)

    rows = dump(story.connection)
    assert rows["ai_chat_sessions"] == rows["ai_chat_messages"] == rows["runs"] == []
    assert [row[2] for row in rows["api_usage_log"]] == [None]


def test_a_run_that_nobody_claimed_cost_nothing(story: Story):
    run = story.sends("u1")
    story.ends(run, status="cancelled", attempt=0)

    assert dump(story.connection)["api_usage_log"] == []


def test_a_run_without_a_turn_has_no_messages(story: Story):
    run = "01900000-0000-7000-8000-00000000000b"
    story.hands_to_processor(run, a_document())
    story.ends(run, "done", attempt=story.claims(run))

    record = run_of(story, run).record()
    assert (record.status, record.user_message_id) == ("completed", None)
    assert branch(story) == []


def test_another_users_session_cannot_be_taken_by_its_id(story: Story):
    before = dump(story.connection)
    thief = session_address("01900000-0000-7000-8000-00000000000c", story.session)
    created = story.entries[0].fact
    assert isinstance(created, SessionCreated)

    story.append_at(thief, created)

    after = dump(story.connection)
    assert after["ai_chat_sessions"] == before["ai_chat_sessions"]


def test_a_fact_that_was_applied_is_left_out_the_next_time(story: Story):
    story.replies("u1", "a1")
    before = dump(story.connection)

    applied = apply(story.connection, story.entries, len(story.entries))

    assert applied == len(story.entries)
    assert dump(story.connection) == before


def lively(connection: sa.Connection) -> Story:
    """A session in which everything happens."""
    story = Story(connection)
    first = story.replies("u1", "a1")
    active = story.sends("u2", parent_id=story.answer(first))
    waiting, gone = story.sends("u3", waiting=True), story.sends("u4", waiting=True)
    story.updates(title="Everything")
    story.cancels(gone)
    story.ends(gone, status="cancelled", attempt=0)
    story.ends(active, "a2", attempt=story.claims(active))
    story.dispatches(waiting, story.answer(active))
    story.claims(waiting)
    story.ends(waiting, "a3", "failed", attempt=story.claims(waiting))
    again = story.sends(None, user_message_id=story.question(waiting))
    story.cancels(again)
    story.ends(again, "a3'", "cancelled", attempt=0)
    story.replies("u5", "a5", parent=story.answer(first))
    return story


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_facts_give_the_same_rows_in_batches_of_any_size(size: int):
    with tables() as one_by_one, tables() as batched:
        story = lively(one_by_one)
        for start in range(0, len(story.entries), size):
            part = story.entries[start : start + size]
            apply(batched, part, part[-1].seq)

        assert dump(batched) == dump(one_by_one)


def test_a_replay_into_cleared_tables_gives_the_same_rows():
    with tables() as connection:
        story = lively(connection)
        before = dump(connection)

        clear(connection)
        emptied = (read_applied(connection), connection.execute(sa.select(runs)).all())
        apply(connection, story.entries, len(story.entries))

        assert emptied == (0, [])
        assert dump(connection) == before


def test_the_count_of_messages_is_what_is_shown():
    with tables() as connection:
        story = Story(connection)
        chance = random.Random(7)
        active: str | None = None
        waiting: list[str] = []
        for _ in range(200):
            leaf = session_of(story).active_leaf
            what = chance.choice(["send", "send", "end", "cancel", "regenerate"])
            if what == "send" and active is None:
                active = story.sends("u", parent_id=leaf)
            elif what == "send":
                waiting.append(story.sends("u", waiting=True))
            elif what == "end" and active is not None:
                story.ends(active, "a")
                active = waiting.pop(0) if waiting else None
                if active is not None:
                    story.dispatches(active, session_of(story).active_leaf)
            elif what == "cancel" and waiting:
                story.ends(waiting.pop(), status="cancelled", attempt=0)
            elif what == "regenerate" and active is None and leaf is not None:
                parent = queries.find_message(connection, USER, leaf).parent_id
                if parent is not None:
                    active = story.sends(None, user_message_id=parent)

            assert count(story) == len(
                queries.list_messages(
                    connection, ListMessages(user_id=USER, session_id=story.session, limit=1000)
                ).items
            )


def test_every_table_is_written_by_some_fact():
    with tables() as connection:
        lively(connection)

        empty = [
            table.name
            for table in (sessions, messages, runs, usage_log)
            if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() == 0
        ]
        assert empty == []


# -- how replies ended, and what was thought before them ----------------------------


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", "end_turn"),
        ("max_tokens", "max_tokens"),
        ("content_filter", "content_filter"),
        ("max_length", "max_length"),
        ("tool_use", "tool_calls"),  # as facts of before say it
        ("model_context_window_exceeded", "max_tokens"),
        ("pause_turn", "end_turn"),
        ("never heard of", None),
        (None, None),
    ],
)
def test_a_reply_and_its_run_say_how_they_ended(story: Story, word: str | None, reason: str | None):
    run = story.sends("Hi")
    story.ends(run, "Ho", attempt=story.claims(run), stop_reason=word)

    usage = story.connection.execute(sa.select(usage_log.c.stop_reason)).scalar_one()
    assert branch(story)[-1].stop_reason == reason
    assert run_of(story, run).record().stop_reason == reason
    assert usage == reason


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_what_did_not_end_well_has_no_stop_reason(story: Story, status: EndStatus):
    run = story.sends("Hi")
    story.ends(run, "Ho", status, attempt=story.claims(run), stop_reason="end_turn")

    assert branch(story)[-1].stop_reason is None
    assert run_of(story, run).record().stop_reason is None


def test_thoughts_are_kept_beside_the_text_with_whose_they_are(story: Story):
    thoughts = Thoughts(text="Hm.", blocks=[{"type": "thinking", "signature": "s"}])
    run = story.sends("Hi")
    story.ends(run, "Ho", attempt=story.claims(run), thoughts=thoughts, provider="anthropic")
    following = story.sends("And?", parent_id=story.answer(run))

    _, reply, _ = story.context(following).messages

    assert (branch(story)[1].content, branch(story)[1].thoughts) == ("Ho", "Hm.")
    assert (reply.thoughts, reply.provider, reply.model) == (thoughts, "anthropic", "demo")


def test_thoughts_go_with_their_session(story: Story):
    run = story.sends("Hi")
    story.ends(run, "Ho", attempt=story.claims(run), thoughts=Thoughts(text="Hm."))
    story.deletes()

    assert story.connection.execute(sa.select(messages)).all() == []


def test_a_branch_that_is_copied_takes_endings_and_thoughts_along(story: Story):
    thoughts = Thoughts(text="Hm.", blocks=[{"signature": "s"}])
    run = story.sends("Hi")
    story.ends(run, "Ho", attempt=story.claims(run), thoughts=thoughts, stop_reason="max_tokens")
    copied = history_of(branch_of(story.connection, story.answer(run)))
    story.session = ids.new_id()

    story.opens(history=copied)

    reply = branch_of(story.connection, copied.leaf)[-1]
    assert (reply.stop_reason, reply.thoughts, reply.provider) == ("max_tokens", thoughts, "demo")
