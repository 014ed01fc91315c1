"""The fake provider with every failure at once, which knows exactly what it said to whom.

Besides what :mod:`tests.support.fake_script` has, ``case=openai/d1`` in a prompt has the
first such call answered byte for byte as that case says, but in words of its own: no two
answers have a text in common.  ``steps=500`` has so many tokens come one by one, each when
:meth:`ChaosProvider.allow` says so.
"""

import asyncio
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from tests.chaos.harness.evidence import Call
from tests.chaos.harness.prompts import mark_of
from tests.support.case_provider import Case, read_cases
from tests.support.fake_provider import WIRES, FakeProvider, Seen
from tests.support.fake_script import FaultKind, Script
from tests.support.fake_wire import Reply

_CASE = re.compile(r"\bcase=(\S+)")
_STEPS = re.compile(r"\bsteps=(\d+)")
_TAG = re.compile(r"\b(a\d+)-\d+\b")
_BREAKS = ("drop", "stall", "pings", "end", "error", "undone")
_PAUSE = 0.005
_FIRST, _SECOND = b"Hi ", b"there"
"""What the recorded answers say."""


class Answer(msgspec.Struct):
    """What one call is answered with."""

    mark: str
    text: str = ""
    breaks: bool = False
    """Whether it breaks off before its end."""
    case: str = ""


class ChaosProvider(FakeProvider):
    """``async with ChaosProvider() as provider``; :meth:`calls` is its side of the evidence."""

    def __init__(self) -> None:
        super().__init__()
        self._cases = {case.id: case for case in read_cases()}
        self._answers: dict[str, Answer] = {}
        self._called: set[tuple[str, str]] = set()
        self._stepping: dict[str, str] = {}
        self._allowed: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(0)
        )

    def calls(self) -> list[Call]:
        """Every call so far, as far as it was answered at all."""
        return [
            Call(
                tag=seen.tag,
                mark=answer.mark,
                text=answer.text,
                whole=seen.ended_at is not None and seen.status == 200 and not answer.breaks,
                case=answer.case,
            )
            for seen in self.seen
            if (answer := self._answers.get(seen.tag)) is not None
        ]

    def seen_of(self, mark: str) -> list[Seen]:
        """The requests whose prompt has this mark."""
        return [seen for seen in self.seen if (a := self._answers.get(seen.tag)) and a.mark == mark]

    def _new_part_of(self, message: str) -> str:
        """From its mark on: prompts that came to nothing stand before it."""
        return message[max(message.rfind("mark="), 0) :]

    async def _follow_script(
        self, request: web.Request, seen: Seen, streams_by_default: bool
    ) -> web.StreamResponse:
        answer = self._answers[seen.tag] = Answer(self._mark_of(seen))
        self.changed()
        if case := self._case_of(seen, answer.mark):
            return await self._answer_as(case, request, seen, answer)
        if (steps := _STEPS.search(seen.message)) and _schema_of(seen.body) is None:
            return await self._answer_stepwise(int(steps[1]), request, seen, answer)
        return await super()._follow_script(request, seen, streams_by_default)

    def _mark_of(self, seen: Seen) -> str:
        """The prompt's own, or that of the answer which the prompt quotes, as later steps do."""
        if mark := mark_of(seen.message):
            return mark
        quoted = (self._answers.get(tag) for tag in _TAG.findall(seen.message))
        return next((answer.mark for answer in quoted if answer is not None), "")

    def _script_for(self, seen: Seen) -> tuple[Script, int]:
        script, nth = super()._script_for(seen)
        if (schema := _schema_of(seen.body)) is not None:
            script = msgspec.structs.replace(script, reply=json.dumps(_fitting(schema, seen.tag)))
        fault, answer = script.fault_of(nth), self._answers[seen.tag]
        answer.text = text_of(script, fault, seen.tag)
        answer.breaks = fault is not None and fault[0] in _BREAKS
        return script, nth

    # -- recorded answers -----------------------------------------------------------------

    def _case_of(self, seen: Seen, mark: str) -> Case | None:
        """The case with which a call is answered: the first one with this mark, and no other."""
        named = _CASE.search(seen.message)
        if named is None or (mark, named[1]) in self._called:
            return None
        self._called.add((mark, named[1]))
        return self._cases[named[1]]

    async def _answer_as(
        self, case: Case, request: web.Request, seen: Seen, answer: Answer
    ) -> web.StreamResponse:
        seen.status, answer.case = case.status, case.id
        answer.text = f"{seen.tag}-0 {seen.tag}-1 "
        if case.chunks is None:
            body = _reworded(case.body, seen.tag)
            headers = {"Content-Type": "application/json", **case.headers}
            return web.Response(status=case.status, headers=headers, body=body)
        response = web.StreamResponse(
            headers={"Content-Type": WIRES[case.api].content_type, **case.headers}
        )
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in case.chunks:
            await asyncio.sleep(_PAUSE)
            await response.write(_reworded(chunk, seen.tag))
        await response.write_eof()
        return response

    # -- one token at a time ----------------------------------------------------------------

    def allow(self, mark: str) -> None:
        """Let the answer to that prompt have its next token; after the last one, its end."""
        self._allowed[mark].release()

    async def stepping(self, mark: str, timeout: float) -> str:
        """The tag of the answer that comes token by token, as soon as there is one."""
        await self.wait_for(lambda: mark in self._stepping, timeout)
        return self._stepping[mark]

    async def _answer_stepwise(
        self, tokens: int, request: web.Request, seen: Seen, answer: Answer
    ) -> web.StreamResponse:
        wire, reply = (
            WIRES[seen.api],
            Reply(tag=seen.tag, model=seen.body["model"], prompt_tokens=1),
        )
        self._stepping[answer.mark] = seen.tag
        self.changed()
        seen.status, answer.text = 200, "".join(f"{seen.tag}-{n} " for n in range(tokens))
        response = web.StreamResponse(headers={"Content-Type": wire.content_type})
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(wire.opening(reply))
        before, after = wire.token(reply)
        for n in range(tokens):
            await self._allowed[answer.mark].acquire()
            await response.write(before + f"{seen.tag}-{n} ".encode() + after)
        await self._allowed[answer.mark].acquire()
        await response.write_eof(wire.closing(reply, tokens))
        return response


def _reworded(data: bytes, tag: str) -> bytes:
    """The same bytes, but that they say what no other answer says."""
    return data.replace(_FIRST, f"{tag}-0 ".encode()).replace(_SECOND, f"{tag}-1 ".encode())


def text_of(script: Script, fault: tuple[FaultKind, int] | None, tag: str) -> str:
    """All that a scripted answer says, if nothing breaks it off."""
    if script.reply is not None:
        return script.reply
    kind, at = fault or (None, 0)
    if kind == "empty":
        return ""
    tokens = [f"{tag}-{n} " for n in range(script.tokens)]
    if kind == "lone" and at < script.tokens:
        tokens[at] = f"{tag}-{at}\ufffd "
    elif kind == "split" and at < script.tokens:
        is_last = at == script.tokens - 1
        tokens[at] = f"{tag}-{at}\ufffd" if is_last else f"{tag}-{at}😀 "
    return "".join(tokens)


# -- answers that fit a schema --------------------------------------------------------------


def _schema_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The schema that an answer has to fit, as OpenAI's API has it."""
    wanted = body.get("response_format") or {}
    return (wanted.get("json_schema") or {}).get("schema")


def _fitting(schema: Mapping[str, Any], tag: str) -> Any:
    """A value that fits, for the schemas of natterlog's own pipeline, in words of its own."""
    numbers = itertools.count()

    def value_of(part: Mapping[str, Any]) -> Any:
        match part["type"]:
            case "object":
                return {name: value_of(each) for name, each in part["properties"].items()}
            case "array":
                return [value_of(part["items"]) for _ in range(2)]
            case "boolean":
                return True
            case _:
                return part["enum"][0] if "enum" in part else f"{tag}-{next(numbers)}"

    return value_of(schema)
