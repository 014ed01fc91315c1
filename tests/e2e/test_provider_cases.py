"""Every odd answer of a provider that is on record, through the running product.

One session a case: the case, and then a plain message, which must be answered.  All
run side by side in one system; each test looks at what became of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from shared.bus import Bus
from shared.events import RunEnded, Thoughts
from tests.support.case_provider import MODEL, PLAIN, Case, CaseProvider, read_cases
from tests.support.log_checks import read_runs
from tests.support.memory import peak, reset_peak, resident
from tests.support.native_client import NativeClient, Reply
from tests.support.system import System

pytestmark = pytest.mark.asyncio(loop_scope="session")

AT_ONCE = 24
DEADLINE = 40.0
MEGABYTE = 1024 * 1024
HOSTILE = [
    Case(
        id=f"hostile/{api}-{name}",
        api=api,
        expect="",
        chunks=[(b"" if api == "ollama" else b"data: ") + start, *[piece] * 1_600],
        pause=0.002,
    )
    for api in ("openai", "anthropic", "ollama")
    for name, start, piece in (
        ("line", b'{"message":{"content":"', b"x" * 65_536),
        ("deep", b'{"error":', b"[" * 65_536),
        ("wide", b'{"choices":[', b"{}," * 20_000),
        ("garbage", b"ping\n", b"\x00\xff ping\n" * 5_000),
    )
]
"""A hundred megabytes of what is no reply."""
CASES = {case.id: case for case in [*read_cases(), *HOSTILE]}
MOST_MEMORY = 300 * MEGABYTE
"""More than before, at any time, in a worker that reads many of them at once."""


class Expected(NamedTuple):
    """What a case comes to: the text (or a part of natterlog's sentence), or the error's words."""

    status: str
    text: str = "Hi there"
    stop_reason: str | None = None
    sentence: str = ""
    """What the error, or the sentence in place of a text, has in it."""
    calls: int = 1


def broken(sentence: str, text: str = "", calls: int = 3) -> Expected:
    """A failure; one that may pass is called three times."""
    return Expected("failed", text=text, sentence=sentence, calls=calls)


def instead(sentence: str, stop_reason: str) -> Expected:
    """A sentence of natterlog's in place of an answer that did not come."""
    return Expected("completed", text=sentence, stop_reason=stop_reason)


COMPLETED = {
    'completed with the text "Hi there", asked for once': Expected(
        "completed", stop_reason="end_turn"
    ),
    'completed with the text "Hi there", asked for once, and its stop reason (cut at the limit '
    "of tokens) told in every dialect that has a place for it": Expected(
        "completed", stop_reason="max_tokens"
    ),
    "an answer like any other (asked for once more at most)": Expected(
        "completed", stop_reason="end_turn"
    ),
    "completed with the text 'I cannot help.' and the stop reason refusal": Expected(
        "completed", text="I cannot help.", stop_reason="refusal"
    ),
}
TOOL = instead(
    "The model asked for a tool (f) instead of answering. natterlog cannot run tools for it yet.",
    "tool_calls",
)
THOUGHTS = instead(
    "The model used all the tokens that it may use for thinking, before the first word of an "
    "answer. A higher limit of tokens, or less thinking, helps.",
    "max_tokens",
)
OTHERS = {
    "openai/d3insuf": broken("ended its reply with “insufficient_system_resource”", "Hi there"),
    "openai/d3abort": broken("ended its reply with “abort”", "Hi there"),
    "openai/d3error": broken("upstream idle timeout", "Hi there"),
    "openai/d11eof": broken("broke off before the end of its reply", "Hi there"),
    "openai/d11nothing": broken("broke off before its first byte"),
    "openai/d12first": broken("Overloaded"),
    "openai/d12mid": broken("Overloaded", "Hi there"),
    "openai/d15html": broken("“Welcome to LiteLLM”", calls=1),
    "openai/d15err200": broken(
        "Invalid API key provided. Its key (OPENAI_API_KEY) is wrong or missing.", calls=1
    ),
    "openai/d15_301": broken("redirects to https://example.invalid/v1/chat/completions", calls=1),
    "openai/d15_308": broken("redirects to /v2/chat/completions", calls=1),
    "openai/d15_502html": broken("answered 502: 502 Bad Gateway"),
    "openai/d15_402": broken("answered 402: Insufficient Balance", calls=1),
    "openai/d15_429quota": broken("answered 429: You exceeded your current quota", calls=1),
    "openai/event_err": broken("upstream died", "Hi there"),
    "openai/objerr": broken("CUDA out of memory", "Hi there"),
    "openai/redir": broken("redirects to http://[private address]/v1/chat/completions", calls=1),
    "openai/d6cf": instead("The provider's content filter held the answer back.", "content_filter"),
    "openai/d10": THOUGHTS,
    "openai/tool": TOOL,
    "openai/d11onlydone": broken("answered with nothing, and gave no reason", calls=2),
    "openai/emptyreply": broken("answered with nothing, and gave no reason", calls=2),
    "openai/nul": Expected("completed", text="a\0b\u2028c\u202ed", stop_reason="end_turn"),
    "anthropic/d11eof": broken("broke off before the end of its reply", "Hi there"),
    "anthropic/d11nothing": broken("broke off before its first byte"),
    "anthropic/d12first": broken("Overloaded"),
    "anthropic/d12mid": broken("Overloaded", "Hi there"),
    "anthropic/d15html": broken("“Welcome to LiteLLM”", calls=1),
    "anthropic/d15_301": broken("redirects to https://example.invalid/v1/messages", calls=1),
    "anthropic/d15_308": broken("redirects to /v2", calls=1),
    "anthropic/d15err200": broken(
        "invalid x-api-key. Its key (ANTHROPIC_API_KEY) is wrong", calls=1
    ),
    "anthropic/d15_502html": broken("answered 502: 502 Bad Gateway"),
    "anthropic/redir": broken("redirects to http://[private address]/v1/messages", calls=1),
    "anthropic/d6": instead("The model refused to answer: no", "refusal"),
    "anthropic/d6part": Expected("completed", stop_reason="refusal"),
    "anthropic/d3weird": Expected("completed", stop_reason="end_turn"),
    "anthropic/d3pause": Expected("completed", stop_reason="end_turn"),
    "anthropic/d3nosr": Expected("completed", stop_reason="end_turn"),
    "anthropic/d3null": Expected("completed", stop_reason="end_turn"),
    "anthropic/d11stoponly": Expected("completed", stop_reason="end_turn"),
    "ollama/d3weird": broken("ended its reply with “error”", "Hi there"),
    "ollama/d11eof": broken("broke off before the end of its reply", "Hi there"),
    "ollama/d11nothing": broken("broke off before its first byte"),
    "ollama/d12first": broken("an error was encountered while running the model: CUDA error"),
    "ollama/d12mid": broken("unexpected EOF", "Hi there"),
    "ollama/d15html": broken("“Welcome to LiteLLM”", calls=1),
    "ollama/d15_301": broken("redirects to https://example.invalid/api/chat", calls=1),
    "ollama/d15_502html": broken("answered 502: 502 Bad Gateway"),
    "ollama/d15_400": broken('answered 400: "odd" does not support chat', calls=1),
    "ollama/d15_500mem": broken("model requires more system memory (12.0 GiB)"),
    "ollama/d3load": broken("answered with nothing, because it only loaded the model", calls=2),
    "ollama/d6empty": broken("answered with nothing, and gave no reason", calls=2),
    "ollama/d10": THOUGHTS,
    "ollama/tool": TOOL,
}


for one in HOSTILE:
    OTHERS[one.id] = broken("sent what cannot be read")


class Shown(NamedTuple):
    """What a client was shown of a case, and of the message after it."""

    session: str
    reply: Reply
    calls: int
    plain: Reply


class Results(NamedTuple):
    client: NativeClient
    shown: dict[str, Shown | BaseException]
    finals: dict[str, RunEnded]
    """By run."""
    strayed: list[str]
    memory: int
    """Bytes that the worker had at most, beyond those before."""
    logs: str

    def final(self, case: str) -> RunEnded:
        """The last fact of the case's run."""
        shown = self.shown[case]
        if isinstance(shown, BaseException):
            raise shown
        return self.finals[shown.reply.run_id]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def results() -> AsyncIterator[Results]:
    """Every case, tried once."""
    async with CaseProvider(list(CASES.values())) as provider:
        settings = {
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "OPENAI_API_KEY": "fake",
            "ANTHROPIC_BASE_URL": provider.url,
            "ANTHROPIC_API_KEY": "fake",
            "OLLAMA_HOST": provider.url,
            "LLM_DEFAULT_MODEL": f"openai/{MODEL}",
            "CLAUDE_CB_THRESHOLD": "100000",  # no case is to be spared for the sake of another
        }
        async with (
            System(settings) as system,
            Bus(system.nats.url, name="test") as bus,
            NativeClient(system.url) as client,
        ):
            slots, worker = asyncio.Semaphore(AT_ONCE), system.one("llm-worker").pid
            before = resident(worker)
            reset_peak(worker)

            async def tried(case: Case) -> Shown:
                async with slots, asyncio.timeout(DEADLINE):
                    return await _try(case, provider, client)

            shown = await asyncio.gather(*map(tried, CASES.values()), return_exceptions=True)
            runs = await read_runs(bus)
            yield Results(
                client=client,
                shown=dict(zip(CASES, shown, strict=True)),
                finals={run_id: run.final for run_id, run in runs.items() if run.finals},
                strayed=provider.strayed,
                memory=peak(worker) - before,
                logs=system.logs(),
            )


async def _try(case: Case, provider: CaseProvider, client: NativeClient) -> Shown:
    session = await client.session(model=f"{case.api}/{MODEL}")
    reply = await client.send(session, f"case {case.id}")
    calls = provider.calls[case.id]
    return Shown(session, reply, calls, await client.send(session, "a plain message"))


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
async def test_a_case_comes_to_what_it_should(results: Results, case: Case):
    expected = OTHERS.get(case.id) or COMPLETED[case.expect]
    final = results.final(case.id)
    shown = results.shown[case.id]
    assert isinstance(shown, Shown)

    end = shown.reply.end
    assert (final.status, final.text, final.stop_reason, shown.calls) == (
        *(expected.status, expected.text, expected.stop_reason, expected.calls),
    )
    assert end is not None
    if expected.status == "completed":
        shown.reply.check()
    else:
        assert final.error is not None
        assert expected.sentence in final.error.message
        assert (end["type"], end["message"]) == ("error", final.error.message)
    shown.plain.check()
    assert shown.plain.text == PLAIN


@pytest.mark.parametrize(
    ("case", "notes"),
    [
        ("openai/d1", []),
        ("openai/d2null_mid", ["1 part of openai's answer could not be read and was left out."]),
        ("ollama/d2neg", ["ollama counted '-1' as output_tokens; that was left out."]),
        ("anthropic/d3weird", ["anthropic ended with 'weird', which natterlog does not know."]),
    ],
)
async def test_what_was_left_out_is_in_the_runs_facts(
    results: Results, case: str, notes: list[str]
):
    assert results.final(case).notes == notes


@pytest.mark.parametrize("case", ["openai/d4", "openai/d2robj", "ollama/d10"])
async def test_thoughts_are_in_the_runs_facts(results: Results, case: str):
    assert results.final(case).thoughts == Thoughts(text="hm")


@pytest.mark.parametrize("kind", ["md", "txt", "json", "pdf"])
async def test_odd_characters_do_no_harm_to_what_is_kept(results: Results, kind: str):
    shown = results.shown["openai/nul"]
    assert isinstance(shown, Shown)
    client, session = results.client, shown.session

    _, listed = await client.call("GET", f"/messages/{session}")
    async with client.http.get(client.url(f"/sessions/{session}/export?format={kind}")) as answer:
        exported = await answer.read()

    assert listed["items"][1]["content"] == "a\0b\u2028c\u202ed"
    assert (answer.status, len(exported) > 100) == (200, True)


async def test_no_case_is_a_defect_in_the_log(results: Results):
    assert "Traceback" not in results.logs
    assert "consumer.failed" not in results.logs


async def test_no_conversation_follows_a_redirect(results: Results):
    assert results.strayed == []


async def test_answers_of_any_length_take_bounded_memory(results: Results):
    assert results.memory < MOST_MEMORY, f"{results.memory:,} bytes"
