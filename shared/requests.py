"""Requests of one service to another: a class says with its name and its base what it is.

``class GetRun(Request[RunAnswer])`` goes to ``cmd.store.get_run``, and a
``RunAnswer`` is what comes back.
"""

import re
from typing import Any, ClassVar, Generic, TypeVar, get_args

import msgspec

Answer = TypeVar("Answer", bound=msgspec.Struct)

_NEXT_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class BusRequest(msgspec.Struct, Generic[Answer], frozen=True, kw_only=True):
    """A request that is answered by an ``Answer``."""

    name: ClassVar[str]
    """The end of its subject."""
    answer: ClassVar[type[msgspec.Struct]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        (answer,) = get_args(vars(cls)["__orig_bases__"][0])
        if isinstance(answer, type):  # else the class is a family of requests
            cls.name = _NEXT_WORD.sub("_", cls.__name__).lower()
            cls.answer = answer

    def decode_answer(self, data: bytes) -> Answer:
        """The answer to this request.

        Raises:
            msgspec.DecodeError: it is none.
        """
        answer: Any = msgspec.json.decode(data, type=self.answer)
        return answer
