"""Bodies that come packed: nobody asks for it, but some servers do it all the same."""

import zlib
from collections.abc import Callable, Iterator

import aiohttp

PIECE = 256 * 1024
"""Bytes that are unpacked at a time."""

Unpack = Callable[[bytes], Iterator[bytes]]
"""What is in the next bytes of a packed body, in pieces of a bounded size."""

_GZIP, _DEFLATE, _BARE_DEFLATE = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS
_METHOD = 8
"""How the first byte ends where deflate has the header that it should have."""


def unpacker(coding: str) -> Unpack | None:
    """What undoes a content coding; None where nothing can be done."""
    match coding.strip().lower():
        case "gzip" | "x-gzip":
            return _Unpacker(_GZIP)
        case "deflate":
            return _Unpacker(_DEFLATE)
        case _:
            return None


class _Unpacker:
    def __init__(self, format_: int) -> None:
        self._zlib = zlib.decompressobj(format_)
        self._may_be_bare = format_ == _DEFLATE

    def __call__(self, data: bytes) -> Iterator[bytes]:
        """Unpack the next bytes.

        Raises:
            aiohttp.ClientPayloadError: they are not packed in that way.
        """
        if self._may_be_bare and data[0] & 0xF != _METHOD:
            self._zlib = zlib.decompressobj(_BARE_DEFLATE)
        self._may_be_bare = False
        piece = b""
        try:
            while data or len(piece) == PIECE:
                piece = self._zlib.decompress(data, PIECE)
                data = self._zlib.unconsumed_tail
                if piece:
                    yield piece
        except zlib.error as error:
            raise aiohttp.ClientPayloadError(f"it cannot be unpacked ({error})") from error
