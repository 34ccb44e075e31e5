"""Bodies of several parts, in whatever pieces they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacs_bridge.dicomweb.media_type import MediaType
from pacs_bridge.dicomweb.multipart import MultipartError, TruncatedError, read_parts
from pacs_bridge.dicomweb.retry_after import MAX_WAIT_S, retry_after_s

BODIES = st.lists(st.text("\r\n-b:", max_size=40).map(str.encode), max_size=4)
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def _body(parts: list[bytes], preamble: bytes = b"") -> bytes:
    whole = b"".join(b"--bound\r\nContent-Type: a/b\r\n\r\n" + part + b"\r\n" for part in parts)
    return preamble + whole + b"--bound--\r\n"


def _chunks(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def _read(chunks: Iterable[bytes]) -> list[tuple[str, bytes]]:
    return [(part.content_type, b"".join(part.body)) for part in read_parts(chunks, "bound")]


@given(BODIES, st.integers(1, 50))
def test_parts_are_what_they_were_in_whatever_chunks_they_come(
    parts: list[bytes], size: int
) -> None:
    read = _read(_chunks(_body(parts), size))
    assert read == [("a/b", part) for part in parts]


@given(BODIES.filter(len), st.integers(1, 50), st.integers(1, 400))
def test_a_body_that_is_cut_anywhere_is_truncated(parts: list[bytes], size: int, cut: int) -> None:
    body = _body(parts)
    cut = min(cut, len(body) - len(b"--\r\n") - 1)
    with pytest.raises(MultipartError):
        _read(_chunks(body[:cut], size))


def test_what_stands_before_the_first_boundary_and_an_unused_part_are_skipped() -> None:
    body = _body([b"first", b"second"], preamble=b"a word before\r\n")
    assert len(list(read_parts([body], "bound"))) == 2


def test_a_part_without_headers_is_a_part() -> None:
    assert _read([b"--bound\r\n\r\nbytes\r\n--bound--"]) == [("", b"bytes")]


@pytest.mark.parametrize(
    "body",
    [
        b"--other\r\n\r\nx\r\n--other--",
        b"--bound\r\n" + b"X: y\r\n" * 5000,
        b"--boundless\r\n\r\nx\r\n--bound--",
        b"x" * 100_000,
    ],
)
def test_what_is_not_made_of_parts_is_an_error(body: bytes) -> None:
    with pytest.raises(MultipartError):
        _read(_chunks(body, 1000))


def test_an_empty_body_is_truncated() -> None:
    with pytest.raises(TruncatedError):
        list(read_parts([], "bound"))


@pytest.mark.parametrize(
    ("header", "name", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary="a b"', "multipart/related", "a b"),
        ("Multipart/Related;boundary=x", "multipart/related", "x"),
        ("application/dicom+json; charset=utf-8", "application/dicom+json", ""),
        ("", "", ""),
        ("nonsense", "", ""),
    ],
)
def test_a_media_type_is_read(header: str, name: str, boundary: str) -> None:
    assert MediaType.of(header) == MediaType(name, boundary)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0.0),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), MAX_WAIT_S),
        ("99999999999999999999999", MAX_WAIT_S),
        ("-5", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        (None, 0.0),
    ],
)
def test_a_wait_is_asked_for_in_seconds_or_by_a_date(header: str | None, seconds: float) -> None:
    assert retry_after_s(header, NOW) == seconds
