"""The tables and a conversation in memory are made of facts by one fold: they say the same."""

import random

import pytest
import sqlalchemy as sa

from services.store import queries
from services.store.past import history_of
from services.store.rows import message_row, run_row
from services.store.schema import messages, runs
from shared import ids
from shared.commands import ListMessages
from shared.conversation import Conversation
from shared.events import EndStatus, Rating
from shared.message_state import MessageState
from shared.run_state import RunState
from tests.support.scripted_log import USER
from tests.unit.store.story import Story

ENDS: list[EndStatus] = ["completed", "completed", "failed", "cancelled"]
RATINGS: list[Rating | None] = ["up", "down", None]


class Chance:
    """Lets anything happen in a session that can happen there."""

    def __init__(self, story: Story, seed: int) -> None:
        self._story = story
        self._chance = random.Random(seed)
        self._active: str | None = None
        self._waiting: list[str] = []
        self._ended: list[str] = []

    def step(self) -> None:
        kinds = [self.send, self.send, self.end, self.end, self.give_up, self.regenerate]
        self._chance.choice([*kinds, self.edit, self.go_on, self.choose, self.rate])()

    def send(self) -> None:
        if self._active is None:
            self._active = self._story.sends("Hi", parent_id=self._leaf)
        else:
            self._waiting.append(self._story.sends("And?", waiting=True))

    def end(self) -> None:
        if self._active is None:
            return
        attempt = self._story.claims(self._active)
        text = "x" * self._chance.randrange(9)
        self._story.ends(self._active, text, self._chance.choice(ENDS), attempt=attempt)
        self._ended.append(self._active)
        self._active = self._waiting.pop(0) if self._waiting else None
        if self._active is not None:
            self._story.dispatches(self._active, self._leaf)

    def give_up(self) -> None:
        if self._waiting:
            run = self._waiting.pop()
            self._story.cancels(run)
            self._story.ends(run, status=self._chance.choice(["cancelled", "failed"]), attempt=0)

    def regenerate(self) -> None:
        if self._ended and self._active is None:
            question_id = self._story.question(self._chance.choice(self._ended))
            self._active = self._story.sends(None, user_message_id=question_id)

    def edit(self) -> None:
        if self._ended and self._active is None:
            old = self._story.question(self._chance.choice(self._ended))
            parent = queries.find_message(self._story.connection, USER, old).parent_id
            self._active = self._story.sends("Ho", parent_id=parent, edits=old)

    def go_on(self) -> None:
        if self._ended and self._active is None:
            first = self._chance.choice(self._ended)
            reply = queries.find_message(self._story.connection, USER, self._story.answer(first))
            self._active = self._story.continues(first, reply.content)

    def choose(self) -> None:
        if self._ended and self._active is None:
            self._story.chooses(self._story.answer(self._chance.choice(self._ended)))

    def rate(self) -> None:
        if self._ended:
            rating = self._chance.choice(RATINGS)
            self._story.rates(self._story.answer(self._chance.choice(self._ended)), rating, "Hm.")

    @property
    def _leaf(self) -> str | None:
        return queries.find_session(self._story.connection, USER, self._story.session).active_leaf


def fields(state: RunState) -> dict[str, object]:
    return {name: getattr(state, name) for name in RunState.__struct_fields__}


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_the_tables_and_the_conversation_say_the_same(story: Story, seed: int):
    conversation, taken = Conversation(), 0
    chance = Chance(story, seed)
    for _ in range(60):
        chance.step()
        for entry in story.entries[taken:]:
            conversation.apply(entry)
        taken = len(story.entries)

        request = ListMessages(user_id=USER, session_id=story.session, limit=1000)
        assert [each.record() for each in conversation.active_branch()] == queries.list_messages(
            story.connection, request
        ).items
    rows = [message_row(row) for row in story.connection.execute(sa.select(messages))]
    assert {row.id: row for row in rows} == conversation.messages
    run_rows = [run_row(row) for row in story.connection.execute(sa.select(runs))]
    assert {row.id: fields(row) for row in run_rows} == {
        run_id: fields(run) for run_id, run in conversation.runs.items()
    }


def test_what_a_session_is_opened_with_is_its_conversations_beginning(story: Story):
    run = story.replies("Hi", "Ho")
    copied = history_of(
        [message_of(story, story.question(run)), message_of(story, story.answer(run))]
    )
    story.session = ids.new_id()
    story.opens(history=copied)
    conversation = Conversation()

    conversation.apply(story.entries[-1])

    assert [each.content for each in conversation.active_branch()] == ["Hi", "Ho"]
    assert conversation.messages == {
        each.id: message_of(story, each.id) for each in copied.messages
    }


def test_each_way_to_go_on_from_a_message_is_its_child(story: Story):
    run = story.replies("Hi", "Ho")
    for content in ("This", "That"):
        story.replies(content, "So.", parent=story.answer(run))
    conversation = Conversation()
    for entry in story.entries:
        conversation.apply(entry)

    children = conversation.children(story.answer(run))

    assert [child.content for child in children] == ["This", "That"]


def message_of(story: Story, message_id: str) -> MessageState:
    return queries.find_message(story.connection, USER, message_id)
