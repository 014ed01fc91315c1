"""The prompt of a todo, and what follows its answer: a chat's reply, or a job's step."""

from typing import NamedTuple, Protocol

import msgspec

from services.llm_worker.answers import Missed, checked, schema_instruction
from services.llm_worker.attached import conversation, read_file
from services.llm_worker.files import chosen
from services.llm_worker.prices import Prices
from services.llm_worker.providers.base import (
    Ended,
    Prompt,
    PromptMessage,
    Provider,
)
from services.llm_worker.refusals import RefusedBy
from shared.bus import Bus
from shared.commands import Context, ContextMessage
from shared.consumer import Delivery, Rejected
from shared.errors import shortened
from shared.events import (
    Fault,
    FileRef,
    RunEnded,
    SentFile,
    StepPrompt,
    StepResult,
    Thoughts,
    TodoChat,
    TodoGenerate,
    TodoProcess,
    Turn,
    Usage,
)
from shared.ids import now
from shared.plans import cost_of, due_step, notes_of, total, without_file_text
from shared.subjects import Address

MISSES = 3
"""Answers that miss their schema before the job fails at the step."""


class Next(NamedTuple):
    """The run goes on with this todo."""

    subject: str
    todo: TodoProcess | TodoGenerate
    reason: str
    """Why the attempt ended here."""


GO_ON = (
    "Your last reply was cut off. Go on exactly where it stopped: begin with its very next "
    "characters, repeat nothing of it, and say nothing about it."
)
"""What is asked where a reply is to go on; no provider must be able to go on by itself."""


class Task(Protocol):
    """One todo of this worker's."""

    @property
    def turn(self) -> Turn | None:
        """The conversation's turn that is answered, if it is one."""
        ...

    @property
    def begins_run(self) -> bool:
        """Whether no step before this one can have written anything."""
        ...

    def opening(self, context: Context) -> str:
        """What the text begins with, before the provider says anything."""
        ...

    async def prompt(
        self, provider: Provider, model: str, context: Context, refused: RefusedBy
    ) -> Prompt:
        """The prompt for the provider, without what the model ``refused``.

        Raises:
            ProviderError: it cannot be asked that.
        """
        ...

    def judge(self, text: str, ended: Ended) -> Next | Fault | None:
        """What a complete answer leads to; None: it is the run's end."""
        ...

    def dress(self, final: RunEnded) -> RunEnded:
        """The final with what the task knows besides the text."""
        ...


def task_of(delivery: Delivery, bus: Bus, prices: Prices) -> Task:
    """The task that a todo is.

    Raises:
        Rejected: it is no todo of this worker's.
    """
    match delivery.fact:
        case TodoChat() as todo:
            return Reply(todo, bus, prices)
        case TodoGenerate() as todo:
            return Step(todo, delivery.address, bus, prices)
        case _:
            raise Rejected(f"not a todo of a llm_worker: {delivery.subject}")


class Reply:
    """A chat's reply: the conversation is the prompt, and the answer is the end."""

    begins_run = True

    def __init__(self, todo: TodoChat, bus: Bus, prices: Prices) -> None:
        self.turn = todo.turn
        self._since = todo.at
        self._bus = bus
        self._prices = prices
        self._goes_on: ContextMessage | None = None
        """The reply that was cut, where it is to go on."""

    def opening(self, context: Context) -> str:
        if self.turn.continues is not None:
            self._goes_on = context.messages[-1]
        return "" if self._goes_on is None else self._goes_on.content

    async def prompt(
        self, provider: Provider, model: str, context: Context, refused: RefusedBy
    ) -> Prompt:
        def takes(file: FileRef) -> bool:
            return provider.takes(model, file.media_type) and not refused.file(file)

        def thought(message: ContextMessage) -> bool:
            return (message.provider, message.model) == (provider.name, model)

        continues = self.turn.continues is not None
        branch = await conversation(
            *(self._bus, context.messages, takes, thought),
            since=self._since,
            continues=continues,
        )
        wish = [PromptMessage("user", GO_ON)] if continues else []
        return Prompt(
            model=model,
            messages=[*branch.messages, *wish],
            message_ids=branch.ids,
            go_on=GO_ON if continues else None,
            notes=[*self.turn.notes, *branch.notes],
            sent=branch.sent,
            learnt=refused.learnt,
            system=system if (system := context.system_prompt) and system.strip() else None,
            temperature=context.temperature,
            max_tokens=context.max_tokens,
        )

    def judge(self, text: str, ended: Ended) -> None:
        return None

    def dress(self, final: RunEnded) -> RunEnded:
        cost = self._prices.cost(final.provider, final.model, final.usage)
        final = msgspec.structs.replace(final, cost=cost)
        if self._goes_on is None or self._goes_on.thoughts is None:
            return final
        return msgspec.structs.replace(
            final, thoughts=_all_thoughts(self._goes_on, self._goes_on.thoughts, final)
        )


def _all_thoughts(before: ContextMessage, thoughts: Thoughts, final: RunEnded) -> Thoughts:
    """The thoughts of a continued reply, old and new; blocks of another model are left out."""
    same = (before.provider, before.model) == (final.provider, final.model)
    blocks = thoughts.blocks if same else []
    if final.thoughts is None:
        return Thoughts(text=thoughts.text, blocks=blocks)
    text = "\n\n".join(filter(None, (thoughts.text, final.thoughts.text)))
    return Thoughts(text=text, blocks=[*blocks, *final.thoughts.blocks])


class Step:
    """A job's step: the prompt and the schema of the answer are in its todo."""

    turn = None

    def __init__(self, todo: TodoGenerate, address: Address, bus: Bus, prices: Prices) -> None:
        self.begins_run = not todo.results and todo.previous is None
        self._todo = todo
        self._prices = prices
        self._model: tuple[str, str] | None = None
        """The provider and its model."""
        self._address = address
        self._bus = bus
        self._result: StepResult | None = None
        self._spent = todo.ask.spent
        self._notes: list[str] = []

    def opening(self, context: Context) -> str:
        return ""

    async def prompt(
        self, provider: Provider, model: str, context: Context, refused: RefusedBy
    ) -> Prompt:
        ask = self._todo.ask
        self._model = provider.name, model

        def takes(file: FileRef) -> bool:
            return provider.takes(model, file.media_type)

        wished = chosen(ask.files, takes)
        choice = chosen(ask.files, lambda file: takes(file) and not refused.file(file))
        withheld = ask.schema is not None and refused.schema(ask.schema)
        self._notes = [
            *choice.notes,
            *refused.notes(as_it_is=choice.files == wished.files, schema=not withheld),
        ]
        parts = [ask.prompt, *choice.notes]
        instead = ask.instead if choice.needs_text else ""
        if instead:
            parts.append(instead)
        if ask.schema is not None:
            parts.append(schema_instruction(ask.schema))
        files = [await read_file(self._bus, self._address.session, f) for f in choice.files]
        return Prompt(
            model=model,
            messages=[PromptMessage("user", "\n\n".join(parts), files)],
            system=ask.system,
            temperature=context.temperature,
            max_tokens=context.max_tokens,
            schema=None if withheld else ask.schema,
            learnt=refused.learnt,
            notes=self._notes,
            sent=self._sent(choice.files, instead) if ask.files or instead else [],
        )

    def _sent(self, files: list[FileRef], instead: str) -> list[SentFile]:
        length = len(instead) or None
        ids = [file.id for file in files]
        return [SentFile(id=self._address.session, as_it_is=ids, characters=length, length=length)]

    def judge(self, text: str, ended: Ended) -> Next | Fault | None:
        todo, ask = self._todo, self._todo.ask
        self._spent = total(ask.spent, ended.usage)
        if ended.sentence is not None:  # no step may go on with that as its answer
            message = f"There is no answer for the step “{ask.step}”: {ended.sentence}"
            return Fault(code="provider_error", message=message)
        try:
            answer = text if ask.schema is None else checked(text, ask.schema)
        except Missed as missed:
            return self._again(ask, str(missed))
        self._result = StepResult(
            step=ask.step,
            text=answer,
            notes=[*self._notes, *ended.notes],
            usage=self._spent,
            cost=self._cost(self._spent),
        )
        if todo.last:
            return None
        results = [*todo.results, self._result]
        step = due_step(todo.plan, results) or ask.step
        following = TodoProcess(
            at=now(),
            n=todo.n + 1,
            priority=todo.priority,
            step=step,
            plan=todo.plan,
            results=results,
        )
        subject = self._address.todo_process(todo.priority, following.n)
        return Next(subject, following, "its answer was taken")

    def _again(self, ask: StepPrompt, fault: str) -> Next | Fault:
        """The next todo of the same step, with the fault named; misses so far are in the log."""
        todo, misses, fault = self._todo, ask.misses + 1, shortened(fault)
        if misses >= MISSES:
            message = f"The answers of the step “{ask.step}” did not fit its schema: {fault}"
            return Fault(code="provider_error", message=message)
        wish = f"An earlier answer of yours did not fit what is asked: {fault}"
        again = msgspec.structs.replace(
            ask, prompt=f"{ask.prompt}\n\n{wish}", misses=misses, spent=self._spent
        )
        following = msgspec.structs.replace(todo, at=now(), n=todo.n + 1, ask=again)
        subject = self._address.todo_generate(todo.priority, following.n)
        return Next(subject, following, "its answer missed the schema")

    def dress(self, final: RunEnded) -> RunEnded:
        results = list(self._todo.results)
        if self._result is not None and final.status == "completed":
            results.append(self._result)
            spent, more, notes = None, [], []
        else:
            spent, notes = self._spent, final.notes
            more = [] if spent is None else [self._cost(spent)]
        return msgspec.structs.replace(
            final,
            results=without_file_text(self._todo.plan, results),
            notes=[*notes_of(results), *notes],
            usage=total(*(result.usage for result in results), spent),
            cost=cost_of(results, *more),
        )

    def _cost(self, usage: Usage | None) -> int | None:
        provider, model = self._model or (None, None)
        return self._prices.cost(provider, model, usage)
