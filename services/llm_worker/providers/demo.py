"""The provider that needs nothing: it says what it is, and how to get a real one.

A line of the message ``demo: words=200 rate=100`` asks for so many words, and so
many a second (0: all at once); either may be left out.  So many words go before
the limit of tokens.  A reply that is to go on goes on where it was cut.
"""

import asyncio
import re
from itertools import cycle

from services.llm_worker.providers import faults
from services.llm_worker.providers.base import Ended, ModelInfo, Prompt, Write
from services.llm_worker.providers.examples import as_json, example
from shared.events import Usage

MODEL = "demo"
MAX_PIECES = 20_000
STEP = 0.01
"""Seconds between two pieces at least."""

_ORDER = re.compile(r"^\s*demo:(.*)$", re.MULTILINE | re.IGNORECASE)
_PAIR = re.compile(r"\b(words|rate)=(\d+(?:\.\d+)?)")
_WORD = re.compile(r"\S+\s*")
_QUOTED = 200

_REPLY = """\
I am natterlog's **demo provider**, not a language model: no model is configured yet.

You wrote:

> {quote}

To get real answers, set one of these and start natterlog again:

- `ANTHROPIC_API_KEY` for Claude
- `OLLAMA_HOST` for models on a machine of yours, such as `http://localhost:11434`
- `LLM_SERVER_URL` or `OPENAI_API_KEY` for any server that speaks OpenAI's API

Everything else works as it will then: this reply is streamed word by word, survives a \
lost connection or a killed process, can be stopped, and is kept. For a longer one, add \
a line such as `demo: words=300 rate=20` to your message.
"""
_MORE = """
Here is one of the sentences that fill the rest. Every word of it is written to the log \
before you see it. Close the page and come back: it goes on where you left it.
"""


class Demo:
    """The provider ``demo``; its tokens are words."""

    name = "demo"

    def __init__(self, *, rate: float) -> None:
        self._rate = rate
        """Words a second; 0: all at once."""

    async def stream(self, prompt: Prompt, write: Write) -> Ended:
        if prompt.model != MODEL:
            raise await faults.no_such_model(self, prompt.model)
        message, written = _last_message(prompt)
        length, rate = _order(message)
        pieces = _WORD.findall(_REPLY.format(quote=_quote(message)))
        stop_reason = "end_turn"
        if prompt.schema is not None:
            pieces = _WORD.findall(as_json(example(prompt.schema)))
        elif length is not None:
            pieces = _after(written, _of_length(pieces, length))
        else:
            pieces = _after(written, pieces)
            if prompt.max_tokens is not None and prompt.max_tokens < len(pieces):
                pieces, stop_reason = pieces[: prompt.max_tokens], "max_tokens"
        await _write_paced(pieces, self._rate if rate is None else rate, write)
        return Ended(stop_reason=stop_reason, usage=_count(prompt, pieces))

    def notes(self, prompt: Prompt) -> list[str]:
        return []

    def takes(self, model: str, media_type: str) -> bool:
        return False

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(name=MODEL, display_name="natterlog demo")]

    async def aclose(self) -> None:
        """Close nothing: nothing is open."""


def _order(message: str) -> tuple[int | None, float | None]:
    """The (words, words a second) that a message asks for."""
    line = _ORDER.search(message)
    pairs = dict(_PAIR.findall(line[1])) if line else {}
    pieces, rate = pairs.get("words"), pairs.get("rate")
    return (min(int(float(pieces)), MAX_PIECES) if pieces else None, float(rate) if rate else None)


def _last_message(prompt: Prompt) -> tuple[str, str]:
    """The message to answer, and what is written of its reply already."""
    texts = [message.content for message in prompt.messages]
    if prompt.go_on is not None and len(texts) > 2:
        return texts[-3], texts[-2]
    return (texts[-1] if texts else ""), ""


def _after(written: str, pieces: list[str]) -> list[str]:
    """The words that are to come; all of them where ``written`` is not their beginning."""
    whole = "".join(pieces)
    return _WORD.findall(whole.removeprefix(written)) or pieces


def _quote(message: str) -> str:
    text = " ".join(_ORDER.sub("", message).split())
    return f"{text[:_QUOTED]}…" if len(text) > _QUOTED else text or "(nothing)"


def _of_length(pieces: list[str], length: int) -> list[str]:
    more = cycle(_WORD.findall(_MORE))
    return pieces[:length] + [next(more) for _ in range(length - len(pieces))]


async def _write_paced(pieces: list[str], rate: float, write: Write) -> None:
    """Write the words at their times; those that are due together go together."""
    if not rate and pieces:
        write("".join(pieces))
        return
    loop = asyncio.get_running_loop()
    start, sent = loop.time(), 0
    while sent < len(pieces):
        due = min(int((loop.time() - start) * rate) + 1, len(pieces))
        if due > sent:
            write("".join(pieces[sent:due]))
            sent = due
        await asyncio.sleep(max(start + sent / rate - loop.time(), STEP))


def _count(prompt: Prompt, pieces: list[str]) -> Usage:
    texts = [prompt.system or "", *(message.content for message in prompt.messages)]
    return Usage(input_tokens=sum(len(text.split()) for text in texts), output_tokens=len(pieces))
