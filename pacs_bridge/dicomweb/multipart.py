"""Bodies of several parts (RFC 2046 5.1, PS3.18 8.6.1.2), as streams.

Neither a body nor a part of it is ever held in memory.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.parser import BytesHeaderParser

_MAX_HEADER_BYTES = 16 * 1024
_MAX_BOUNDARY_CHARACTERS = 200  # RFC 2046 allows 70; some services do not keep to it
_MAX_PREAMBLE_BYTES = 64 * 1024
_LINE_END = b"\r\n"


class MultipartError(Exception):
    """The body is not made of parts as it says."""


class TruncatedError(MultipartError):
    """The body ends before its last boundary."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a body."""

    content_type: str
    content_length_bytes: int | None  #: as it says itself; not to be believed
    body: Iterator[bytes]  #: to be used up before the next part is asked for


def new_boundary() -> str:
    """A boundary that no body holds."""
    return f"pacs-bridge-{secrets.token_hex(16)}"


def read_parts(chunks: Iterable[bytes], boundary: str) -> Iterator[Part]:
    """The parts of a body; what is left of one that was not used up is skipped.

    Raises
    ------
    TruncatedError
        If the body ends early, from here or from the iterator of a part's body.
    MultipartError
        If the boundary is impossible or does not stand in the body, or a part has no end of
        its headers.
    """
    if not 0 < len(boundary) <= _MAX_BOUNDARY_CHARACTERS or not boundary.isprintable():
        raise MultipartError("no boundary that could be one")
    try:
        delimiter = b"\r\n--" + boundary.encode("ascii")
    except UnicodeEncodeError as error:
        raise MultipartError("a boundary beyond ASCII") from error
    stream = _Stream(chunks, _LINE_END)  # the first boundary need not follow a line
    skipped_bytes = 0
    try:
        for piece in stream.until(delimiter):
            skipped_bytes += len(piece)
            if skipped_bytes > _MAX_PREAMBLE_BYTES:
                raise MultipartError("the boundary does not stand in the body")
    except TruncatedError as error:
        if skipped_bytes > len(_LINE_END):  # something was there, and the boundary was not
            raise MultipartError("the boundary does not stand in the body") from error
        raise
    while not stream.ends_here():
        part = _part(stream, delimiter)
        yield part
        for _ in part.body:
            pass


def _part(stream: _Stream, delimiter: bytes) -> Part:
    head = bytearray()
    # The line of the boundary ends with white space and a line end; a part may have no headers.
    for piece in stream.until(_LINE_END):
        head += piece
        if len(head) > _MAX_HEADER_BYTES or head.strip(b" \t"):
            raise MultipartError("a boundary that does not end its line")
    head = bytearray(_LINE_END)
    stream.push(_LINE_END)
    for piece in stream.until(_LINE_END * 2):
        head += piece
        if len(head) > _MAX_HEADER_BYTES:
            raise MultipartError(f"headers of over {_MAX_HEADER_BYTES} bytes")
    headers = BytesHeaderParser().parsebytes(bytes(head).lstrip())
    length = str(headers.get("Content-Length", "")).strip()
    return Part(
        content_type=str(headers.get("Content-Type", "")),
        content_length_bytes=int(length[:19]) if length.isascii() and length.isdigit() else None,
        body=stream.until(delimiter),
    )


class _Stream:
    """Chunks, of which the beginning can be looked at."""

    def __init__(self, chunks: Iterable[bytes], begun: bytes) -> None:
        self._chunks = iter(chunks)
        self._data = bytearray(begun)

    def push(self, data: bytes) -> None:
        """Put back what comes next."""
        self._data[:0] = data

    def until(self, mark: bytes) -> Iterator[bytes]:
        """What comes before the mark, in pieces; the mark itself is used up."""
        while True:
            at = self._data.find(mark)
            if at >= 0:
                piece = bytes(self._data[:at])
                del self._data[: at + len(mark)]
                if piece:
                    yield piece
                return
            sure = len(self._data) - len(mark) + 1  # the mark may begin in the rest
            if sure > 0:
                piece = bytes(self._data[:sure])
                del self._data[:sure]
                yield piece
            self._more()

    def ends_here(self) -> bool:
        """Whether a boundary that was just used up is the last one."""
        while len(self._data) < 2:
            self._more()
        return self._data.startswith(b"--")

    def _more(self) -> None:
        for chunk in self._chunks:
            if chunk:
                self._data += chunk
                return
        raise TruncatedError("the body ends before its last boundary")
