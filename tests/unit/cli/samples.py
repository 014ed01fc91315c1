"""Runs with fixed ids: numbered turns, a job about a document, and a reply that was lost once."""

from datetime import datetime, timedelta

import msgspec

from shared.events import DocumentPlan, FileRef, StepPrompt, StepResult, Turn, Usage
from tests.support.scripted_log import START, ScriptedLog

RUN = "01a21600-0000-7000-8000-0000000000b1"
OTHER = "01a21600-0000-7000-8000-0000000000b2"
FILE = FileRef(
    id="01a21600-0000-7000-8000-0000000000f1",
    name="tax return.pdf",
    kind="pdf",
    media_type="application/pdf",
    size=7,
    sha256="5" * 64,
)
PLAN = DocumentPlan(file=FILE, prompt="What do I owe?")
READ = [StepResult(step="extract", text="")]
PROMPT = StepPrompt(
    step="answer",
    prompt=PLAN.prompt,
    files=[FILE],
    instead="<file>42</file>",
    schema={"type": "object"},
)
MISSED = msgspec.structs.replace(PROMPT, misses=1)


def at(ms: int) -> datetime:
    """When a log's clock says so many milliseconds."""
    return START + timedelta(milliseconds=ms)


def turn(number: int, content: str | None, parent: str | None = None) -> Turn:
    """The ``number``-th turn, whose messages have ids of its number."""
    return Turn(
        user_message_id=question(number),
        assistant_message_id=answer(number),
        content=content,
        parent_id=parent,
    )


def question(number: int) -> str:
    return f"01a21600-0000-7000-8000-{number:012}"


def answer(number: int) -> str:
    return f"01a21600-0000-7000-9000-{number:012}"


def restarted() -> ScriptedLog:
    """A reply that a worker began and lost, and another one wrote."""
    log = ScriptedLog()
    log.opens()
    log.at(1000).accepts(turn(1, "Tell me about tea"), RUN)
    log.at(1006).claims(RUN, message_ids=[question(1)])
    log.writes("Tea is")
    lost = msgspec.structs.replace(log.left("its worker was lost"), timeline=[])
    log.at(9000).claims(RUN, message_ids=[question(1)], previous=lost)
    log.at(12_000).ends(
        RUN,
        "Tea is a drink.",
        stop_reason="end_turn",
        usage=Usage(input_tokens=6, output_tokens=5),
        latency_ms=3000,
        first_delta_ms=20,
        timeline=[(20, 3), (120, 6), (2620, 8), (2990, 15)],
    )
    return log
