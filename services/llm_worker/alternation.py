"""A conversation as every chat template takes it: the user begins, and the sides take turns.

Templates of models raise an error at anything else ("roles must alternate"), and then
a session would be stuck for ever: a reply that failed, was refused or deleted leaves
two messages of its user in a row.
"""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from services.llm_worker.providers.base import PromptMessage, ProviderError
from shared.commands import ContextMessage

NOT_THE_MODELS_TEXT = frozenset({"refusal", "content_filter"})
"""Stop reasons of replies that are no words of the model."""


class Spoken(NamedTuple):
    """A message on its way into a prompt."""

    id: str
    message: PromptMessage


class Turns(NamedTuple):
    messages: list[PromptMessage]
    ids: list[str]
    """Whose content is in them."""
    notes: list[str]
    """What was left out, one sentence each."""


def usable(messages: Iterable[ContextMessage]) -> tuple[list[ContextMessage], list[str]]:
    """Those that may be sent, and what was left out: a refusal is no reply of the model's."""
    found = list(messages)
    kept = [m for m in found if m.role == "user" or m.stop_reason not in NOT_THE_MODELS_TEXT]
    refusals = len(found) - len(kept)
    return kept, _counted(refusals, "refused reply was", "refused replies were")


def alternating(spoken: list[Spoken], *, continues: bool = False) -> Turns:
    """The messages in turns; the last one is the user's, unless a reply ``continues``.

    Two of one side are one, joined by a blank line; blank ones are left out.

    Raises:
        ProviderError: nothing is left to be answered.
    """
    kept = [each for each in spoken if each.message.content.strip() or each.message.files]
    notes = _counted(len(spoken) - len(kept), "blank message was", "blank messages were")
    if not continues and spoken and spoken[-1] not in kept:
        kept = []  # what came before it has been answered already
    begin = next((n for n, each in enumerate(kept) if each.message.role == "user"), len(kept))
    end = len(kept)
    while not continues and end > begin and kept[end - 1].message.role == "assistant":
        end -= 1
    outside = len(kept) - (end - begin)
    notes += _counted(
        outside,
        "reply at the conversation's edge was",
        "replies at the conversation's edges were",
    )
    kept = kept[begin:end]
    if not kept:
        raise ProviderError(
            "There is nothing to be answered: the message is blank.",
            code="invalid_request",
            transient=False,
        )
    messages: list[PromptMessage] = []
    for _, message in kept:
        if messages and messages[-1].role == message.role:
            messages[-1] = _joined(messages[-1], message)
        else:
            messages.append(message)
    return Turns(messages, [each.id for each in kept], notes)


def _joined(first: PromptMessage, second: PromptMessage) -> PromptMessage:
    """Two messages of one side as one; what was thought before either is no longer whole."""
    texts = [text for text in (first.content, second.content) if text.strip()]
    return msgspec.structs.replace(
        first,
        content="\n\n".join(texts),
        files=[*first.files, *second.files],
        thoughts=None,
    )


def _counted(number: int, one: str, many: str) -> list[str]:
    return [f"{number} {one if number == 1 else many} not sent."] if number else []
