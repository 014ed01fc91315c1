"""The lines of an answer: what it begins with, how its lines end, which of them belong together."""

from services.llm_worker.providers.shapes import MANY_VALUES

LONGEST_LINE = 8 * 1024 * 1024
"""Bytes of one line, one event, or one whole answer."""
PAGE = 4096
"""Bytes of a web page that are looked at, to say what it is."""

_BOM = b"\xef\xbb\xbf"


class Beginning:
    """Makes the line ends of an answer alike, and finds out what it is by its first byte."""

    def __init__(self) -> None:
        self.kind = b""
        """The first byte; nothing before it has come."""
        self.page = b""
        """A web page in place of an answer, as far as it has come."""
        self.crlf = False
        """Lines end with both: then the return is space after the JSON, and may stay."""
        self._after_cr = False
        self._before = b""

    @property
    def is_event(self) -> bool:
        """Whether the first byte may be that of an event's line."""
        return self.kind in b":deir"

    @property
    def is_over(self) -> bool:
        """Whether the answer's beginning is known, and its reads need no more tidying."""
        return bool(self.kind) and not self._after_cr and not self.page

    def tidied(self, data: bytes) -> bytes:
        """The read without what may precede everything, and with line feeds for lone returns."""
        if not self.kind:
            data = self._begun(self._before + data)
        if self.kind == b"<":
            self.page = (self.page + data)[:PAGE]
            return b""
        if self._after_cr and data:
            self._after_cr = False
            self.crlf = data.startswith(b"\n")
            data = data.removeprefix(b"\n")
        if not self.crlf and (at := data.find(b"\r")) >= 0:
            self.crlf = data.startswith(b"\n", at + 1)
            if not self.crlf:
                self._after_cr = data.endswith(b"\r")
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return data

    def _begun(self, data: bytes) -> bytes:
        self._before = data if len(data) < len(_BOM) and _BOM.startswith(data) else b""
        if self._before:
            return b""
        data = data.removeprefix(_BOM).lstrip()
        self.kind = data[:1]
        return data


class Event:
    """An event, or JSON of several lines, that has begun and not ended."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.is_error = False
        """It is named so."""
        self.lasts = False
        """It has all lines to the end of the answer."""
        self._length = 0

    def add(self, value: bytes) -> bool:
        """Add the event's next line; False when the event has become too long."""
        self.values.append(value)
        self._length += len(value)
        return self._length <= LONGEST_LINE and len(self.values) <= MANY_VALUES
