"""A conversation in turns, whatever became of its replies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.llm_worker.alternation import Spoken, Turns, alternating
from services.llm_worker.providers.base import PromptFile, PromptMessage, ProviderError
from shared.events import Thoughts

PNG = PromptFile(name="1.png", media_type="image/png", data=b"png")


def spoken(*sides: str) -> list[Spoken]:
    """Messages as ``u:Hello``; their ids count from 0."""
    roles = {"u": "user", "a": "assistant"}
    return [
        Spoken(f"{n}", PromptMessage(roles[side[0]], side[2:]))  # pyright: ignore
        for n, side in enumerate(sides)
    ]


def shown(turns: Turns) -> list[str]:
    return [f"{message.role[0]}:{message.content}" for message in turns.messages]


@pytest.mark.parametrize(
    ("sides", "sent", "notes"),
    [
        (["u:1", "a:2", "u:3"], ["u:1", "a:2", "u:3"], []),
        (["u:1", "u:2", "u:3"], ["u:1\n\n2\n\n3"], []),  # two replies failed
        (["u:1", "a:2", "a:3", "u:4"], ["u:1", "a:2\n\n3", "u:4"], []),
        (["u:1", "a: \n", "u:2"], ["u:1\n\n2"], ["1 blank message was not sent."]),
        (
            ["a:0", "a:1", "u:2", "a:3", "u:4"],
            ["u:2", "a:3", "u:4"],
            ["2 replies at the conversation's edges were not sent."],
        ),
        (
            ["u:1", "a:2"],
            ["u:1"],
            ["1 reply at the conversation's edge was not sent."],
        ),
    ],
)
def test_the_user_begins_and_the_sides_take_turns(
    sides: list[str], sent: list[str], notes: list[str]
):
    turns = alternating(spoken(*sides))

    assert (shown(turns), turns.notes) == (sent, notes)


def test_whose_content_was_sent_is_told_by_id():
    turns = alternating(spoken("a:0", "u:1", "u:2", "a: ", "u:4"))

    assert turns.ids == ["1", "2", "4"]


def test_a_reply_that_goes_on_stands_last():
    turns = alternating(spoken("a:0", "u:1", "a:Half of"), continues=True)

    assert shown(turns) == ["u:1", "a:Half of"]


def test_a_message_of_files_alone_is_not_blank():
    turns = alternating([Spoken("1", PromptMessage("user", "", [PNG])), *spoken("u:Look")])

    [message] = turns.messages
    assert (message.content, message.files) == ("Look", [PNG])


def test_thoughts_stay_with_a_reply_that_is_whole():
    first, second, third, fourth = spoken("u:1", "a:2", "a:3", "u:4")
    thought = PromptMessage("assistant", "2", thoughts=Thoughts(text="hm"))

    alone = alternating([first, Spoken("2", thought), fourth])
    joined = alternating([first, Spoken("2", thought), third, fourth])

    assert alone.messages[1].thoughts == Thoughts(text="hm")
    assert joined.messages[1].thoughts is None
    assert second.message.thoughts is None


@pytest.mark.parametrize("sides", [[], ["u: "], ["a:1"], ["u:1", "a:2", "u:\t\n"]])
def test_nothing_to_be_answered_is_said_so(sides: list[str]):
    with pytest.raises(ProviderError) as raised:
        alternating(spoken(*sides))

    assert (raised.value.code, raised.value.transient) == ("invalid_request", False)


@given(st.lists(st.tuples(st.sampled_from("ua"), st.sampled_from(["", " ", "x", "y z"]))))
def test_whatever_was_said_a_strict_template_takes_it(sides: list[tuple[str, str]]):
    past = spoken(*(f"{side}:{text}" for side, text in sides), "u:And now?")

    turns = alternating(past)

    roles = [message.role for message in turns.messages]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert all(message.content.strip() for message in turns.messages)
    begin = next(n for n, each in enumerate(past) if each.id == turns.ids[0])
    texts = [each.message.content for each in past[begin:] if each.message.content.strip()]
    assert "\n\n".join(m.content for m in turns.messages) == "\n\n".join(texts)
