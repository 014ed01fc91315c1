"""A conversation to be read: its active branch as plain text, as Markdown, and what a PDF shows."""

import re
import unicodedata
from urllib.parse import quote

import msgspec

from shared.commands import Export
from shared.events import StopReason
from shared.records import Message

YOU, ASSISTANT = "You", "Assistant"
_LONGEST = 80
_ENDINGS: dict[StopReason, str] = {
    "max_tokens": "cut off at its limit of tokens",
    "max_length": "cut off: as long as a reply may be",
    "refusal": "the model refused",
    "content_filter": "stopped by a content filter",
}
"""What is said of a reply that is complete and yet not all that it might have been."""
_NO_NAME = re.compile(r"[^\w.-]+")


class PaperMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message as readers see it."""

    who: str
    when: str
    text: str
    files: list[str]
    note: str | None
    """How it ended, unless it is complete."""


class Paper(msgspec.Struct, frozen=True, kw_only=True):
    """The whole conversation as readers see it."""

    title: str
    about: str
    messages: list[PaperMessage]


def paper_of(export: Export) -> Paper:
    """The active branch, with names for who speaks and what was attached."""
    by_id = {message.id: message for message in export.messages}
    names = {file.id: file.ref.name for file in export.files}
    branch = [by_id[message_id] for message_id in export.branch]
    return Paper(
        title=export.session.title or "Conversation",
        about=_about(branch),
        messages=[_paper_message(message, names) for message in branch],
    )


def as_text(paper: Paper) -> str:
    parts = [f"{paper.title}\n{'=' * min(len(paper.title), _LONGEST)}\n{paper.about}"]
    for message in paper.messages:
        head = f"{message.who} · {message.when}"
        parts.append("\n".join([head, "-" * len(head), message.text, *_more(message)]))
    return "\n\n".join(parts) + "\n"


def as_markdown(paper: Paper) -> str:
    """Messages are Markdown already; rules stand between them, because they have headings."""
    parts = [f"# {_one_line(paper.title)}\n\n{paper.about}"]
    for message in paper.messages:
        more = [f"*{line}*" for line in _more(message)]
        head = f"**{message.who}** · {message.when}"
        parts.append("\n\n".join([head, message.text, *more]))
    return "\n\n---\n\n".join(parts) + "\n"


def disposition(title: str | None, extension: str) -> str:
    """The header Content-Disposition for a file that is called after the conversation."""
    plain = unicodedata.normalize("NFC", title or "")
    name = _NO_NAME.sub("-", plain)[:_LONGEST].strip("-.") or "conversation"
    latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    ascii_name = re.sub("-+", "-", latin).strip("-.") or "conversation"
    return (
        f'attachment; filename="{ascii_name}.{extension}"; '
        f"filename*=UTF-8''{quote(name)}.{extension}"
    )


def _about(branch: list[Message]) -> str:
    if not branch:
        return "No messages."
    models = dict.fromkeys(message.model for message in branch if message.model)
    dates = dict.fromkeys(f"{m.created_at:%Y-%m-%d}" for m in (branch[0], branch[-1]))
    count = f"{len(branch)} message{'s' if len(branch) > 1 else ''}"
    return " · ".join([" – ".join(dates), count, *([", ".join(models)] if models else [])])


def _paper_message(message: Message, names: dict[str, str]) -> PaperMessage:
    is_reply = message.role == "assistant"
    who = f"{ASSISTANT} ({message.model})" if is_reply and message.model else ASSISTANT
    return PaperMessage(
        who=who if is_reply else YOU,
        when=f"{message.created_at:%Y-%m-%d %H:%M} UTC",
        text=message.content,
        files=[names.get(file, "a file that is gone") for file in message.attachments],
        note=_note(message),
    )


def _note(message: Message) -> str | None:
    if message.status != "completed":
        return message.status
    return None if message.stop_reason is None else _ENDINGS.get(message.stop_reason)


def _more(message: PaperMessage) -> list[str]:
    lines = [f"Attached: {_one_line(name)}" for name in message.files]
    return [*lines, f"({message.note})"] if message.note else lines


def _one_line(text: str) -> str:
    return " ".join(text.split())
